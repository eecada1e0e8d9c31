//! A directory of this host that is shared, and a file beside it that is not.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// What is in the file that nobody may reach.
const SECRET: &[u8] = b"a secret";

/// Gone with this.
pub(super) struct Folder {
    whole: PathBuf,
}

impl Folder {
    /// A new one, in memory where there is some for files.
    ///
    /// # Panics
    ///
    /// If the host has no room for it.
    pub(super) fn new() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_path_buf() } else { std::env::temp_dir() };
        let whole = parent.join(format!("vmm-sim-{}-{number}", std::process::id()));
        fs::create_dir(&whole).expect("room for a directory");
        let folder = Self { whole };
        fs::create_dir(folder.shared()).expect("room for a directory");
        fs::write(folder.whole.join("secret"), SECRET).expect("room for a file");
        folder
    }

    /// What is shared.
    pub(super) fn shared(&self) -> PathBuf {
        self.whole.join("shared")
    }

    /// Nothing has changed beside what is shared.
    ///
    /// # Panics
    ///
    /// If something has.
    pub(super) fn check(&self) {
        let secret = fs::read(self.whole.join("secret"));
        assert_eq!(secret.as_deref().ok(), Some(SECRET), "a file that is not shared");
        let entries = fs::read_dir(&self.whole).expect("a directory").count();
        assert_eq!(entries, 2, "what is beside the shared directory");
    }

    /// The files of a directory that is shared, with what is in them; links with where they lead. None
    /// if there is no such directory.
    pub(super) fn files(&self, directory: &str) -> Option<BTreeMap<String, Vec<u8>>> {
        let entries = fs::read_dir(self.shared().join(directory)).ok()?;
        let read = |entry: std::io::Result<fs::DirEntry>| {
            let path = entry.expect("an entry").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            let bytes = match fs::read_link(&path) {
                Ok(text) => text.to_string_lossy().into_owned().into_bytes(),
                Err(_) => fs::read(&path).expect("a file"),
            };
            (name, bytes)
        };
        Some(entries.map(read).collect())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.whole);
    }
}
