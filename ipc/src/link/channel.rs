//! The ends of channels that cross a link: typed messages over rings of frames.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::Context;

use super::core::{Core, LinkDeath, Slept};
use super::handle::RingId;
use super::ring::{self, Look, Producer, RingEnd, WriteError};
use crate::codec::{self, Refusal};
use crate::error::Unsendable;
use crate::{Deadline, Message};

/// What a local channel knows about its ends in other processes.
pub(crate) struct RemoteEnds<T> {
    /// Where the receiver has gone.
    pub(crate) moved: OnceLock<Arc<LinkSender<T>>>,
    /// Rings of senders that have gone, on their way to the receiver.
    arriving: Mutex<Vec<Source<T>>>,
    has_arriving: AtomicBool,
}

impl<T> Default for RemoteEnds<T> {
    fn default() -> Self {
        Self {
            moved: OnceLock::new(),
            arriving: Mutex::new(Vec::new()),
            has_arriving: AtomicBool::new(false),
        }
    }
}

impl<T> RemoteEnds<T> {
    /// A sender has gone to another process and writes to the ring of `source`.
    pub(crate) fn add_source(&self, source: Source<T>) {
        self.arriving.lock().unwrap_or_else(PoisonError::into_inner).push(source);
        self.has_arriving.store(true, Ordering::Release);
    }

    /// Rings that were added since the last time.
    pub(crate) fn take_sources(&self) -> Vec<Source<T>> {
        if !self.has_arriving.load(Ordering::Acquire) {
            return Vec::new();
        }
        let mut arriving = self.arriving.lock().unwrap_or_else(PoisonError::into_inner);
        self.has_arriving.store(false, Ordering::Relaxed);
        std::mem::take(&mut *arriving)
    }
}

/// What stands in the way of a message for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// The queue inside this process is full.
    FullQueue,
    /// The ring is full; the head of the consumer as it was then.
    FullRing(u64),
    /// Too many calls are unanswered.
    NoReplySlot,
}

/// Why a message was not written. It comes back where that is of use.
#[derive(Debug)]
pub(crate) enum LinkSendError<T> {
    Blocked(T, Obstacle),
    Closed(T),
    PeerDied(T),
    Unsendable(Unsendable),
}

/// The sending end of a channel whose receiver is at the other end of a link.
pub(crate) struct LinkSender<T> {
    producer: Producer,
    messages: PhantomData<fn(T)>,
}

impl<T> LinkSender<T> {
    pub(crate) fn capacity(&self) -> usize {
        self.producer.capacity()
    }
}

impl<T: Message> LinkSender<T> {
    pub(crate) fn new(producer: Producer) -> Self {
        Self { producer, messages: PhantomData }
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        self.producer.core()
    }

    pub(crate) fn try_send(&self, message: T) -> Result<(), LinkSendError<T>> {
        self.send_in_turn(&mut self.producer.lock(), message)
    }

    fn send_in_turn(
        &self,
        turn: &mut ring::ProducerState,
        message: T,
    ) -> Result<(), LinkSendError<T>> {
        let written = self.producer.check(turn).and_then(|()| {
            codec::with_draft(&message, |draft| self.producer.write(turn, draft))
                .unwrap_or_else(|refusal| Err(WriteError::Refused(refusal)))
        });
        written.map_err(|error| match error {
            WriteError::Full(head) => LinkSendError::Blocked(message, Obstacle::FullRing(head)),
            WriteError::NoReplySlot => LinkSendError::Blocked(message, Obstacle::NoReplySlot),
            WriteError::Closed => LinkSendError::Closed(message),
            WriteError::Dead => LinkSendError::PeerDied(message),
            WriteError::Refused(refusal) => LinkSendError::Unsendable(refusal.into()),
        })
    }

    /// Runs `enqueue`, which makes other senders of the channel come here, and takes what it hands
    /// over before anything that they send.
    pub(crate) fn take_over(&self, enqueue: impl FnOnce(&mut dyn FnMut(T))) {
        let mut turn = self.producer.lock();
        enqueue(&mut |message| {
            if let Err(error) = self.send_in_turn(&mut turn, message) {
                let why = match error {
                    LinkSendError::Blocked(..) => "its ring is too small",
                    LinkSendError::Closed(_) => "the peer has closed it",
                    LinkSendError::PeerDied(_) => "the peer is gone",
                    LinkSendError::Unsendable(_) => "it cannot cross",
                };
                log::error!(
                    "a {} that was queued when its receiver moved is lost: {why}",
                    std::any::type_name::<T>()
                );
            }
        });
    }

