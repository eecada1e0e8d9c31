//! The driver on `io_uring`: one ring, at most one `io_uring_enter` per turn.
//!
//! ```text
//!   submit, cancel, signal ──▶ submission queue ─┐
//!                                                ├── io_uring_enter (submit + wait) ── kernel
//!   reap ◀───────────────── completion queue ◀───┘
//! ```
//!
//! With [`Submission::ByKernelThread`] a thread of the kernel takes entries as soon as they are in the queue. The system
//! call is left for what only it can do: to wait, and to wake that thread after it has gone to sleep.

mod entry;
mod files;
mod setup;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;

use io_uring::{IoUring, cqueue, opcode, squeue, types};

use super::{Attached, Driver, FileId, Medium, Residence, Target, Wait};
use crate::config::{Config, DriverKind, KernelFeatures, Operations, Restrictions, Submission};
use crate::error::Error;
use crate::ops::Operation;
use crate::ops::slots::{Completion, Left, Token};
use crate::remote::Shared;
use files::FileTable;
use setup::{EnterTarget, Submitter};

/// The low half of the user data of everything that is not an operation; no slot has this index.
const INTERNAL: u64 = u32::MAX as u64;
const DOORBELL: u64 = INTERNAL;
const CANCEL: u64 = 1 << 32 | INTERNAL;
const SIGNAL: u64 = 2 << 32 | INTERNAL;
/// A message from another ring.
pub(super) const MESSAGE: u64 = 3 << 32 | INTERNAL;
/// Bits 40 and up: the index of the peer that a message of ours went to.
const PEER: u64 = 4 << 32 | INTERNAL;
const KIND_MASK: u64 = (1 << 40) - 1;

/// What a signal adds to an eventfd.
static ONE: u64 = 1;

pub(crate) struct Uring {
    // Before `ring`: its registration ends through the ring's descriptor.
    enter: EnterTarget,
    ring: IoUring,
    files: FileTable,
    shared: Arc<Shared>,
    /// The kernel says what receives leave in sockets, and can wait before it tries one.
    poll_first: bool,
    submission: Submission,
    /// Features of this kernel that are used.
    features: KernelFeatures,
    /// Completions taken off the queue early because it was in the way of submissions.
    backlog: VecDeque<cqueue::Entry>,
    /// Executors that got messages from here. Few; dead ones are replaced.
    peers: Vec<Arc<Shared>>,
    system_calls: u64,
}

impl Uring {
    pub(crate) fn open(config: &Config, shared: &Arc<Shared>) -> Result<Self, Error> {
        let setup::Opened { ring, enter, files, poll_first, mut features } = setup::open(config)?;
        if features.contains(KernelFeatures::MESSAGE_RING)
            && let Ok(duplicate) = setup::duplicate(&ring)
        {
            shared.set_ring(duplicate);
        }
        let may_send =
            |restrictions: Restrictions| restrictions.operations.contains(Operations::MESSAGE_RING);
        if !config.restrictions.is_none_or(may_send) {
            features.remove(KernelFeatures::MESSAGE_RING);
        }
        let mut driver = Uring {
            ring,
            enter,
            files,
            shared: Arc::clone(shared),
            poll_first,
            submission: config.submission,
            features,
            backlog: VecDeque::new(),
            peers: Vec::new(),
            system_calls: 0,
        };
        driver.watch_doorbell();
        Ok(driver)
    }

    /// Polls the eventfd through which threads without a ring wake this executor.
    fn watch_doorbell(&mut self) {
        let doorbell = types::Fd(self.shared.doorbell().as_raw_fd());
        let multishot = self.features.contains(KernelFeatures::MULTISHOT_POLL);
        let entry = opcode::PollAdd::new(doorbell, libc::POLLIN as u32)
            .multi(multishot)
            .build()
            .user_data(DOORBELL);
        self.push(&entry);
    }

