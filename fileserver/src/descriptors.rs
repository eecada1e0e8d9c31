//! Descriptors: what a client has open, and what is kept for directories.
//!
//! ```text
//!   0 ........................................ `files_below` .......... the limit of the process
//!     files of clients, directories' descriptors      directories that are needed, sockets of new clients
//! ```

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use rustix::io::Errno;

use crate::Result;
use crate::tree::Tree;

/// How many descriptors are closed at a time when there are no more.
const EVICTED: usize = 64;
/// The last descriptors of a process are for no client's files, so that a client that has all of its files open
/// can still look around and close them, and others can come: some for each of a few dozen clients.
const RESERVED: u64 = 256;
/// Where there are few descriptors, one of so many.
const RESERVED_SHARE: u64 = 8;

/// What a tree has of descriptors beside those of open files.
#[derive(Debug)]
pub(crate) struct Descriptors {
    /// Where the search for descriptors to close goes on.
    hand: usize,
    /// Inodes that have a descriptor.
    nodes: usize,
    /// From this number on they are no client's.
    files_below: RawFd,
    /// The last file had a number beyond that: there may be no room for another.
    full: bool,
}

impl Descriptors {
    /// None yet, for a process with its present limit.
    pub(crate) fn new() -> Self {
        let most = limit();
        let files = most - RESERVED.min(most / RESERVED_SHARE);
        let files_below = RawFd::try_from(files).unwrap_or(RawFd::MAX);
        Self { hand: 0, nodes: 0, files_below, full: false }
    }

    /// One more directory has a descriptor.
    pub(crate) fn add_node(&mut self) {
        self.nodes += 1;
    }

    /// No directory has one any more.
    pub(crate) fn forget_nodes(&mut self) {
        self.nodes = 0;
    }
}

impl Tree {
    /// Opens a client's file, after others were closed if there are no more descriptors.
    pub(crate) fn with_descriptors(
        &mut self,
        mut open: impl FnMut() -> Result<OwnedFd>,
    ) -> Result<OwnedFd> {
        // One of each tree may be beyond: what has been made by being opened cannot be taken back.
        while self.descriptors.full && !self.is_room_for_files() {
            if !self.close_some() {
                return Err(Errno::MFILE);
            }
        }
        loop {
            match open() {
                Err(Errno::MFILE | Errno::NFILE) if self.close_some() => {}
                Err(Errno::NFILE) => return Err(Errno::MFILE),
                Err(errno) => return Err(errno),
                Ok(file) => {
                    self.descriptors.full = file.as_raw_fd() >= self.descriptors.files_below;
                    return Ok(file);
                }
            }
        }
    }

    /// Opens a directory's own descriptor.
    pub(crate) fn with_reserve(
        &mut self,
        mut open: impl FnMut() -> Result<OwnedFd>,
    ) -> Result<OwnedFd> {
        loop {
            match open() {
                Err(Errno::MFILE | Errno::NFILE) if self.close_some() => {}
                Ok(node) => {
                    if node.as_raw_fd() >= self.descriptors.files_below {
                        // The reserve is for the moment.
                        self.close_some();
                    }
                    return Ok(node);
                }
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Whether the next descriptor is one for files: the kernel gives the lowest that is free.
    fn is_room_for_files(&self) -> bool {
        let Some(granted) = self.grants.iter().flatten().next() else { return true };
        let next = rustix::io::fcntl_dupfd_cloexec(&granted.directory, 0);
        next.is_ok_and(|next| next.as_raw_fd() < self.descriptors.files_below)
    }

    /// Closes descriptors that were not used for long. Says whether there were any.
    fn close_some(&mut self) -> bool {
        let mut closed = 0;
        // Twice around: the first time takes the marks of those that were used.
        for _ in 0..2 * self.inodes.slots() {
            if self.descriptors.nodes == 0 || closed == EVICTED {
                break;
            }
            self.descriptors.hand = (self.descriptors.hand + 1) % self.inodes.slots();
            if self.inodes.evict(self.descriptors.hand) {
                self.descriptors.nodes -= 1;
                closed += 1;
            }
        }
        closed > 0
    }
}

/// The limit of this process. By a call that can change nothing: a sandbox need not allow another.
fn limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes the limit, which lives during the call.
    let result = unsafe { libc::syscall(libc::SYS_getrlimit, libc::RLIMIT_NOFILE, &raw mut limit) };
    if result == 0 { limit.rlim_cur } else { u64::MAX }
}
