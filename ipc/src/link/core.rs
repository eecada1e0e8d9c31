//! What everything that belongs to one end of a link shares.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Waker};
use std::time::Duration;

use rustix::event::Timespec;
use rustix::thread::futex;

use super::arena::Arena;
use super::fds::Lane;
use super::layout::{Layout, Side};
use super::looking::Looker;
use super::memory::{Memory, futex_half};
use super::sleepers::{EVENT, FUTEX, Sleepers};
use super::slots::SlotTable;
use crate::Deadline;

/// How long a thread sleeps before it looks itself whether the peer lives, when no task drives the
/// link and would wake it. It doubles up to [`LONGEST_SLICE`].
const FIRST_SLICE: Duration = Duration::from_millis(5);
/// Four looks a second cost nothing measurable.
const LONGEST_SLICE: Duration = Duration::from_millis(250);

/// Why a link ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkDeath {
    /// The process at the other end died, or dropped the link.
    #[error("the process at the other end of the link is gone")]
    PeerDied,
    /// The process at the other end broke the protocol.
    #[error("the process at the other end of the link broke the protocol: {0}")]
    Protocol(&'static str),
    /// This process closed the link.
    #[error("the link was closed here")]
    ClosedHere,
}

/// How a sleep ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slept {
    /// The word changed, or may have.
    Woken,
    /// The deadline passed.
    TimedOut,
}

/// One end of a link.
pub(crate) struct Core {
    pub(crate) memory: Memory,
    pub(crate) layout: Layout,
    pub(crate) side: Side,
    pub(crate) lane: Lane,
    pub(crate) slots: SlotTable,
    pub(crate) arena: Arena,
    pub(crate) sleepers: Sleepers,
    /// Rung by the peer for the tasks of this end.
    own_bell: OwnedFd,
    /// Rung here for the tasks of the peer.
    peer_bell: OwnedFd,
    death: OnceLock<LinkDeath>,
    /// A task of this process listens to the bell and to the socket.
    pub(crate) driven: AtomicBool,
    /// The thread whose executor looks before it sleeps.
    pub(crate) looker: Looker,
}

/// The descriptors of one end.
pub(crate) struct Parts {
    pub(crate) memory: Memory,
    pub(crate) layout: Layout,
    pub(crate) side: Side,
    pub(crate) socket: OwnedFd,
    pub(crate) own_bell: OwnedFd,
    pub(crate) peer_bell: OwnedFd,
}

impl Core {
    pub(crate) fn new(parts: Parts) -> Arc<Self> {
        Arc::new(Self {
            slots: SlotTable::new(parts.layout.reply_slots()),
            arena: Arena::new(parts.layout.arena(parts.side)),
            memory: parts.memory,
            layout: parts.layout,
            side: parts.side,
            lane: Lane::new(parts.socket),
            sleepers: Sleepers::default(),
            own_bell: parts.own_bell,
            peer_bell: parts.peer_bell,
            death: OnceLock::new(),
            driven: AtomicBool::new(false),
            looker: Looker::default(),
        })
    }

    pub(crate) fn death(&self) -> Option<LinkDeath> {
        self.death.get().copied()
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.death.get().is_some()
    }

    /// Whether what the peer has left behind may still be read.
    pub(crate) fn is_readable(&self) -> bool {
        matches!(self.death.get(), None | Some(LinkDeath::PeerDied))
    }

