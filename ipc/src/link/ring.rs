//! A ring of frames in shared memory: one producing process, one consuming process.
//!
//! ```text
//!   line 0   tail  │ position << 4 │ PEER_CLOSED CLOSED EVENT FUTEX │    moved by the producer
//!   line 1   head  │ position << 4 │      -      CLOSED EVENT FUTEX │    moved by the consumer
//!            popped, a count of frames
//!   data     a power of two of words; frames follow each other and wrap around
//! ```
//!
//! Positions count words. Each end keeps its own position in private memory and only publishes it;
//! what the other end published is read once and checked: a head or tail that cannot be is a broken
//! protocol and ends the link. A swap of tail or head publishes and returns the waiting flags of
//! the other end ([`super::sleepers`]).
//!
//! The consumer closes with an atomic OR of `PEER_CLOSED` into the tail, which puts the closing
//! before or after each frame: what came before is taken out, what comes after is refused.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Context;

use super::arena::Lease;
use super::core::{Core, LinkDeath, Slept};
use super::frame::{Frame, Header};
use super::layout::{LINE_WORDS, RING_HEADER_WORDS, Span};
use crate::Deadline;
use crate::codec::{Draft, Refusal};

/// The end whose word this is was closed.
const CLOSED: u64 = 1 << 2;
/// In the tail: the consumer was closed.
const PEER_CLOSED: u64 = 1 << 3;
/// Positions stand above the flags.
const SHIFT: u32 = 4;
/// Positions wrap where the shift cuts them.
const POSITIONS: u64 = u64::MAX >> SHIFT;

/// Which end of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RingEnd {
    Producer,
    Consumer,
}

/// The index of the word that an end moves.
pub(crate) fn end_word(span: Span, end: RingEnd) -> usize {
    match end {
        RingEnd::Producer => span.start,
        RingEnd::Consumer => span.start + LINE_WORDS,
    }
}

/// Whether the end that moves this word was closed.
pub(crate) fn is_closed(word: u64) -> bool {
    word & CLOSED != 0
}

fn distance(from: u64, to: u64) -> u64 {
    to.wrapping_sub(from) & POSITIONS
}

/// Words of data in a ring; a power of two by construction or by the check of its descriptor.
fn data_words(span: Span) -> usize {
    span.words - RING_HEADER_WORDS
}

/// Why a frame was not written.
#[derive(Debug)]
pub(crate) enum WriteError {
    /// The ring is full; the head of the consumer as it was then.
    Full(u64),
    /// Too many calls are unanswered.
    NoReplySlot,
    /// The consumer was closed.
    Closed,
    /// The link is dead.
    Dead,
    /// It can never be written.
    Refused(Refusal),
}

/// The producing end. Threads of the process take turns.
pub(crate) struct Producer {
    core: Arc<Core>,
    span: Span,
    capacity: u64,
    state: Mutex<ProducerState>,
    _lease: Option<Arc<Lease>>,
}

#[derive(Default)]
pub(crate) struct ProducerState {
    tail: u64,
    sent: u64,
    /// What was last seen of the consumer.
    head: u64,
    popped: u64,
    closed: bool,
}

