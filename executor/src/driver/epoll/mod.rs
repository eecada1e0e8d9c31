//! The driver on epoll, for hosts where `io_uring` is forbidden.
//!
//! ```text
//!   submit ─▶ perform at once ── done ─────────────────────────▶ completions ─▶ reap
//!                 │ EAGAIN                                           ▲
//!                 ▼                                                  │
//!            source.waiting ◀── EAGAIN ── perform again ◀── edge ── epoll_wait
//! ```
//!
//! Regular files and block devices always answer at once, blocking the thread for as long as that
//! takes; that is the price of this driver. Everything else is tried without blocking and waits
//! for an edge. A file is registered with epoll the first time that it makes somebody wait, for
//! all events and edge-triggered, so waiting again costs no system call.

mod perform;
mod source;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFlags, epoll};

use super::{Attached, Driver, FileId, Medium, Residence, Target, Wait};
use crate::config::DriverKind;
use crate::error::Error;
use crate::ops::slots::{Completion, Left, Token};
use crate::ops::{Operation, poll_bits, poll_flags};
use crate::remote::Shared;
pub(crate) use perform::Attempt;
use perform::attempt;
use source::{Manner, Pending, Source, Sources};

/// What epoll reports for the doorbell; no source has this index.
const DOORBELL: u64 = u64::MAX;
/// Events taken with one call. More are taken with the next.
const EVENTS: usize = 64;
/// Turns that may complete something without looking at epoll.
const TURNS_WITHOUT_EPOLL: u32 = 16;
/// How often to try what no event announces: room in the backlog of a Unix socket.
const RETRY: Duration = Duration::from_millis(1);

pub(crate) struct Epoll {
    instance: OwnedFd,
    sources: Sources,
    completions: VecDeque<Completion>,
    events: Box<[libc::epoll_event; EVENTS]>,
    /// Sources with an operation that only time can help.
    retries: Vec<u32>,
    busy_turns: u32,
    /// `epoll_pwait2` is there.
    precise: bool,
    system_calls: u64,
    /// Keeps the doorbell open.
    _shared: Arc<Shared>,
}

