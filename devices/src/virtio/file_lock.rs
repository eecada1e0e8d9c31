//! The lock on a file that a guest uses: one that writes, or any number that read.

use std::fmt;
use std::fs::{File, TryLockError};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::blk::Access;
use crate::dead_holder;

/// Who holds a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// This process.
    Process(u32),
    /// The system does not say.
    Unknown,
}

impl Holder {
    fn is_gone(self) -> bool {
        let Self::Process(pid) = self else { return true };
        let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
        let alive = |pid| rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH);
        !pid.is_some_and(alive)
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process(pid) => write!(f, "process {pid}"),
            Self::Unknown => f.write_str("another process"),
        }
    }
}

/// Why a file is not locked.
#[derive(Debug)]
pub(super) enum LockError {
    /// Somebody else uses it.
    Held(Holder),
    /// The system refuses.
    System(io::Error),
}

/// Locks belong to the open file, so they stay with it in whichever process it ends up.
pub(super) fn lock(path: &Path, file: &File, access: Access) -> Result<(), LockError> {
    // Nobody to be seen holds it: some kernels do not show the dead.
    let may_be_dead =
        |error: &LockError| matches!(error, LockError::Held(holder) if holder.is_gone());
    dead_holder::outlast(|| try_lock(path, file, access), may_be_dead)
}

/// Lets go of the lock, whoever still has a duplicate of the descriptor.
pub(super) fn release(file: BorrowedFd<'_>) {
    // It fails on a file system without locks.
    let _ = rustix::fs::flock(file, rustix::fs::FlockOperation::Unlock);
}

fn try_lock(path: &Path, file: &File, access: Access) -> Result<(), LockError> {
    let locked = match access {
        Access::ReadWrite => file.try_lock(),
        Access::ReadOnly => file.try_lock_shared(),
    };
    match locked {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(LockError::Held(holder(file))),
        Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {
            log::warn!(
                "{}: its file system has no locks, so nothing keeps others from writing to it",
                path.display()
            );
            Ok(())
        }
        Err(TryLockError::Error(error)) => Err(LockError::System(error)),
    }
}

/// Who holds a lock on the file, from `/proc/locks`:
/// `1: FLOCK  ADVISORY  WRITE 1234 08:01:5678 0 EOF`.
fn holder(file: &File) -> Holder {
    let find = || -> Option<u32> {
        let metadata = file.metadata().ok()?;
        let device = metadata.dev();
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let wanted = format!("{major:02x}:{minor:02x}:{}", metadata.ino());
        let locks = std::fs::read_to_string("/proc/locks").ok()?;
        locks.lines().find_map(|line| {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let [_, "FLOCK", _, _, pid, place, ..] = fields[..] else {
                return None;
            };
            (place == wanted).then(|| pid.parse().ok()).flatten()
        })
    };
    find().filter(|pid| *pid > 0).map_or(Holder::Unknown, Holder::Process)
}
