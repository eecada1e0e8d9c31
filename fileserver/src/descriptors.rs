//! Descriptors: what a client has open, and what is kept for directories.

use std::os::fd::OwnedFd;

use rustix::io::Errno;

use crate::Result;
use crate::tree::Tree;

/// How many descriptors are closed at a time when there are no more.
const EVICTED: usize = 64;
/// Descriptors that are kept for directories and never given to a client's files, so that a client that
/// has all of its files open can still look around and close them.
const SPARES: usize = 16;

/// What a tree has of descriptors beside those of open files.
#[derive(Debug, Default)]
pub(crate) struct Descriptors {
    /// Where the search for descriptors to close goes on.
    hand: usize,
    /// Inodes that have a descriptor.
    nodes: usize,
    /// Descriptors to close when a directory needs one.
    spares: Vec<OwnedFd>,
}

impl Descriptors {
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
    /// Does what takes a descriptor for a client's file, and again after others were closed if there
    /// are no more.
    pub(crate) fn with_descriptors<T>(&mut self, mut open: impl FnMut() -> Result<T>) -> Result<T> {
        self.save_spares()?;
        loop {
            match open() {
                Err(Errno::MFILE | Errno::NFILE) if self.close_some() => {}
                Err(Errno::NFILE) => return Err(Errno::MFILE),
                result => return result,
            }
        }
    }

    /// The same for a directory's own descriptor.
    pub(crate) fn with_spares<T>(&mut self, mut open: impl FnMut() -> Result<T>) -> Result<T> {
        loop {
            match open() {
                Err(Errno::MFILE | Errno::NFILE)
                    if self.close_some() || self.descriptors.spares.pop().is_some() => {}
                result => return result,
            }
        }
    }

    /// Takes as many descriptors as directories may need.
    fn save_spares(&mut self) -> Result<()> {
        while self.descriptors.spares.len() < SPARES {
            let Some(granted) = self.grants.iter().flatten().next() else { return Ok(()) };
            match rustix::io::fcntl_dupfd_cloexec(&granted.directory, 0) {
                Ok(spare) => self.descriptors.spares.push(spare),
                Err(Errno::MFILE | Errno::NFILE) if self.close_some() => {}
                Err(_) => return Err(Errno::MFILE),
            }
        }
        Ok(())
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
