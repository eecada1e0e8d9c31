//! The simulated files, and the real descriptors that stand for them.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{MemfdFlags, OFlags, fcntl_setfl, memfd_create};

use super::disk::Disk;
use super::script::Script;

/// A simulated file.
pub(super) enum Object {
    Event(Event),
    Disk(Box<Disk>),
    Script(Box<Script>),
}

/// An eventfd.
#[derive(Default)]
pub(super) struct Event {
    /// What a read gives; a read or a look from outside makes it zero.
    pub(super) counter: u64,
    /// Signals ever: each is an edge.
    pub(super) signals: u64,
}

impl Object {
    pub(super) fn event() -> Self {
        Object::Event(Event::default())
    }

    pub(super) fn disk(contents: Vec<u8>) -> Self {
        Object::Disk(Box::new(Disk::new(contents)))
    }
}

/// Device and inode of a stand-in, which all its duplicates share.
type Identity = (u64, u64);

/// All of them, each with the identity of its stand-in.
#[derive(Default)]
pub(super) struct Objects {
    all: Vec<(Identity, Object)>,
}

impl Objects {
    /// Adds one: a descriptor that stands for it, and its index.
    pub(super) fn add(&mut self, object: Object) -> io::Result<(OwnedFd, u32)> {
        let descriptor = memfd_create("simulated", MemfdFlags::CLOEXEC)?;
        // Nothing waits but in the world: a signal of it is one like those that are queued.
        fcntl_setfl(&descriptor, OFlags::RDWR | OFlags::NONBLOCK)?;
        let status = rustix::fs::fstat(&descriptor)?;
        self.all.push(((status.st_dev, status.st_ino), object));
        Ok((descriptor, self.all.len() as u32 - 1))
    }

    /// Which one a descriptor stands for.
    pub(super) fn find(&self, descriptor: BorrowedFd<'_>) -> Option<u32> {
        let status = rustix::fs::fstat(descriptor).ok()?;
        let identity = (status.st_dev, status.st_ino);
        self.all.iter().position(|(known, _)| *known == identity).map(|index| index as u32)
    }

    pub(super) fn get(&mut self, index: u32) -> &mut Object {
        &mut self.all[index as usize].1
    }

    /// Adds one to the counter of an eventfd.
    pub(super) fn signal(&mut self, index: u32) {
        if let Object::Event(event) = self.get(index) {
            event.counter += 1;
            event.signals += 1;
        }
    }

    pub(super) fn take_signal(&mut self, index: u32) -> bool {
        match self.get(index) {
            Object::Event(event) => std::mem::take(&mut event.counter) > 0,
            Object::Disk(_) | Object::Script(_) => false,
        }
    }

    pub(super) fn with_disk<R>(&mut self, index: u32, with: impl FnOnce(&mut Disk) -> R) -> R {
        match self.get(index) {
            Object::Disk(disk) => with(disk),
            _ => unreachable!("a disk's index is that of a disk"),
        }
    }

    pub(super) fn with_script<R>(&mut self, index: u32, with: impl FnOnce(&mut Script) -> R) -> R {
        match self.get(index) {
            Object::Script(script) => with(script),
            _ => unreachable!("a script's index is that of a script"),
        }
    }

    /// Whether it is one whose operations wait for answers.
    pub(super) fn is_script(&mut self, index: u32) -> bool {
        matches!(self.get(index), Object::Script(_))
    }
}
