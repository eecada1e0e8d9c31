//! The first root of a guest: the agent, the modules that its devices need, and, if there is no
//! other root, the command with its libraries and some tools.

use std::collections::BTreeSet;
use std::env;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use initramfs::Archive;
use proto::mounts::{self, Mount};

use super::cache::{self, Cache};
use super::programs;

/// The agent's place; the kernel starts it from there (`rdinit=`).
pub(super) const INIT: &str = "/.vmm/agent";
const SUCCESSOR: &str = "/.vmm/init";
const MODULE_LIST: &str = "/.vmm/modules";
const LATER_LIST: &str = "/.vmm/modules.later";
const MODULE_FOLDER: &str = "/.vmm/lib";

/// What scripts expect to find. A static busybox, if the host has one, is all of them.
const TOOLS: [&str; 33] = [
    "sh", "cat", "chmod", "cp", "date", "dd", "df", "dmesg", "echo", "env", "false", "grep",
    "head", "hostname", "id", "kill", "ls", "mkdir", "mount", "mv", "printf", "ps", "pwd", "rm",
    "sed", "sleep", "sync", "test", "touch", "true", "umount", "uname", "wc",
];

/// What goes into the archive.
#[derive(Debug, Default)]
pub(super) struct Contents<'a> {
    pub(super) agent: &'a [u8],
    /// Which agent that is.
    pub(super) agent_version: &'a str,
    /// In the order in which they are loaded.
    pub(super) modules: Vec<PathBuf>,
    /// After all else.
    pub(super) later: Vec<PathBuf>,
    /// What the agent mounts before it serves.
    pub(super) mounts: &'a [Mount],
    /// Put after this one: what both have, this one wins.
    pub(super) before: Option<&'a Path>,
    /// The command; None if the root has it.
    pub(super) program: Option<&'a str>,
    /// What the agent leaves the guest to when all is mounted.
    pub(super) init: Option<&'a str>,
}

impl Contents<'_> {
    /// What the archive depends on, but for the files that are found while it is made.
    fn wish(&self) -> String {
        let mut wish = format!("agent {}\n", self.agent_version);
        let mut note = |what: &str, path: &Path| {
            let _ = writeln!(wish, "{what} {} {}", path.display(), cache::stamp(path));
        };
        self.modules.iter().for_each(|path| note("module", path));
        self.later.iter().for_each(|path| note("later", path));
        self.before.iter().for_each(|path| note("before", path));
        if let Some(program) = self.program {
            let tools = ["busybox"].into_iter().chain(TOOLS);
            for tool in [program].into_iter().chain(tools) {
                note(tool, &programs::find(tool).unwrap_or_default());
            }
            // Where libraries are looked for.
            note("libraries", Path::new("/etc/ld.so.cache"));
            let _ = writeln!(wish, "and {:?}", env::var_os("LD_LIBRARY_PATH"));
        }
        let _ = writeln!(wish, "init {:?}", self.init);
        wish.extend(self.mounts.iter().map(|mount| mount.to_line() + "\n"));
        wish
    }
}

/// Finds the archive in the cache, or makes it: there, or at `path` where there is no cache.
pub(super) fn provide(contents: &Contents<'_>, path: &Path) -> io::Result<PathBuf> {
    let make_here = || write(contents, path).map(|_| path.to_owned());
    let Some(cache) = Cache::of_user() else { return make_here() };
    let wish = contents.wish();
    if let Some(archive) = cache.find(&wish) {
        return Ok(archive);
    }
    cache.add(&wish, |path| write(contents, path)).or_else(|error| {
        log::info!("a first root is not cached: {error}");
        make_here()
    })
}