impl Epoll {
    pub(crate) fn open(shared: &Arc<Shared>) -> Result<Self, Error> {
        let instance =
            epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|e| Error::Epoll(e.into()))?;
        let data = epoll::EventData::new_u64(DOORBELL);
        // Edge-triggered: the doorbell's counter is never read.
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&instance, shared.doorbell(), data, flags)
            .map_err(|e| Error::Epoll(e.into()))?;
        Ok(Epoll {
            instance,
            sources: Sources::default(),
            completions: VecDeque::new(),
            events: Box::new([libc::epoll_event { events: 0, u64: 0 }; EVENTS]),
            retries: Vec::new(),
            busy_turns: 0,
            precise: true,
            system_calls: 0,
            _shared: Arc::clone(shared),
        })
    }

    fn complete(&mut self, token: Token, result: i32, more: bool) {
        self.completions.push_back(Completion { token, result, more, left: Left::Perhaps });
    }

    /// Tries an operation. True when it has to wait for an event.
    fn try_now(&mut self, index: u32, pending: &mut Pending) -> bool {
        let Some(source) = self.sources.get(index) else {
            self.complete(pending.token, -libc::EBADF, false);
            return false;
        };
        self.system_calls += 1;
        match attempt(source, pending) {
            Attempt::Done(result) => {
                self.complete(pending.token, result, false);
                false
            }
            Attempt::Event(flags) => {
                self.complete(pending.token, poll_bits(flags) as i32, true);
                true
            }
            Attempt::Wait => true,
            Attempt::Retry => {
                self.retries.push(index);
                true
            }
        }
    }

    /// Leaves an operation with its file until an event comes.
    fn park(&mut self, index: u32, pending: Pending) {
        let Some(source) = self.sources.get(index) else {
            return;
        };
        if !source.registered {
            match source.register(&self.instance, index) {
                Ok(()) => {}
                // Always ready, as far as epoll can tell: perform it, blocking if it must.
                Err(rustix::io::Errno::PERM) => {
                    source.blocking_only();
                    let mut pending = pending;
                    if !self.try_now(index, &mut pending) {
                        return;
                    }
                    self.complete(pending.token, -libc::EAGAIN, false);
                    return;
                }
                Err(errno) => {
                    self.complete(pending.token, -errno.raw_os_error(), false);
                    return;
                }
            }
        }
        if let Some(source) = self.sources.get(index) {
            source.waiting.push(pending);
        }
    }

    /// Tries everything that waits for one of `flags` on a file.
    fn on_event(&mut self, index: u32, flags: PollFlags) {
        self.try_waiting(index, |driver, pending| driver.still_waits(index, pending, flags));
    }

    /// Keeps those that wait on a file for which `still_waits` is true.
    fn try_waiting(
        &mut self,
        index: u32,
        mut still_waits: impl FnMut(&mut Self, &mut Pending) -> bool,
    ) {
        let Some(source) = self.sources.get(index) else {
            return;
        };
        let mut waiting = std::mem::take(&mut source.waiting);
        waiting.retain_mut(|pending| still_waits(self, pending));
        if let Some(source) = self.sources.get(index) {
            source.waiting = waiting;
        }
    }

    fn still_waits(&mut self, index: u32, pending: &mut Pending, flags: PollFlags) -> bool {
        let happened = flags & (pending.interest | PollFlags::ERR | PollFlags::HUP);
        if happened.is_empty() {
            return true;
        }
        match pending.operation {
            Operation::Poll { .. } => {
                self.complete(pending.token, poll_bits(happened) as i32, false);
                false
            }
            Operation::PollMultishot { .. } => {
                self.complete(pending.token, poll_bits(happened) as i32, true);
                true
            }
            _ => self.try_now(index, pending),
        }
    }

    /// Tries what waits for time only.
    fn retry(&mut self) {
        for index in std::mem::take(&mut self.retries) {
            self.try_waiting(index, |driver, pending| {
                let retried = matches!(pending.operation, Operation::Connect { .. });
                !retried || pending.connecting || driver.try_now(index, pending)
            });
        }
    }

    /// Waits, and serves the events that come.
    fn wait(&mut self, wait: Wait) {
        let wait = match wait {
            Wait::Forever if !self.retries.is_empty() => Wait::For(RETRY),
            Wait::For(duration) if !self.retries.is_empty() => Wait::For(duration.min(RETRY)),
            other => other,
        };
        self.system_calls += 1;
        let count = match self.epoll_wait(wait) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => panic!("epoll_wait on our own epoll failed: {error}"),
        };
        for position in 0..count {
            let event = self.events[position];
            if event.u64 == DOORBELL {
                continue;
            }
            let flags = poll_flags(event.events);
            if let Some(index) = self.sources.index_of(event.u64) {
                self.on_event(index, flags);
            }
        }
        self.retry();
    }

    fn epoll_wait(&mut self, wait: Wait) -> io::Result<usize> {
        let events = self.events.as_mut_ptr();
        let epoll = self.instance.as_raw_fd();
        if let (Wait::For(duration), true) = (wait, self.precise) {
            let time = libc::timespec {
                tv_sec: libc::time_t::try_from(duration.as_secs()).unwrap_or(libc::time_t::MAX),
                tv_nsec: libc::c_long::from(duration.subsec_nanos() as i32),
            };
            // SAFETY: room for `EVENTS` events; the time lives until the call returns. A raw call,
            // because old C libraries lack the function.
            let count = unsafe {
                libc::syscall(
                    libc::SYS_epoll_pwait2,
                    epoll,
                    events,
                    EVENTS as libc::c_int,
                    &raw const time,
                    std::ptr::null::<libc::sigset_t>(),
                    0usize,
                )
            };
            if count >= 0 {
                return Ok(count as usize);
            }
            let error = io::Error::last_os_error();
            if !matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) {
                return Err(error);
            }
            // An old kernel, or a policy that does not know the call.
            self.precise = false;
        }
        let milliseconds = match wait {
            Wait::No => 0,
            Wait::Forever => -1,
            // Rounded up, so that the timer is due afterwards.
            Wait::For(duration) => {
                i32::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX)
            }
        };
        // SAFETY: room for `EVENTS` events.
        let count = unsafe { libc::epoll_wait(epoll, events, EVENTS as libc::c_int, milliseconds) };
        if count < 0 { Err(io::Error::last_os_error()) } else { Ok(count as usize) }
    }
}

