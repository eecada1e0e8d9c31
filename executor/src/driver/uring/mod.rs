//! The driver on `io_uring`: one ring, at most one `io_uring_enter` per turn.
//!
//! ```text
//!   submit, cancel, signal ──▶ submission queue ─┐
//!                                                ├── io_uring_enter (submit + wait) ── kernel
//!   reap ◀───────────────── completion queue ◀───┘
//! ```
//!
//! With [`Submission::ByKernelThread`](crate::config::Submission) a thread of the kernel takes entries as soon as they are in the queue. The system
//! call is left for what only it can do: to wait, and to wake that thread after it has gone to sleep.
//!
//! With [`DirectIo::Polled`](crate::config::DirectIo) a second ring takes the transfers of some files ([`polled`]).

mod entry;
mod files;
mod polled;
mod ring;
mod setup;

use std::collections::VecDeque;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;

use io_uring::{cqueue, opcode, squeue, types};

use super::{Attached, Driver, FileId, Medium, Residence, Target, Wait};
use crate::config::{Config, DriverKind, KernelFeatures, Operations, Restrictions};
use crate::error::Error;
use crate::ops::Operation;
use crate::ops::slots::{Completion, Left, Token};
use crate::remote::Shared;
use files::FileTable;
use polled::Polled;
use ring::{BATCH, Ring};

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
    ring: Ring,
    /// For transfers of files that are polled.
    polled: Option<Polled>,
    files: FileTable,
    shared: Arc<Shared>,
    /// The kernel says what receives leave in sockets, and can wait before it tries one.
    poll_first: bool,
    /// Features of this kernel that are used.
    features: KernelFeatures,
    /// Executors that got messages from here. Few; dead ones are replaced.
    peers: Vec<Arc<Shared>>,
}

impl Uring {
    pub(crate) fn open(config: &Config, shared: &Arc<Shared>) -> Result<Self, Error> {
        let setup::Opened { ring, polled, files, poll_first, mut features } = setup::open(config)?;
        if features.contains(KernelFeatures::MESSAGE_RING)
            && let Ok(duplicate) = setup::duplicate(&ring.inner)
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
            polled,
            files,
            shared: Arc::clone(shared),
            poll_first,
            features,
            peers: Vec::new(),
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
        self.ring.push(&entry);
    }

    fn skip_success(&self) -> squeue::Flags {
        if self.features.contains(KernelFeatures::SKIP_SUCCESS) {
            squeue::Flags::SKIP_SUCCESS
        } else {
            squeue::Flags::empty()
        }
    }

    fn take(&mut self, entry: &cqueue::Entry, completions: &mut VecDeque<Completion>) {
        if entry.user_data() & INTERNAL == INTERNAL {
            self.internal(entry);
            return;
        }
        completions.push_back(Completion {
            token: Token::from_bits(entry.user_data()),
            result: entry.result(),
            more: cqueue::more(entry.flags()),
            left: if cqueue::sock_nonempty(entry.flags()) || !self.poll_first {
                Left::Perhaps
            } else {
                Left::Nothing
            },
        });
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
        let file = match (residence, &mut self.polled) {
            (Residence::Polled, Some(polled)) => polled.attach(fd),
            (Residence::Polled, None) | (Residence::Short, _) => FileId::Plain,
            (Residence::Long, _) => self.files.register(&self.ring.inner, fd),
        };
        Attached { file, medium: Medium::of(fd) }
    }

    fn detach(&mut self, target: Target) {
        // A signal that is still queued names the descriptor or the slot.
        self.ring.drain();
        match (target.file, &mut self.polled) {
            (FileId::Polled(slot), Some(polled)) => polled.detach(slot),
            (file, _) => self.files.unregister(&self.ring.inner, file),
        }
    }

    fn submit(&mut self, token: Token, target: Target, operation: Operation) {
        let polled = match (target.file, &mut self.polled) {
            (FileId::Polled(slot), Some(polled)) if Polled::takes(&operation) => {
                Some((polled, slot.map_or(FileId::Plain, FileId::Slot)))
            }
            _ => None,
        };
        match polled {
            Some((polled, file)) => {
                let target = Target { file, ..target };
                let entry = entry::build(target, operation).user_data(token.to_bits());
                polled.submit(&entry);
            }
            None => {
                let entry = entry::build(target, operation).user_data(token.to_bits());
                self.ring.push(&entry);
            }
        }
    }

    fn cancel(&mut self, token: Token, _target: Target) {
        // A transfer of the second ring is not known to this one, and cannot be cancelled: it is over soon.
        let entry = opcode::AsyncCancel::new(token.to_bits())
            .build()
            .user_data(CANCEL)
            .flags(self.skip_success());
        self.ring.push(&entry);
    }

    fn signal(&mut self, target: Target) {
        let write = Operation::Write {
            pointer: (&raw const ONE).cast(),
            length: size_of_val(&ONE) as u32,
            offset: 0,
        };
        let entry = entry::build(target, write).user_data(SIGNAL);
        let flags = self.skip_success();
        self.ring.push(&entry::add_flags(entry, flags, target.file));
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
        self.ring.push(&entry);
        true
    }

    fn flush(&mut self) {
        self.ring.flush();
        if let Some(polled) = &mut self.polled {
            polled.ring.flush();
        }
    }

    fn drain(&mut self) {
        self.ring.drain();
        if let Some(polled) = &mut self.polled {
            polled.ring.drain();
        }
    }

    fn turn(&mut self, wait: Wait) {
        let mut wait = wait;
        if let Some(polled) = &mut self.polled
            && polled.is_busy()
        {
            polled.look();
            wait = Wait::No;
        }
        self.ring.turn(wait);
    }

    fn reap(&mut self, completions: &mut VecDeque<Completion>) {
        loop {
            let mut batch = [const { MaybeUninit::uninit() }; BATCH];
            let batch = self.ring.take(&mut batch);
            if batch.is_empty() {
                break;
            }
            for entry in batch.iter() {
                self.take(entry, completions);
            }
        }
        if let Some(polled) = &mut self.polled {
            polled.reap(completions);
        }
    }

    fn has_completions(&mut self) -> bool {
        // Who waits for what only shows up when it is asked for must not stop to ask.
        self.polled.as_ref().is_some_and(Polled::is_busy) || self.ring.has_completions()
    }

    fn system_calls(&self) -> u64 {
        let polled = self.polled.as_ref().map_or(0, |polled| polled.ring.system_calls);
        self.ring.system_calls + polled
    }
}

#[cfg(test)]
mod tests;