/// Writes the archive, and gives the files of this host that it is made of.
fn write(contents: &Contents<'_>, path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut out =
        BufWriter::new(OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?);
    let mut read: Vec<PathBuf> = contents.modules.iter().chain(&contents.later).cloned().collect();
    read.extend(contents.before.map(Path::to_owned));
    if let Some(before) = contents.before {
        let length = io::copy(&mut File::open(before)?, &mut out)?;
        // The next archive begins at a multiple of four.
        out.write_all(&[0; 3][..(length.next_multiple_of(4) - length) as usize])?;
    }
    let mut archive = Archive::new(out);
    archive.file(INIT, 0o755, contents.agent)?;
    for (list, modules) in [(MODULE_LIST, &contents.modules), (LATER_LIST, &contents.later)] {
        let mut lines = String::new();
        for module in modules {
            let name = module.file_name().map(|name| name.to_string_lossy().into_owned());
            let place = format!("{MODULE_FOLDER}/{}", name.unwrap_or_default());
            archive.file(&place, 0o644, &fs::read(module)?)?;
            lines.push_str(&place);
            lines.push('\n');
        }
        archive.file(list, 0o644, lines.as_bytes())?;
    }
    let table: String = contents.mounts.iter().map(|mount| mount.to_line() + "\n").collect();
    archive.file(mounts::TABLE, 0o644, table.as_bytes())?;
    if let Some(init) = contents.init {
        archive.file(SUCCESSOR, 0o644, init.as_bytes())?;
    }
    // The kernel opens it before anybody mounts /dev.
    archive.device("/dev/console", (5, 1))?;
    if let Some(program) = contents.program {
        read.extend(root(&mut archive, program)?);
    }
    archive.finish()?;
    Ok(read)
}

/// A root for one command. A program that is not there is left out: the guest then says so.
fn root<W: Write>(archive: &mut Archive<W>, program: &str) -> io::Result<BTreeSet<PathBuf>> {
    for folder in ["/proc", "/sys", "/run", "/mnt", "/etc"] {
        archive.folder(folder, 0o755)?;
    }
    archive.folder("/root", 0o700)?;
    archive.folder("/tmp", 0o1777)?;
    archive.file(
        "/etc/passwd",
        0o644,
        b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    )?;
    archive.file("/etc/group", 0o644, b"root:x:0:\ntty:x:5:\nnogroup:x:65534:\n")?;
    let mut files = BTreeSet::new();
    if let Some(path) = programs::find(program) {
        let path = std::path::absolute(path)?;
        programs::closure(&path, &mut files)?;
    }
    match busybox() {
        Some(path) => {
            let applets = std::process::Command::new(&path).arg("--list").output()?.stdout;
            archive.file("/bin/busybox", 0o755, &fs::read(&path)?)?;
            pack(archive, &files)?;
            files.insert(path);
            for applet in String::from_utf8_lossy(&applets).lines() {
                if !["bin", "usr/bin", "sbin", "usr/sbin"]
                    .iter()
                    .any(|folder| archive.contains(&format!("{folder}/{applet}")))
                {
                    archive.link(&format!("/bin/{applet}"), "/bin/busybox")?;
                }
            }
        }
        None => {
            for path in TOOLS.iter().filter_map(|tool| programs::find(tool)) {
                programs::closure(&path, &mut files)?;
            }
            pack(archive, &files)?;
        }
    }
    if !archive.contains("/bin/sh") && archive.contains("/usr/bin/sh") {
        archive.link("/bin/sh", "/usr/bin/sh")?;
    }
    Ok(files)
}

fn pack<W: Write>(archive: &mut Archive<W>, files: &BTreeSet<PathBuf>) -> io::Result<()> {
    for file in files {
        if let Some(path) = file.to_str() {
            archive.file(path, 0o755, &fs::read(file)?)?;
        }
    }
    Ok(())
}

/// A busybox that needs no libraries.
fn busybox() -> Option<PathBuf> {
    let path = programs::find("busybox")?;
    let mut files = BTreeSet::new();
    programs::closure(&path, &mut files).ok()?;
    (files.len() == 1).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_has_agent_modules_and_command() {
        let folder = tempfile::tempdir().unwrap();
        let module = folder.path().join("virtio.ko");
        let before = folder.path().join("before");
        fs::write(&module, "a module").unwrap();
        fs::write(&before, "12345").unwrap();
        let contents = Contents {
            agent: b"the agent",
            agent_version: "1",
            modules: vec![module],
            later: Vec::new(),
            mounts: &[Mount {
                source: b"vmm.0".to_vec(),
                target: b"/".to_vec(),
                fstype: "virtiofs".into(),
                access: mounts::Access::Overlay,
            }],
            before: Some(&before),
            program: Some("ls"),
            init: Some("/sbin/init"),
        };
        let path = folder.path().join("archive");
        write(&contents, &path).unwrap();
        let bytes = fs::read(path).unwrap();
        assert!(bytes.starts_with(b"12345\x00\x00\x00070701"));
        for text in [
            "the agent",
            "a module",
            ".vmm/lib/virtio.ko\n",
            "/ls\0",
            "/sbin/init",
            "dev/console\0",
            "\0vmm.0 / virt",
        ] {
            assert!(bytes.windows(text.len()).any(|window| window == text.as_bytes()), "{text:?}");
        }
    }
}
