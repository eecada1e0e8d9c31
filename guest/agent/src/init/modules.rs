//! Loads the kernel modules that lie beside the agent in its initial RAM disk: those that it needs at once, and
//! when there is nothing else to do those that can wait.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use rustix::io::Errno;

/// One path per line, in the order in which they must be loaded.
const LIST: &str = "/.vmm/modules";
/// The same, of those that can wait.
const LATER: &str = "/.vmm/modules.later";
/// Where they are. The kernel has copies of its own after it has loaded them.
const FOLDER: &str = "/.vmm/lib";

/// Where parameters of modules stand (`ramoops.mem_size=...`), for whoever loads them.
const COMMAND_LINE: &str = "/proc/cmdline";

/// nice(2).
const LOWEST_PRIORITY: i32 = 19;

/// `MODULE_INIT_COMPRESSED_FILE`: the kernel unpacks it (Linux 5.17).
const COMPRESSED: i32 = 4;

/// Modules that can wait. Their files are open, as the root may be another one by then.
#[derive(Debug, Default)]
pub(crate) struct Later(Vec<Module>);

#[derive(Debug)]
struct Module {
    path: String,
    file: File,
    parameters: CString,
}

/// Loads all of the list, if there is one, and gives what comes later.
pub(super) fn load() -> Later {
    let words = fs::read_to_string(COMMAND_LINE).unwrap_or_default();
    open_all(LIST, &words).iter().for_each(Module::load);
    let later = Later(open_all(LATER, &words));
    // It is memory. Without modules there is no such folder.
    let _ = fs::remove_dir_all(FOLDER);
    later
}

fn open_all(list: &str, words: &str) -> Vec<Module> {
    let list = fs::read_to_string(list).unwrap_or_default();
    let open = |path: &str| match File::open(path) {
        Ok(file) => Some(Module { path: path.into(), file, parameters: parameters(path, words) }),
        Err(error) => {
            log::warn!("cannot load {path}: {error}");
            None
        }
    };
    list.lines().filter(|line| !line.is_empty()).filter_map(open).collect()
}

impl Later {
    /// Loads them without being in anybody's way: the kernel takes its time to check and link each, and the
    /// first command does not wait for it.
    pub(crate) fn load_in_background(self) {
        if self.0.is_empty() {
            return;
        }
        let load = move || {
            // Of this thread alone; it is not worse with another.
            let _ = rustix::process::nice(LOWEST_PRIORITY);
            self.0.iter().for_each(Module::load);
        };
        if let Err(error) = std::thread::Builder::new().name("modules".into()).spawn(load) {
            log::warn!("cannot load modules: {error}");
        }
    }
}

impl Module {
    fn load(&self) {
        if let Err(error) = self.try_load() {
            log::warn!("cannot load {}: {error}", self.path);
        }
    }

    fn try_load(&self) -> io::Result<()> {
        let plain = Path::new(&self.path).extension().is_some_and(|extension| extension == "ko");
        let flags = if plain { 0 } else { COMPRESSED };
        match rustix::system::finit_module(&self.file, &self.parameters, flags) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// The parameters of a module, as modprobe(8) finds them.
fn parameters(path: &str, words: &str) -> CString {
    let plain = |name: &str| name.replace('-', "_");
    let file = Path::new(path).file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let module = plain(file.split('.').next().unwrap_or_default());
    let own = words.split_ascii_whitespace().filter_map(|word| {
        let (name, parameter) = word.split_once('.')?;
        (plain(name) == module).then_some(parameter)
    });
    CString::new(own.collect::<Vec<_>>().join(" ")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_gets_its_own_words() {
        let words = "quiet ramoops.mem_size=0x1000 pvpanic-pci.a=1 ramoops.record_size=4096\n";
        let of = |path: &str| parameters(path, words).into_string().unwrap();
        assert_eq!(of("/lib/ramoops.ko.xz"), "mem_size=0x1000 record_size=4096");
        assert_eq!(of("pvpanic_pci.ko"), "a=1");
        assert_eq!(of("virtio.ko"), "");
    }
}
