//! A private folder for the sockets and files of one run.
//!
//! A lock says that its owner lives. Whoever was killed leaves a folder without one, and the next
//! run takes it away.

use std::env;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

const PREFIX: &str = "vmm-exec-";
const LOCK: &str = "lock";
/// Its name while it is not held.
const NEW_LOCK: &str = "lock.new";

/// Removed when it is dropped.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Makes a folder, in the user's runtime folder if there is one.
    pub(crate) fn create() -> io::Result<Self> {
        let base = env::var_os("XDG_RUNTIME_DIR").map_or_else(env::temp_dir, PathBuf::from);
        sweep(&base);
        Self::create_in(&base)
    }

    fn create_in(base: &Path) -> io::Result<Self> {
        let mut random = [0; 8];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
        let path = base.join(format!("{PREFIX}{:016x}", u64::from_ne_bytes(random)));
        DirBuilder::new().mode(0o700).create(&path)?;
        // Who finds a lock that nobody holds takes the folder away: it is held before it can be found.
        let new_lock = path.join(NEW_LOCK);
        let lock = File::create(&new_lock)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        fs::rename(new_lock, path.join(LOCK))?;
        Ok(Self { path, _lock: lock })
    }

    /// Its own name, which no other has.
    pub(crate) fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// The path of a file in it.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What stays, the next run removes.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Removes our folders whose owners are gone.
fn sweep(base: &Path) {
    let own = rustix::process::getuid().as_raw();
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        let ours = entry.file_name().to_string_lossy().starts_with(PREFIX)
            && entry.metadata().is_ok_and(|folder| folder.is_dir() && folder.uid() == own);
        if ours && is_abandoned(&entry.path()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// A folder without a lock file is being made or being removed.
fn is_abandoned(folder: &Path) -> bool {
    File::open(folder.join(LOCK))
        .is_ok_and(|lock| flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{self, TryRecvError};
    use std::thread;

    use super::*;

    #[test]
    fn only_folders_without_an_owner_are_swept() {
        let base = tempfile::tempdir().unwrap();
        let living = Folder::create_in(base.path()).unwrap();
        let dead = base.path().join("vmm-exec-dead");
        fs::create_dir(&dead).unwrap();
        fs::write(dead.join(LOCK), "").unwrap();
        fs::create_dir(base.path().join("other")).unwrap();
        sweep(base.path());
        assert!(living.file(LOCK).exists());
        assert!(!dead.exists());
        assert!(base.path().join("other").exists());
        let path = living.path.clone();
        drop(living);
        assert!(!path.exists());
    }

    #[test]
    fn what_is_being_made_is_not_swept() {
        let base = tempfile::tempdir().unwrap();
        let (going, over) = mpsc::channel::<()>();
        let base = base.path();
        thread::scope(|scope| {
            // Goes away also with a failure.
            let _going = going;
            scope.spawn(move || {
                while over.try_recv() == Err(TryRecvError::Empty) {
                    sweep(base);
                }
            });
            for _ in 0..2000 {
                let folder = Folder::create_in(base).unwrap();
                fs::write(folder.file("file"), "").unwrap();
            }
        });
    }
}
