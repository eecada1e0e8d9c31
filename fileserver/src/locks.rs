//! Locks on ranges of files, between the clients of all servers and the programs of this host.
//!
//! A lock belongs to the open file (`F_OFD_SETLK`), not to the process: all clients are one process
//! here.

use std::os::fd::AsRawFd;

use executor::Fd;
use rustix::io::Errno;

use crate::Result;
use crate::handles::HandleId;
use crate::tree::Tree;

/// What a lock keeps out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockKind {
    /// Who writes.
    Shared,
    /// Everybody.
    Exclusive,
    /// Nobody: there is no lock.
    None,
}

/// A range of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lock {
    /// What it keeps out.
    pub kind: LockKind,
    /// The first byte.
    pub start: u64,
    /// How many; 0 is all there are and all that will be.
    pub length: u64,
}

impl Tree {
    /// Takes or gives back a lock. `EAGAIN` if somebody else has one there.
    pub fn lock(&mut self, handle: HandleId, lock: Lock) -> Result<()> {
        let file = self.file(handle)?;
        carry_out(&file, libc::F_OFD_SETLK, &mut lock.to_raw()?)
    }

    /// The lock that keeps such a one from being taken, or one of no kind.
    pub fn lock_in_the_way(&mut self, handle: HandleId, lock: Lock) -> Result<Lock> {
        let file = self.file(handle)?;
        let mut raw = lock.to_raw()?;
        carry_out(&file, libc::F_OFD_GETLK, &mut raw)?;
        let kind = match libc::c_int::from(raw.l_type) {
            libc::F_RDLCK => LockKind::Shared,
            libc::F_WRLCK => LockKind::Exclusive,
            _ => return Ok(Lock { kind: LockKind::None, ..lock }),
        };
        Ok(Lock { kind, start: raw.l_start as u64, length: raw.l_len as u64 })
    }
}

impl Lock {
    fn to_raw(self) -> Result<libc::flock> {
        let kind = match self.kind {
            LockKind::Shared => libc::F_RDLCK,
            LockKind::Exclusive => libc::F_WRLCK,
            LockKind::None => libc::F_UNLCK,
        };
        let start = i64::try_from(self.start).map_err(|_| Errno::INVAL)?;
        let length = i64::try_from(self.length).map_err(|_| Errno::INVAL)?;
        Ok(libc::flock {
            l_type: kind as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: start,
            l_len: length,
            l_pid: 0,
        })
    }
}

fn carry_out(file: &Fd, command: libc::c_int, lock: &mut libc::flock) -> Result<()> {
    use std::os::fd::AsFd;
    let file = file.as_fd().as_raw_fd();
    // SAFETY: the kernel reads and writes the lock, which lives during the call.
    let result = unsafe { libc::fcntl(file, command, std::ptr::from_mut(lock)) };
    if result == 0 {
        return Ok(());
    }
    let error = std::io::Error::last_os_error();
    Err(Errno::from_io_error(&error).unwrap_or(Errno::IO))
}
