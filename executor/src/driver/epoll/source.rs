//! The files that the epoll driver knows, and who waits for them.

use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

use rustix::event::{PollFlags, epoll};
use rustix::fs::{FileType, OFlags};

use crate::ops::Operation;
use crate::ops::slots::Token;

/// How a file has to be treated so that it does not block the thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// Regular files, block devices, directories: always ready.
    Always,
    /// Sockets: each call can be told not to wait.
    Socket,
    /// Pipes, terminals, eventfds, ... that are non-blocking.
    NonBlocking,
    /// The same, blocking: ask `poll` first. Not made non-blocking, since others may share them,
    /// as a shell shares its terminal.
    AskFirst,
}

/// An operation that waits for an event.
pub(super) struct Pending {
    pub(super) token: Token,
    pub(super) operation: Operation,
    pub(super) interest: PollFlags,
    /// Whether a `connect` has been started: the next event brings its outcome.
    pub(super) connecting: bool,
}

impl Pending {
    pub(super) fn new(token: Token, operation: Operation) -> Self {
        let interest = match operation {
            Operation::Poll { flags } | Operation::PollMultishot { flags } => flags,
            Operation::Read { .. }
            | Operation::ReadVectored { .. }
            | Operation::Accept
            | Operation::Receive { .. } => PollFlags::IN | PollFlags::RDHUP | PollFlags::PRI,
            _ => PollFlags::OUT,
        };
        Pending { token, operation, interest, connecting: false }
    }
}

pub(super) struct Source {
    pub(super) fd: RawFd,
    pub(super) manner: Manner,
    pub(super) registered: bool,
    pub(super) waiting: Vec<Pending>,
    generation: u32,
}

impl Source {
    pub(super) fn new(fd: BorrowedFd<'_>) -> Self {
        let file_type = rustix::fs::fstat(fd).map(|stat| FileType::from_raw_mode(stat.st_mode));
        let manner = match file_type {
            Ok(FileType::RegularFile | FileType::BlockDevice | FileType::Directory) => {
                Manner::Always
            }
            Ok(FileType::Socket) => Manner::Socket,
            _ => match rustix::fs::fcntl_getfl(fd) {
                Ok(flags) if flags.contains(OFlags::NONBLOCK) => Manner::NonBlocking,
                _ => Manner::AskFirst,
            },
        };
        let fd = std::os::fd::AsRawFd::as_raw_fd(&fd);
        Source { fd, manner, registered: false, waiting: Vec::new(), generation: 0 }
    }

    /// The descriptor. Its owner detaches the source before it closes it.
    pub(super) fn borrow(&self) -> BorrowedFd<'_> {
        // SAFETY: open for as long as the source exists, see above.
        unsafe { BorrowedFd::borrow_raw(self.fd) }
    }

    /// Asks epoll for every edge of the file; the state it is in now is reported as one.
    pub(super) fn register(&mut self, epoll: &OwnedFd, index: u32) -> rustix::io::Result<()> {
        let data = epoll::EventData::new_u64(u64::from(self.generation) << 32 | u64::from(index));
        let flags = epoll::EventFlags::IN
            | epoll::EventFlags::OUT
            | epoll::EventFlags::PRI
            | epoll::EventFlags::RDHUP
            | epoll::EventFlags::ET;
        epoll::add(epoll, self.borrow(), data, flags)?;
        self.registered = true;
        Ok(())
    }

    /// epoll does not take the file.
    pub(super) fn blocking_only(&mut self) {
        self.manner = Manner::Always;
    }
}

/// A slab of sources. An index is used again, with another generation, when its file is gone.
#[derive(Default)]
pub(super) struct Sources {
    entries: Vec<Entry>,
    free: Vec<u32>,
}

struct Entry {
    generation: u32,
    source: Option<Source>,
}

impl Sources {
    pub(super) fn insert(&mut self, mut source: Source) -> u32 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.entries.push(Entry { generation: 0, source: None });
            self.entries.len() as u32 - 1
        });
        let entry = &mut self.entries[index as usize];
        source.generation = entry.generation;
        entry.source = Some(source);
        index
    }

    pub(super) fn get(&mut self, index: u32) -> Option<&mut Source> {
        self.entries.get_mut(index as usize)?.source.as_mut()
    }

    /// The index in what epoll reports, unless the file is gone.
    pub(super) fn index_of(&self, data: u64) -> Option<u32> {
        let index = data as u32;
        let entry = self.entries.get(index as usize)?;
        (entry.generation == (data >> 32) as u32 && entry.source.is_some()).then_some(index)
    }

    pub(super) fn remove(&mut self, index: u32, epoll: BorrowedFd<'_>) {
        let Some(entry) = self.entries.get_mut(index as usize) else {
            return;
        };
        let Some(source) = entry.source.take() else {
            return;
        };
        entry.generation = entry.generation.wrapping_add(1);
        self.free.push(index);
        if source.registered {
            // Closing would not do: duplicates keep the registration alive.
            if let Err(error) = epoll::delete(epoll, source.borrow()) {
                log::debug!("cannot take a file out of epoll: {error}");
            }
        }
    }
}