    /// Prepares a task to sleep until there may be room; the caller tries once more after it.
    pub(crate) fn arm(&self, key: &mut Option<usize>, context: &Context<'_>) {
        self.producer.arm(key, context);
    }

    /// Lets the thread sleep until the consumer has moved on from `seen`.
    pub(crate) fn sleep(&self, seen: u64, deadline: Deadline) -> Slept {
        self.producer.sleep(seen, deadline)
    }

    /// The sending end for a ring that the peer made.
    pub(crate) fn from_peer(core: &Arc<Core>, ring: RingId) -> Result<Self, &'static str> {
        let ring = ring.check(core)?;
        Ok(Self::new(Producer::new(Arc::clone(core), ring.span, ring.capacity, None)))
    }

    /// The sending end for a new ring, of which the peer gets the receiving end.
    pub(crate) fn for_peer(core: &Arc<Core>, capacity: usize) -> Result<(Self, RingId), Refusal> {
        let allocated = core.arena.allocate(&core.memory, capacity, RingEnd::Consumer);
        let (span, lease) = allocated.ok_or(Refusal::NoRoom)?;
        let producer = Producer::new(Arc::clone(core), span, capacity, Some(lease));
        Ok((Self::new(producer), RingId { span, capacity }))
    }
}

/// What a ring had.
pub(crate) enum Pulled<T> {
    Message(T),
    Empty,
    /// The sender was closed in good order and everything was taken.
    Closed,
    /// The peer died, or broke the protocol.
    Died,
}

/// A ring from which a receiver gets messages of another process.
pub(crate) struct Source<T> {
    consumer: ring::Consumer,
    messages: PhantomData<fn() -> T>,
}

impl<T: Message> Source<T> {
    pub(crate) fn new(consumer: ring::Consumer) -> Self {
        Self { consumer, messages: PhantomData }
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        self.consumer.core()
    }

    pub(crate) fn pull(&mut self) -> Pulled<T> {
        match self.consumer.look() {
            Look::Frame if self.core().is_readable() => self.take(),
            Look::Empty if !self.core().is_dead() => Pulled::Empty,
            Look::Closed => Pulled::Closed,
            // What came just before the death is delivered first.
            Look::Empty if self.core().is_readable() && self.consumer.look() == Look::Frame => {
                self.take()
            }
            Look::Frame | Look::Empty => Pulled::Died,
        }
    }

    fn take(&mut self) -> Pulled<T> {
        let reason = match self.consumer.read() {
            Ok(Some(frame)) => match frame.decode() {
                Ok(message) => return Pulled::Message(message),
                Err(reason) => reason,
            },
            Ok(None) => return Pulled::Empty,
            Err(reason) => reason,
        };
        self.core().end(LinkDeath::Protocol(reason));
        Pulled::Died
    }

    /// Prepares a task to sleep. True when there is something to look at already.
    pub(crate) fn arm(&mut self, context: &Context<'_>) -> bool {
        self.consumer.arm(context)
    }

    /// Lets the thread sleep until there may be a message.
    pub(crate) fn sleep(&self, deadline: Deadline) -> Slept {
        self.consumer.sleep(deadline)
    }

    /// The receiving end for a ring that the peer made, and its capacity.
    pub(crate) fn from_peer(core: &Arc<Core>, ring: RingId) -> Result<Self, &'static str> {
        let ring = ring.check(core)?;
        Ok(Self::new(ring::Consumer::new(Arc::clone(core), ring.span, None)))
    }

    /// The receiving end for a new ring, of which the peer gets the sending end.
    pub(crate) fn for_peer(core: &Arc<Core>, capacity: usize) -> Result<(Self, RingId), Refusal> {
        let allocated = core.arena.allocate(&core.memory, capacity, RingEnd::Producer);
        let (span, lease) = allocated.ok_or(Refusal::NoRoom)?;
        let consumer = ring::Consumer::new(Arc::clone(core), span, Some(lease));
        Ok((Self::new(consumer), RingId { span, capacity }))
    }
}