impl Producer {
    pub(crate) fn new(
        core: Arc<Core>,
        span: Span,
        capacity: usize,
        lease: Option<Arc<Lease>>,
    ) -> Self {
        let state = Mutex::default();
        Self { core, span, capacity: capacity as u64, state, _lease: lease }
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    pub(crate) fn capacity(&self) -> usize {
        self.capacity as usize
    }

    fn tail_word(&self) -> &AtomicU64 {
        self.core.memory.word(end_word(self.span, RingEnd::Producer))
    }

    pub(crate) fn head_index(&self) -> usize {
        end_word(self.span, RingEnd::Consumer)
    }

    pub(crate) fn lock(&self) -> std::sync::MutexGuard<'_, ProducerState> {
        // Each change of the state is complete before anything that can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether one more frame of `words` words has room, as far as the consumer has come.
    fn has_room(&self, state: &mut ProducerState, words: u64) -> Result<bool, WriteError> {
        let size = data_words(self.span) as u64;
        let fits = |state: &ProducerState| {
            state.sent - state.popped < self.capacity
                && distance(state.head, state.tail) + words <= size
        };
        if fits(state) {
            return Ok(true);
        }
        let head_line = self.core.memory.words(self.head_index(), 2);
        let head = head_line[0].load(Ordering::Acquire);
        if is_closed(head) {
            return Err(WriteError::Closed);
        }
        let popped = head_line[1].load(Ordering::Relaxed);
        let head = head >> SHIFT;
        // Both only move forward, and never past what was sent.
        if distance(head, state.tail) > distance(state.head, state.tail)
            || state.sent.wrapping_sub(popped) > state.sent - state.popped
        {
            self.core.end(LinkDeath::Protocol("a consumer moved its head where it cannot be"));
            return Err(WriteError::Dead);
        }
        state.head = head;
        state.popped = popped;
        Ok(fits(state))
    }

    /// Refuses before anything is encoded where that is possible.
    pub(crate) fn check(&self, state: &mut ProducerState) -> Result<(), WriteError> {
        if self.core.is_dead() {
            return Err(WriteError::Dead);
        }
        if state.closed || self.tail_word().load(Ordering::Relaxed) & PEER_CLOSED != 0 {
            return Err(WriteError::Closed);
        }
        if self.has_room(state, 1)? { Ok(()) } else { Err(WriteError::Full(state.head)) }
    }

    /// Writes one frame. The handles in it leave this process only if there is room.
    pub(crate) fn write(
        &self,
        state: &mut ProducerState,
        draft: &mut Draft,
    ) -> Result<(), WriteError> {
        let words = draft.frame_words();
        let size = data_words(self.span);
        if words > size {
            return Err(WriteError::Refused(Refusal::TooLarge));
        }
        if !self.has_room(state, words as u64)? {
            return Err(WriteError::Full(state.head));
        }
        if !draft.reserve_reply_slots(&self.core) {
            return Err(WriteError::NoReplySlot);
        }
        draft.commit(&self.core).map_err(|refusal| match refusal {
            Refusal::PeerDied => WriteError::Dead,
            other => WriteError::Refused(other),
        })?;
        let data = self.core.memory.words(self.span.start + RING_HEADER_WORDS, size);
        let mask = size - 1;
        let start = state.tail as usize;
        draft.write(|index, word| {
            data[start.wrapping_add(index) & mask].store(word, Ordering::Relaxed);
        });
        state.tail = state.tail.wrapping_add(words as u64) & POSITIONS;
        state.sent += 1;
        let tail = self.tail_word();
        let before = tail.swap(state.tail << SHIFT, Ordering::AcqRel);
        if before & PEER_CLOSED != 0 {
            state.closed = true;
            draft.retract(&self.core);
            return Err(WriteError::Closed);
        }
        self.core.ring(tail, before);
        Ok(())
    }

    /// Prepares a task to sleep until there may be room; the caller tries once more after it.
    pub(crate) fn arm(&self, key: &mut Option<usize>, context: &Context<'_>) {
        self.core.arm_task(key, self.head_index(), context);
    }

    /// Lets the thread sleep until the consumer has moved on from `seen`.
    pub(crate) fn sleep(&self, seen: u64, deadline: Deadline) -> Slept {
        let progressed = |value: u64| value >> SHIFT != seen || is_closed(value);
        self.core.sleep(self.head_index(), progressed, deadline)
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        let tail = self.tail_word();
        let position = self.lock().tail << SHIFT;
        let before = tail.swap(position | CLOSED, Ordering::AcqRel);
        self.core.ring(tail, before);
    }
}

/// What a consumer sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// A frame.
    Frame,
    /// Nothing yet.
    Empty,
    /// Nothing, and nothing will come: the producer was closed in good order.
    Closed,
}

/// The consuming end.
pub(crate) struct Consumer {
    core: Arc<Core>,
    span: Span,
    head: u64,
    popped: u64,
    /// How far the producer has come, as last seen and checked.
    tail: u64,
    /// Flags of producers that sleep and are to be woken when all frames seen so far are out. One
    /// wake-up per frame would make both sides sleep and wake for each when the producer is faster.
    owed: u64,
    key: Option<usize>,
    buffer: Vec<u64>,
    _lease: Option<Arc<Lease>>,
}

