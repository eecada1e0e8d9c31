//! The configuration file, in TOML.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::de::DeserializeOwned;

use super::suggest::nearest;
use super::{Error, MachineOptions};

/// A description of a machine is a page; what is longer is another file, given by mistake.
const MAX_BYTES: u64 = 1 << 20;

impl MachineOptions {
    /// Reads a file. Relative paths in it start at its folder.
    pub fn from_file(path: &Path) -> Result<Self, Error> {
        let text = read(path)?;
        let mut options = Self::from_toml(&text, path)?;
        if let Some(folder) = path.parent() {
            options.rebase(folder);
        }
        Ok(options)
    }

    /// Reads a text; errors name the file that it is from. Relative paths stay as they are.
    pub fn from_toml(text: &str, path: &Path) -> Result<Self, Error> {
        parse(text, path)
    }
}

/// What a text says; errors name the file that it is from.
pub(super) fn parse<T: DeserializeOwned>(text: &str, path: &Path) -> Result<T, Error> {
    toml::from_str(text).map_err(|source| Error::ParseFile {
        path: path.to_owned(),
        nearest: meant(source.message()),
        source: Box::new(source),
    })
}

/// The text of a file, if that can be a configuration file.
pub(super) fn read(path: &Path) -> Result<String, Error> {
    let failed = |source| Error::ReadFile { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let mut text = String::new();
    file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(Error::FileTooLong { path: path.to_owned(), limit_bytes: MAX_BYTES });
    }
    Ok(text)
}

/// What an unknown key was meant to be, from serde's message, which may say before where it is:
/// ``unknown field `a`, expected one of `b`, `c` ``.
fn meant(message: &str) -> Option<String> {
    let (_, field) = message.split_once("unknown field ")?;
    let mut quoted = field.split('`').skip(1).step_by(2);
    let unknown = quoted.next()?;
    let known: Vec<&str> = quoted.collect();
    nearest(unknown, &known).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::super::{BlockSize, DeviceId, DiskConfig, MemorySize, SerialConfig};
    use super::*;

    fn parse(text: &str) -> Result<MachineOptions, Error> {
        MachineOptions::from_toml(text, Path::new("vm.toml"))
    }

    const FULL: &str = r#"
        kernel = "vmlinux"
        initrd = "initrd.img"
        cmdline = ["quiet", "panic=-1"]
        cpus = 4
        memory = "6G"
        hugepages = true
        lock-memory = false
        serial = "file=console.log"
        single-process = true

        [root]
        path = "root.img"
        ro = true

        [[disk]]
        path = "/data.img"
        direct = true
        queues = 4
        block-size = 4096
        id = "data"
    "#;

    #[test]
    fn every_key_is_read() {
        let options = parse(FULL).expect("valid");
        assert_eq!(options.kernel, Some("vmlinux".into()));
        assert_eq!(options.initrd, Some("initrd.img".into()));
        assert_eq!(options.cmdline, ["quiet", "panic=-1"]);
        assert_eq!(options.cpus.map(u8::from), Some(4));
        assert_eq!(options.memory, Some(MemorySize::from_mib(6144)));
        assert_eq!((options.hugepages, options.lock_memory), (Some(true), Some(false)));
        assert_eq!(options.serial, Some(SerialConfig::File("console.log".into())));
        assert_eq!(options.single_process, Some(true));
        let root = DiskConfig { read_only: true, ..DiskConfig::new("root.img") };
        assert_eq!(options.root, Some(root));
        let disk = DiskConfig {
            direct: true,
            queues: Some(4.try_into().expect("in range")),
            block_size: BlockSize::try_from(4096).expect("known"),
            id: Some(DeviceId::try_from("data".to_owned()).expect("short")),
            ..DiskConfig::new("/data.img")
        };
        assert_eq!(options.disks, [disk]);
    }

    #[test]
    fn what_is_written_is_read_again() {
        let options = parse(FULL).expect("valid");
        let text = toml::to_string(&options).expect("serializable");
        assert_eq!(parse(&text).expect(&text), options);
    }

    #[test]
    fn relative_paths_start_at_the_folder_of_the_file() {
        let mut options = parse(FULL).expect("valid");
        options.rebase(Path::new("/vms/a"));
        assert_eq!(options.kernel, Some("/vms/a/vmlinux".into()));
        assert_eq!(options.disks[0].path, Path::new("/data.img"));
        assert_eq!(options.root.map(|root| root.path), Some("/vms/a/root.img".into()));
        assert_eq!(options.serial, Some(SerialConfig::File("/vms/a/console.log".into())));
    }

    #[test]
    fn broken_files_are_refused_with_the_reason() {
        let table = [
            ("cpus = 0", "a machine has 1 to 64 CPUs"),
            ("cpus = 100000", "a machine has 1 to 64 CPUs"),
            ("cpus = \"4\"", "invalid type"),
            ("memory = -1", "an amount like 512 (MiB), 512M or 6G is wanted"),
            ("memory = \"much\"", "an amount like 512 (MiB), 512M or 6G is wanted"),
            ("cpus = 1\ncpus = 2", "duplicate key"),
            ("[[disk]]\nro = true", "missing field `path`"),
            ("[[disk]]\npath = \"a\"\nread-write = true", "unknown field `read-write`"),
            ("serial = \"tty\"", "unknown kind `tty` (did you mean `pty`?)"),
            ("kernel = [", ""),
        ];
        for (text, expected) in table {
            let Err(Error::ParseFile { source, .. }) = parse(text) else {
                panic!("accepted: {text}");
            };
            assert!(source.to_string().contains(expected), "{text}: {source}");
        }
    }

    #[test]
    fn a_misspelled_key_is_recognised() {
        let Err(Error::ParseFile { nearest, .. }) = parse("memroy = 512") else {
            panic!("accepted");
        };
        assert_eq!(nearest.as_deref(), Some("memory"));
    }
}