    /// Queues an entry, making room by a system call when the queue is full.
    fn push(&mut self, entry: &squeue::Entry) {
        loop {
            // SAFETY: what the entry points to is valid until its completion: see `Operation`,
            // and `ONE` is static.
            if unsafe { self.ring.submission().push(entry) }.is_ok() {
                return;
            }
            let submitter = match self.submission {
                Submission::BySystemCall => Submitter::Caller,
                Submission::ByKernelThread(_) => Submitter::FullThread,
            };
            self.enter(submitter, Wait::No);
            if self.ring.submission().is_full() {
                // The kernel takes nothing more before completions are taken.
                let completions: Vec<_> = self.ring.completion().collect();
                self.backlog.extend(completions);
            }
        }
    }

    fn skip_success(&self) -> squeue::Flags {
        if self.features.contains(KernelFeatures::SKIP_SUCCESS) {
            squeue::Flags::SKIP_SUCCESS
        } else {
            squeue::Flags::empty()
        }
    }

    /// Who takes what is queued now, if there is anything for them to do.
    fn submitter(&mut self) -> Option<Submitter> {
        let submission = self.ring.submission();
        if submission.is_empty() {
            return None;
        }
        match self.submission {
            Submission::BySystemCall => Some(Submitter::Caller),
            // Asks after a fence: the thread looks at the queue once more after it has said that it sleeps.
            Submission::ByKernelThread(_) => {
                submission.need_wakeup().then_some(Submitter::SleepingThread)
            }
        }
    }

    /// The one system call: submits, and waits if asked to.
    fn enter(&mut self, submitter: Submitter, wait: Wait) {
        let to_submit = self.ring.submission().len() as u32;
        self.system_calls += 1;
        match self.enter.enter(to_submit, submitter, wait) {
            Ok(_) => {}
            // EINTR: a signal; ETIME: the time is over; EBUSY: take completions first; EAGAIN: no
            // memory for requests just now. What was not submitted stays queued for the next turn.
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::EINTR | libc::ETIME | libc::EBUSY | libc::EAGAIN)
                ) => {}
            Err(error) => panic!("io_uring_enter on our own ring failed: {error}"),
        }
    }

    /// The kernel has something that only shows up in the completion queue after an enter.
    fn has_deferred_work(&mut self) -> bool {
        let submission = self.ring.submission();
        submission.taskrun() || submission.cq_overflow()
    }

    /// Handles completions that are not of operations.
    fn internal(&mut self, entry: &cqueue::Entry) {
        match entry.user_data() & KIND_MASK {
            DOORBELL => {
                if !self.features.contains(KernelFeatures::MULTISHOT_POLL) {
                    // A level-triggered poll would fire for ever on a counter that stays up.
                    let _ = rustix::io::read(self.shared.doorbell(), &mut [0u8; 8]);
                }
                if !cqueue::more(entry.flags()) && entry.result() != -libc::ECANCELED {
                    self.watch_doorbell();
                }
            }
            PEER if entry.result() < 0 => {
                // Forbidden by restrictions, or the peer's thread ended.
                if let Some(peer) = self.peers.get((entry.user_data() >> 40) as usize) {
                    peer.ring_doorbell();
                }
            }
            SIGNAL if entry.result() < 0 && entry.result() != -libc::EAGAIN => {
                let error = io::Error::from_raw_os_error(-entry.result());
                log::debug!("cannot signal an eventfd: {error}");
            }
            // A cancellation that came too late, a message that has done its work by ending the
            // wait, successes of kernels that cannot keep quiet about them.
            _ => {}
        }
    }

    fn peer_index(&mut self, peer: Arc<Shared>) -> u64 {
        let index = self.peers.iter().position(|known| Arc::ptr_eq(known, &peer));
        let index = index.unwrap_or_else(|| {
            // An executor that nobody else refers to has ended; its place is free.
            let dead = self.peers.iter().position(|known| Arc::strong_count(known) == 1);
            if let Some(dead) = dead {
                self.peers[dead] = peer;
                return dead;
            }
            self.peers.push(peer);
            self.peers.len() - 1
        });
        index as u64
    }
}

impl Driver for Uring {
    fn kind(&self) -> DriverKind {
        DriverKind::Uring
    }

