//! Loads the kernel modules that lie beside the agent in its initial RAM disk.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use rustix::io::Errno;

/// One path per line, in the order in which they must be loaded.
const LIST: &str = "/.vmm/modules";
/// Where they are. The kernel has copies of its own after it has loaded them.
const FOLDER: &str = "/.vmm/lib";

/// `MODULE_INIT_COMPRESSED_FILE`: the kernel unpacks it (Linux 5.17).
const COMPRESSED: i32 = 4;

/// Loads all of the list, if there is one.
pub(super) fn load() {
    let Ok(list) = fs::read_to_string(LIST) else {
        return;
    };
    for path in list.lines().filter(|line| !line.is_empty()) {
        if let Err(error) = load_one(path) {
            log::warn!("cannot load {path}: {error}");
        }
    }
    // It is memory. Without modules there is no such folder.
    let _ = fs::remove_dir_all(FOLDER);
}

fn load_one(path: &str) -> io::Result<()> {
    let file = File::open(path)?;
    let plain = Path::new(path).extension().is_some_and(|extension| extension == "ko");
    let flags = if plain { 0 } else { COMPRESSED };
    match rustix::system::finit_module(&file, c"", flags) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
