//! What an executor asks of the thing that performs operations.
//!
//! There are two drivers, `uring` and `epoll`. A third, `sim`, brings its own clock ([`Driver::now`]),
//! its own order of tasks ([`Driver::schedules`]) and its own outcomes.

pub(crate) mod epoll;
pub(crate) mod sim;
#[cfg(test)]
pub(crate) mod still;
pub(crate) mod uring;

use std::collections::VecDeque;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::fs::FileType;

use crate::config::{Config, DriverChoice, DriverKind};
use crate::error::Error;
use crate::ops::Operation;
use crate::ops::slots::{Completion, Token};
use crate::remote::Shared;
use crate::time::instant::Instant;

/// How long a turn may wait for a completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    No,
    For(Duration),
    Forever,
}

/// What a driver knows a file by, beside its descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileId {
    /// Nothing: the descriptor is enough.
    Plain,
    /// A slot of the driver's table of files.
    Slot(u32),
    /// Its transfers go through the ring that is polled, perhaps by a slot of its table.
    Polled(Option<u32>),
}

/// How long a file is going to be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Residence {
    /// Long: registering it pays.
    Long,
    /// For few operations.
    Short,
    /// Long, and its transfers are to be polled for.
    Polled,
}

/// What is behind a descriptor, as far as it matters to how it is read and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Medium {
    Socket,
    Other,
}

impl Medium {
    fn of(fd: BorrowedFd<'_>) -> Self {
        match rustix::fs::fstat(fd).map(|stat| FileType::from_raw_mode(stat.st_mode)) {
            Ok(FileType::Socket) => Medium::Socket,
            _ => Medium::Other,
        }
    }
}

/// What a driver says of a file that is going to be used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attached {
    pub(crate) file: FileId,
    pub(crate) medium: Medium,
}

/// The file of an operation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    pub(crate) fd: RawFd,
    pub(crate) file: FileId,
}

pub(crate) trait Driver {
    fn kind(&self) -> DriverKind;

    /// Whether `PollMultishot` works.
    fn has_multishot_poll(&self) -> bool;

    /// A file is going to be used.
    fn attach(&mut self, fd: BorrowedFd<'_>, residence: Residence) -> Attached;

    /// A file is about to be closed. No operation on it is in flight, but signals may be queued.
    fn detach(&mut self, target: Target);

    /// Starts an operation, now or with the next turn. Its outcome, whatever it is, comes up as a
    /// completion; never from inside this call.
    fn submit(&mut self, token: Token, target: Target, operation: Operation);

    /// Asks that an operation end soon. It still completes exactly once.
    fn cancel(&mut self, token: Token, target: Target);

    /// Adds one to an eventfd, now or with the next turn, without a completion.
    fn signal(&mut self, target: Target);

    /// Wakes another executor, with the next turn at the latest. False when that is not possible.
    fn message_ring(&mut self, target: &mut dyn FnMut() -> Arc<Shared>) -> bool;

    /// Hands over what is queued. Where a thread of the kernel takes it, that may be a moment later.
    fn flush(&mut self);

    /// Hands over what is queued and sees it taken.
    fn drain(&mut self) {
        self.flush();
    }

    /// Hands over what is queued and waits for a completion or a doorbell.
    fn turn(&mut self, wait: Wait);

    /// Moves the completions that are there to `completions`.
    fn reap(&mut self, completions: &mut VecDeque<Completion>);

    /// Whether a turn would find something without waiting. Makes no system call.
    fn has_completions(&mut self) -> bool;

    /// System calls made so far.
    fn system_calls(&self) -> u64;

    /// The time that timers go by.
    fn now(&self) -> Instant {
        Instant::of_host()
    }

    /// A number that nobody else is likely to have had.
    fn random(&mut self) -> u64 {
        // Keys that the kernel's random numbers are behind.
        RandomState::new().hash_one(())
    }

    /// Whether the driver wants to choose which ready task runs next.
    fn schedules(&self) -> bool {
        false
    }

    /// Which of `ready` tasks runs next.
    fn choose(&mut self, ready: usize) -> usize {
        let _ = ready;
        0
    }

    /// The result of a system call that somebody is about to make beside the driver, if the file is
    /// none of the kernel's.
    fn on_the_spot(&mut self, target: Target, operation: &Operation) -> Option<i32> {
        let _ = (target, operation);
        None
    }
}

/// Opens the driver that the configuration asks for.
pub(crate) fn open(config: &Config, shared: &Arc<Shared>) -> Result<Box<dyn Driver>, Error> {
    match config.driver {
        DriverChoice::Uring => Ok(Box::new(uring::Uring::open(config, shared)?)),
        DriverChoice::Epoll if config.needs_ring() => Err(Error::NoRing),
        DriverChoice::Epoll => Ok(Box::new(epoll::Epoll::open(shared)?)),
        DriverChoice::Auto => match uring::Uring::open(config, shared) {
            Ok(driver) => Ok(Box::new(driver)),
            Err(error) if is_absence(&error) && !config.needs_ring() => {
                warn_once(&error);
                Ok(Box::new(epoll::Epoll::open(shared)?))
            }
            Err(error) => Err(error),
        },
    }
}

/// Whether the error means that this host has no (usable) `io_uring`, rather than that something
/// went wrong with it.
fn is_absence(error: &Error) -> bool {
    match error {
        Error::RingTooOld { .. } => true,
        Error::RingSetup { source, .. } => {
            matches!(source.raw_os_error(), Some(libc::EPERM | libc::ENOSYS | libc::EACCES))
        }
        _ => false,
    }
}

fn warn_once(error: &Error) {
    static WARNED: AtomicBool = AtomicBool::new(false);
    if WARNED.swap(true, Ordering::Relaxed) {
        return;
    }
    let cause =
        std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
    log::warn!("{error}{cause}; using epoll, which is slower");
}