impl Consumer {
    pub(crate) fn new(core: Arc<Core>, span: Span, lease: Option<Arc<Lease>>) -> Self {
        let buffer = Vec::new();
        Self { core, span, head: 0, popped: 0, tail: 0, owed: 0, key: None, buffer, _lease: lease }
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    fn tail_index(&self) -> usize {
        end_word(self.span, RingEnd::Producer)
    }

    fn tail_word(&self) -> &AtomicU64 {
        self.core.memory.word(self.tail_index())
    }

    /// What is there.
    pub(crate) fn look(&self) -> Look {
        if self.tail != self.head {
            return Look::Frame;
        }
        let tail = self.tail_word().load(Ordering::Acquire);
        match (tail >> SHIFT == self.head, is_closed(tail)) {
            (false, _) => Look::Frame,
            (true, false) => Look::Empty,
            (true, true) => Look::Closed,
        }
    }

    /// Takes the next frame out of the ring if one is there. An error is a broken protocol.
    pub(crate) fn read(&mut self) -> Result<Option<Frame<'_>>, &'static str> {
        let taken = self.take()?;
        Ok(taken.map(|(header, fds)| Frame::new(&self.core, header, &self.buffer, fds)))
    }

    /// Copies the next frame into the buffer.
    fn take(&mut self) -> Result<Option<(Header, Vec<OwnedFd>)>, &'static str> {
        let size = data_words(self.span);
        if self.tail == self.head {
            let tail = self.tail_word().load(Ordering::Acquire) >> SHIFT;
            if tail == self.head {
                return Ok(None);
            }
            if distance(self.head, tail) > size as u64 {
                return Err("a producer moved its tail where it cannot be");
            }
            self.tail = tail;
        }
        let data = self.core.memory.words(self.span.start + RING_HEADER_WORDS, size);
        let mask = size - 1;
        let start = self.head as usize;
        let header = Header::from_word(data[start & mask].load(Ordering::Relaxed));
        let words = header.frame_words();
        if words as u64 > distance(self.head, self.tail) {
            return Err("a frame is longer than what was written");
        }
        self.buffer.clear();
        self.buffer.extend(
            (1..words).map(|index| data[start.wrapping_add(index) & mask].load(Ordering::Relaxed)),
        );
        self.head = self.head.wrapping_add(words as u64) & POSITIONS;
        self.popped = self.popped.wrapping_add(1);
        let head_line = self.core.memory.words(end_word(self.span, RingEnd::Consumer), 2);
        head_line[1].store(self.popped, Ordering::Relaxed);
        self.owed |= head_line[0].swap(self.head << SHIFT, Ordering::AcqRel);
        if self.head == self.tail {
            self.core.ring(&head_line[0], std::mem::take(&mut self.owed));
        }
        let fds = header.take_fds(&self.buffer, &self.core.lane)?;
        Ok(Some((header, fds)))
    }

    /// Prepares a task to sleep. True when there is something to look at already.
    pub(crate) fn arm(&mut self, context: &Context<'_>) -> bool {
        let word = self.tail_index();
        let value = self.core.arm_task(&mut self.key, word, context);
        value >> SHIFT != self.head || is_closed(value) || self.core.is_dead()
    }

    /// Lets the thread sleep until there may be a frame.
    pub(crate) fn sleep(&self, deadline: Deadline) -> Slept {
        let progressed = |value: u64| value >> SHIFT != self.head || is_closed(value);
        self.core.sleep(self.tail_index(), progressed, deadline)
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.core.sleepers.remove_task(self.key.take());
        let end = self.tail_word().fetch_or(PEER_CLOSED, Ordering::AcqRel) >> SHIFT;
        // Frames that arrived before carry descriptors to be closed; a frame at a time, and never
        // more than the ring holds, because the tail is not looked at again.
        if distance(self.head, end) <= data_words(self.span) as u64 {
            self.tail = end;
            while self.tail != self.head && self.core.is_readable() {
                match self.read() {
                    Ok(Some(frame)) => frame.refuse(),
                    Ok(None) => break,
                    Err(reason) => {
                        self.core.end(LinkDeath::Protocol(reason));
                        break;
                    }
                }
            }
        }
        let head = self.core.memory.word(end_word(self.span, RingEnd::Consumer));
        let before = head.swap(self.head << SHIFT | CLOSED, Ordering::AcqRel);
        self.core.ring(head, before | self.owed);
    }
}