impl Driver for Epoll {
    fn kind(&self) -> DriverKind {
        DriverKind::Epoll
    }

    fn has_multishot_poll(&self) -> bool {
        true
    }

    fn attach(&mut self, fd: BorrowedFd<'_>, _residence: Residence) -> Attached {
        let source = Source::new(fd);
        let medium = match source.manner {
            Manner::Socket => Medium::Socket,
            _ => Medium::Other,
        };
        Attached { file: FileId::Slot(self.sources.insert(source)), medium }
    }

    fn detach(&mut self, target: Target) {
        if let FileId::Slot(index) = target.file {
            self.sources.remove(index, self.instance.as_fd());
        }
    }

    fn submit(&mut self, token: Token, target: Target, operation: Operation) {
        let FileId::Slot(index) = target.file else {
            self.complete(token, -libc::EBADF, false);
            return;
        };
        let mut pending = Pending::new(token, operation);
        if self.try_now(index, &mut pending) {
            self.park(index, pending);
        }
    }

    fn cancel(&mut self, token: Token, target: Target) {
        let FileId::Slot(index) = target.file else {
            return;
        };
        let Some(source) = self.sources.get(index) else {
            return;
        };
        if let Some(position) = source.waiting.iter().position(|pending| pending.token == token) {
            source.waiting.swap_remove(position);
            self.complete(token, -libc::ECANCELED, false);
        }
    }

    fn signal(&mut self, target: Target) {
        self.system_calls += 1;
        // SAFETY: whoever signals holds the file.
        let eventfd = unsafe { BorrowedFd::borrow_raw(target.fd) };
        match rustix::io::write(eventfd, &1u64.to_ne_bytes()) {
            // A full counter rings already.
            Ok(_) | Err(rustix::io::Errno::AGAIN) => {}
            Err(error) => log::debug!("cannot signal an eventfd: {error}"),
        }
    }

    fn message_ring(&mut self, _target: &mut dyn FnMut() -> Arc<Shared>) -> bool {
        false
    }

    fn flush(&mut self) {}

    fn turn(&mut self, wait: Wait) {
        if self.completions.is_empty() {
            self.busy_turns = 0;
            self.wait(wait);
            return;
        }
        // Files that never wait must not keep those that do from being looked at.
        self.busy_turns += 1;
        if self.busy_turns >= TURNS_WITHOUT_EPOLL {
            self.busy_turns = 0;
            self.wait(Wait::No);
        }
    }

    fn reap(&mut self, completions: &mut VecDeque<Completion>) {
        completions.append(&mut self.completions);
    }

    fn has_completions(&mut self) -> bool {
        !self.completions.is_empty()
    }

    fn system_calls(&self) -> u64 {
        self.system_calls
    }
}

/// A file of the kernel's, for drivers that are not built on it.
pub(crate) struct RealFile(Source);

impl RealFile {
    /// The descriptor stays open for as long as this is used.
    pub(crate) fn new(fd: BorrowedFd<'_>) -> Self {
        let mut source = Source::new(fd);
        // Its state is asked for at each attempt.
        source.registered = true;
        RealFile(source)
    }
}

/// An operation on such a file.
pub(crate) struct RealOperation(Pending);

impl RealOperation {
    pub(crate) fn new(token: Token, operation: Operation) -> Self {
        RealOperation(Pending::new(token, operation))
    }

    /// Performs it if that need not wait.
    pub(crate) fn attempt(&mut self, file: &RealFile) -> Attempt {
        attempt(&file.0, &mut self.0)
    }
}