    fn has_multishot_poll(&self) -> bool {
        self.features.contains(KernelFeatures::MULTISHOT_POLL)
    }

    fn attach(&mut self, fd: BorrowedFd<'_>, residence: Residence) -> Attached {
        let file = match residence {
            Residence::Long => self.files.register(&self.ring, fd),
            Residence::Short => FileId::Plain,
        };
        Attached { file, medium: Medium::of(fd) }
    }

    fn detach(&mut self, target: Target) {
        // A signal that is still queued names the descriptor or the slot.
        self.drain();
        self.files.unregister(&self.ring, target.file);
    }

    fn submit(&mut self, token: Token, target: Target, operation: Operation) {
        let entry = entry::build(target, operation).user_data(token.to_bits());
        self.push(&entry);
    }

    fn cancel(&mut self, token: Token, _target: Target) {
        let entry = opcode::AsyncCancel::new(token.to_bits())
            .build()
            .user_data(CANCEL)
            .flags(self.skip_success());
        self.push(&entry);
    }

    fn signal(&mut self, target: Target) {
        let write = Operation::Write {
            pointer: (&raw const ONE).cast(),
            length: size_of_val(&ONE) as u32,
            offset: 0,
        };
        let entry = entry::build(target, write).user_data(SIGNAL);
        let flags = self.skip_success();
        self.push(&entry::add_flags(entry, flags, target.file));
    }

    fn message_ring(&mut self, target: &mut dyn FnMut() -> Arc<Shared>) -> bool {
        if !self.features.contains(KernelFeatures::MESSAGE_RING | KernelFeatures::SKIP_SUCCESS) {
            return false;
        }
        let peer = target();
        let Some(ring) = peer.ring().map(|ring| ring.as_raw_fd()) else {
            return false;
        };
        let index = self.peer_index(peer);
        let entry = opcode::MsgRingData::new(types::Fd(ring), 0, MESSAGE, None)
            .build()
            .user_data(index << 40 | PEER)
            .flags(squeue::Flags::SKIP_SUCCESS);
        self.push(&entry);
        true
    }

    fn flush(&mut self) {
        if let Some(submitter) = self.submitter() {
            self.enter(submitter, Wait::No);
        }
    }

    fn drain(&mut self) {
        self.flush();
        while self.submission != Submission::BySystemCall && !self.ring.submission().is_empty() {
            std::thread::yield_now();
            self.flush();
        }
    }

    fn turn(&mut self, wait: Wait) {
        // Completions that are there already end a wait before it begins.
        let wait = if self.backlog.is_empty() { wait } else { Wait::No };
        let submitter = self.submitter();
        if wait != Wait::No || submitter.is_some() || self.has_deferred_work() {
            self.enter(submitter.unwrap_or(Submitter::Thread), wait);
        }
    }

    fn reap(&mut self, completions: &mut VecDeque<Completion>) {
        let mut take = |driver: &mut Self, entry: &cqueue::Entry| {
            if entry.user_data() & INTERNAL == INTERNAL {
                driver.internal(entry);
                return;
            }
            completions.push_back(Completion {
                token: Token::from_bits(entry.user_data()),
                result: entry.result(),
                more: cqueue::more(entry.flags()),
                left: if cqueue::sock_nonempty(entry.flags()) || !driver.poll_first {
                    Left::Perhaps
                } else {
                    Left::Nothing
                },
            });
        };
        while let Some(entry) = self.backlog.pop_front() {
            take(self, &entry);
        }
        // Not the queue's iterator for all: what `take` does may need the ring.
        loop {
            let mut batch = [const { std::mem::MaybeUninit::uninit() }; 64];
            let mut queue = self.ring.completion();
            let batch = queue.fill(&mut batch);
            drop(queue);
            if batch.is_empty() {
                return;
            }
            for entry in batch.iter() {
                take(self, entry);
            }
        }
    }

    fn has_completions(&mut self) -> bool {
        !self.backlog.is_empty() || !self.ring.completion().is_empty() || self.has_deferred_work()
    }

    fn system_calls(&self) -> u64 {
        self.system_calls
    }
}

#[cfg(test)]
mod tests;