    pub(crate) fn own_bell(&self) -> BorrowedFd<'_> {
        self.own_bell.as_fd()
    }

    /// Ends the link, once, and wakes everybody who waits for something from it.
    pub(crate) fn end(&self, death: LinkDeath) {
        if self.death.set(death).is_err() {
            return;
        }
        match death {
            LinkDeath::Protocol(_) => log::error!("{death}; closing the link"),
            LinkDeath::PeerDied | LinkDeath::ClosedHere => log::debug!("{death}"),
        }
        self.lane.hang_up();
        self.sleepers.each_thread(&self.memory, |word| {
            // The value changes, so a thread that is about to sleep on it does not.
            word.fetch_and(!FUTEX, Ordering::SeqCst);
            wake_threads(word);
        });
        self.wake_tasks(&mut Vec::new());
        self.slots.notify_all();
    }

    /// Wakes the tasks that the peer has done something for, and says whether there were any.
    /// `scratch` is empty before and after.
    pub(crate) fn wake_tasks(&self, scratch: &mut Vec<Waker>) -> bool {
        self.sleepers.signalled(&self.memory, self.is_dead(), scratch);
        wake_all(scratch)
    }

    /// The thread that looks stops looking: raises the flags of its tasks, and wakes those for which
    /// the peer has done something by then.
    pub(crate) fn raise_flags(&self, scratch: &mut Vec<Waker>) -> bool {
        self.sleepers.raise_flags(&self.memory, scratch);
        wake_all(scratch)
    }

    /// Looks whether the peer still lives, which costs a system call.
    pub(crate) fn probe(&self) {
        if !self.is_dead() && self.lane.is_hung_up() {
            self.end(LinkDeath::PeerDied);
        }
    }

    /// Rings for those who slept on `word` when it had the value `before`.
    pub(crate) fn ring(&self, word: &AtomicU64, before: u64) {
        if before & FUTEX != 0 {
            wake_threads(word);
        }
        if before & EVENT != 0 {
            // Fails only when the counter is full, and then the peer has something to read.
            let _ = rustix::io::write(&self.peer_bell, &1_u64.to_ne_bytes());
        }
    }

    /// Wakes the sleepers of this end whose flags on `word` were lowered here.
    pub(crate) fn wake_own(&self, word: &AtomicU64) {
        wake_threads(word);
        self.wake_tasks(&mut Vec::new());
    }

    /// Prepares a task to sleep on a word. Returns the value that the word has after that: the
    /// caller looks at it once more and then returns `Pending`.
    pub(crate) fn arm_task(
        &self,
        key: &mut Option<usize>,
        word: usize,
        context: &Context<'_>,
    ) -> u64 {
        if self.looker.is_here() {
            return self.sleepers.register_unflagged(&self.memory, key, word, context.waker());
        }
        self.sleepers.register_task(key, word, context.waker());
        self.memory.word(word).fetch_or(EVENT, Ordering::SeqCst)
    }

    /// Lets the thread sleep on a word until the peer changes it, unless `progressed` says of its
    /// present value that there is something to do.
    pub(crate) fn sleep(
        &self,
        word_index: usize,
        progressed: impl Fn(u64) -> bool,
        deadline: Deadline,
    ) -> Slept {
        let word = self.memory.word(word_index);
        let key = self.sleepers.register_thread(word_index);
        let value = word.fetch_or(FUTEX, Ordering::SeqCst) | FUTEX;
        let slept = if progressed(value) || self.is_dead() {
            Slept::Woken
        } else {
            self.sleep_registered(word, value, deadline)
        };
        self.sleepers.remove_thread(key);
        slept
    }

    fn sleep_registered(&self, word: &AtomicU64, value: u64, deadline: Deadline) -> Slept {
        let mut slice = FIRST_SLICE;
        loop {
            let Some(left) = deadline.remaining() else {
                return Slept::TimedOut;
            };
            let driven = self.driven.load(Ordering::Relaxed);
            let length = if driven { left } else { left.min(slice) };
            let timeout = Timespec {
                tv_sec: i64::try_from(length.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(length.subsec_nanos()),
            };
            // Every way in which it returns is a reason to look again.
            let _ =
                futex::wait(futex_half(word), futex::Flags::empty(), value as u32, Some(&timeout));
            if word.load(Ordering::Acquire) != value || self.is_dead() {
                return Slept::Woken;
            }
            if !driven {
                self.probe();
                slice = (slice * 2).min(LONGEST_SLICE);
            }
        }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        self.lane.hang_up();
    }
}

fn wake_all(wakers: &mut Vec<Waker>) -> bool {
    let any = !wakers.is_empty();
    for waker in wakers.drain(..) {
        waker.wake();
    }
    any
}

fn wake_threads(word: &AtomicU64) {
    // Not private: the sleeper is in another process. It cannot fail on a mapped word.
    let _ = futex::wake(futex_half(word), futex::Flags::empty(), i32::MAX as u32);
}
