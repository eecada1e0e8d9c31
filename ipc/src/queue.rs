//! The queue inside a local channel: bounded, many producers, one consumer, no lock.
//!
//! ```text
//!   tail       position of the next message to write │ RECEIVER_WAITING, gone and moved flags
//!   seen_head  how far the consumer had come when a producer last had to look
//!   head       position of the next message to read  │ SENDERS_WAITING flag
//!
//!   slots      [ stamp, message ][ stamp, message ] ...    a power of two of them
//!                stamp == position + 1: the slot holds the message of `position`
//! ```
//!
//! Positions only grow. The waiting flags live in the same word as the position that the other side
//! moves, so that one atomic operation publishes progress and learns that somebody sleeps: no fence
//! and no further load on the path without waiters. The consumer writes only its head, and producers
//! read that only when the queue seems full: what one side writes, the other mostly does not touch.

use std::mem::MaybeUninit;
use std::task::{Context, Poll, Waker};

use crate::link::channel::RemoteEnds;
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::sync::{Arc, IS_MODEL, UnsafeCell};
use crate::waiters::Waiters;

/// The consumer sleeps and its waker is in the cell.
const RECEIVER_WAITING: usize = 1;
/// The consumer is gone: nothing can be sent any more.
const RECEIVER_GONE: usize = 1 << 1;
/// All producers are gone: what is queued is the rest.
const SENDERS_GONE: usize = 1 << 2;
/// The consumer has moved to another process: producers must send there.
const MOVED: usize = 1 << 3;
/// Positions stand above the flags.
const SHIFT: u32 = 4;

/// In the head word: at least one producer waits for a free slot.
const SENDERS_WAITING: usize = 1;

/// Looks of the consumer at a slot that a producer has claimed and not yet filled. Filling takes
/// nanoseconds; only a producer that lost its processor in between takes longer.
const FILL_SPINS: u32 = if IS_MODEL { 1 } else { 128 };

/// Two cache lines: adjacent lines are fetched in pairs.
#[repr(align(128))]
struct Padded<T>(T);

struct Slot<T> {
    stamp: AtomicUsize,
    message: UnsafeCell<MaybeUninit<T>>,
}

/// Why a message was not queued. The message comes back.
#[derive(Debug)]
pub(crate) enum PushError<T> {
    /// Every slot is taken.
    Full(T),
    /// The consumer is gone.
    Closed(T),
    /// The consumer lives in another process now.
    Moved(T),
}

/// The part that producers share with the one [`Consumer`].
pub(crate) struct Queue<T> {
    tail: Padded<Tail>,
    head: Padded<AtomicUsize>,
    /// The waker of the sleeping consumer; see `WakerCell` for who may touch it.
    sleeper: WakerCell,
    pub(crate) full_waiters: Waiters,
    /// Live producers.
    senders: AtomicUsize,
    /// Ends of this channel in other processes.
    pub(crate) remote: RemoteEnds<T>,
    capacity: usize,
    slots: Box<[Slot<T>]>,
}

/// What producers write.
struct Tail {
    word: AtomicUsize,
    seen_head: AtomicUsize,
}

// SAFETY: messages are moved in by one thread and out by another, never shared, so `T: Send`,
// which every message is, is enough; the cells are handed over by the stamps and flags as described
// above.
unsafe impl<T: Send> Send for Queue<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Queue<T> {}

/// Where the consumer leaves its waker.
///
/// The consumer owns the cell while `armed` is false. It sets `armed` before it raises the waiting
/// flag; whoever lowers that flag owns the cell from then on, and when that is a producer it hands
/// the cell back by clearing `armed`.
struct WakerCell {
    armed: AtomicBool,
    waker: UnsafeCell<Option<Waker>>,
}

impl<T> Queue<T> {
    /// A queue for exactly `capacity` messages, with one producer, and its only consumer.
    pub(crate) fn new(capacity: usize) -> (Arc<Self>, Consumer<T>) {
        assert!(capacity >= 1, "a channel holds at least one message");
        assert!(capacity < 1 << 24, "a channel of 2^24 messages is not a bound");
        let slots = (0..capacity.next_power_of_two())
            .map(|_| Slot {
                stamp: AtomicUsize::new(0),
                message: UnsafeCell::new(MaybeUninit::uninit()),
            })
            .collect();
        let tail = Tail { word: AtomicUsize::new(0), seen_head: AtomicUsize::new(0) };
        let queue = Arc::new(Self {
            tail: Padded(tail),
            head: Padded(AtomicUsize::new(0)),
            sleeper: WakerCell { armed: AtomicBool::new(false), waker: UnsafeCell::new(None) },
            full_waiters: Waiters::new(),
            senders: AtomicUsize::new(1),
            remote: RemoteEnds::default(),
            capacity,
            slots,
        });
        let consumer = Consumer { queue: Arc::clone(&queue), position: 0 };
        (queue, consumer)
    }

    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    fn slot(&self, position: usize) -> &Slot<T> {
        &self.slots[position & (self.slots.len() - 1)]
    }

    /// Whether the message of `position` is one more than there may be.
    fn is_full(&self, position: usize) -> bool {
        // A position that other producers have passed meanwhile may be behind the head, as a
        // negative distance; the exchange that follows finds out.
        let beyond = |head: usize| position.wrapping_sub(head) as isize >= self.capacity as isize;
        if !beyond(self.tail.0.seen_head.load(Ordering::Acquire)) {
            return false;
        }
        let head = self.head.0.load(Ordering::Acquire) >> SHIFT;
        self.tail.0.seen_head.store(head, Ordering::Release);
        beyond(head)
    }

    /// Queues a message or says why not.
    pub(crate) fn try_push(&self, message: T) -> Result<(), PushError<T>> {
        let mut word = self.tail.0.word.load(Ordering::Relaxed);
        loop {
            if word & (RECEIVER_GONE | MOVED) != 0 {
                return Err(if word & MOVED == 0 {
                    PushError::Closed(message)
                } else {
                    PushError::Moved(message)
                });
            }
            let position = word >> SHIFT;
            if self.is_full(position) {
                return Err(PushError::Full(message));
            }
            let next = (word + (1 << SHIFT)) & !RECEIVER_WAITING;
            match self.tail.0.word.compare_exchange_weak(
                word,
                next,
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => {
                    let slot = self.slot(position);
                    // SAFETY: the exchange made this thread the only one to have claimed the
                    // position, and the head, acquired before, is past what the slot held.
                    slot.message.with_mut(|slot| unsafe { (*slot).write(message) });
                    slot.stamp.store(position + 1, Ordering::Release);
                    if word & RECEIVER_WAITING != 0 {
                        // SAFETY: the exchange cleared the flag.
                        unsafe { self.wake_sleeper() };
                    }
                    return Ok(());
                }
                Err(current) => word = current,
            }
        }
    }

    /// Tells sleeping producers that one more asks to be woken when a slot gets free. The caller
    /// is in `full_waiters` already and looks again after this.
    pub(crate) fn request_free_slot(&self) {
        self.head.0.fetch_or(SENDERS_WAITING, Ordering::AcqRel);
    }

    /// Wakes one producer that waits for a free slot.
    pub(crate) fn notify_one_full_waiter(&self) {
        // The flag goes up again before the list can change, so that the next free slot wakes the
        // next in line.
        self.full_waiters.notify(1, || self.request_free_slot());
    }

    /// One more producer.
    pub(crate) fn add_sender(&self) {
        let before = self.senders.fetch_add(1, Ordering::Relaxed);
        assert!(before < usize::MAX / 2, "the count of senders overflows");
    }

    /// One producer less; the last one finishes the queue.
    pub(crate) fn drop_sender(&self) {
        if self.senders.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.raise(SENDERS_GONE);
        }
    }

    /// Wakes the consumer although nothing was queued: something else changed for it.
    pub(crate) fn nudge(&self) {
        self.raise(0);
    }

    /// Sets flags in the tail word and wakes the consumer.
    fn raise(&self, flags: usize) {
        let mut word = self.tail.0.word.load(Ordering::Relaxed);
        loop {
            let next = (word | flags) & !RECEIVER_WAITING;
            match self.tail.0.word.compare_exchange_weak(
                word,
                next,
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => break,
                Err(current) => word = current,
            }
        }
        if word & RECEIVER_WAITING != 0 {
            // SAFETY: the exchange cleared the flag.
            unsafe { self.wake_sleeper() };
        }
    }

    /// # Safety
    /// The caller has just cleared `RECEIVER_WAITING`, which made it the owner of the cell.
    #[cold]
    unsafe fn wake_sleeper(&self) {
        // SAFETY: the caller owns the cell until `armed` is cleared.
        let waker = self.sleeper.waker.with_mut(|waker| unsafe { (*waker).take() });
        self.sleeper.armed.store(false, Ordering::Release);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The reading end of a [`Queue`]. There is one per queue, and it is not clonable.
pub(crate) struct Consumer<T> {
    queue: Arc<Queue<T>>,
    position: usize,
}

impl<T> Consumer<T> {
    pub(crate) fn queue(&self) -> &Arc<Queue<T>> {
        &self.queue
    }

    /// Takes the oldest message if one is there.
    pub(crate) fn try_pop(&mut self) -> Option<T> {
        let queue = &*self.queue;
        let slot = queue.slot(self.position);
        if slot.stamp.load(Ordering::Acquire) != self.position + 1 {
            return None;
        }
        // SAFETY: the stamp says that the slot holds the message of this position, and only this
        // consumer reads slots; moving the head below gives the slot back exactly once.
        let message = slot.message.with_mut(|slot| unsafe { (*slot).assume_init_read() });
        self.position += 1;
        let head = queue.head.0.swap(self.position << SHIFT, Ordering::AcqRel);
        if head & SENDERS_WAITING != 0 {
            self.admit_waiters();
        }
        Some(message)
    }

    /// Wakes producers that wait for free slots, once half of the slots are free. One wake-up per
    /// slot would make both sides sleep and wake for each message when the producers are faster.
    #[cold]
    fn admit_waiters(&self) {
        let queue = &*self.queue;
        let tail = queue.tail.0.word.load(Ordering::Relaxed) >> SHIFT;
        let free = queue.capacity - (tail - self.position);
        // The flag was lowered, and stays up while anybody waits.
        if free < queue.capacity.div_ceil(2) {
            queue.request_free_slot();
        } else {
            queue.full_waiters.notify(free, || queue.request_free_slot());
        }
    }

    /// Whether nothing is queued and nothing can be queued any more.
    pub(crate) fn is_finished(&self) -> bool {
        let word = self.queue.tail.0.word.load(Ordering::Acquire);
        word & SENDERS_GONE != 0 && word >> SHIFT == self.position
    }

    /// The next message; `None` when all producers are gone and everything was taken.
    pub(crate) fn poll_pop(&mut self, context: &mut Context<'_>) -> Poll<Option<T>> {
        if let Some(message) = self.try_pop() {
            return Poll::Ready(Some(message));
        }
        if !self.reclaim_sleeper() {
            // A producer holds the previous waker this instant; look again in the next turn.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        // SAFETY: `reclaim_sleeper` says that the consumer owns the cell.
        self.queue.sleeper.waker.with_mut(|stored| unsafe {
            if !(*stored).as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
                *stored = Some(context.waker().clone());
            }
        });
        self.queue.sleeper.armed.store(true, Ordering::Relaxed);
        let word = self.queue.tail.0.word.fetch_or(RECEIVER_WAITING, Ordering::AcqRel);
        if word >> SHIFT == self.position {
            if word & SENDERS_GONE == 0 {
                return Poll::Pending;
            }
            self.reclaim_sleeper();
            return Poll::Ready(None);
        }
        // A producer claimed a slot before it could see the flag, so it will not wake anybody.
        self.reclaim_sleeper();
        for _ in 0..FILL_SPINS {
            if let Some(message) = self.try_pop() {
                return Poll::Ready(Some(message));
            }
            crate::sync::spin_loop();
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Makes the consumer the owner of the waker cell; false while a producer is using it.
    fn reclaim_sleeper(&self) -> bool {
        let sleeper = &self.queue.sleeper;
        if !sleeper.armed.load(Ordering::Acquire) {
            return true;
        }
        let word = self.queue.tail.0.word.fetch_and(!RECEIVER_WAITING, Ordering::AcqRel);
        if word & RECEIVER_WAITING != 0 {
            sleeper.armed.store(false, Ordering::Relaxed);
            return true;
        }
        !sleeper.armed.load(Ordering::Acquire)
    }

    /// Refuses further messages and gives `visit` each one that was queued before.
    fn finish(&mut self, flag: usize, mut visit: impl FnMut(T)) {
        let end = self.queue.tail.0.word.fetch_or(flag, Ordering::AcqRel) >> SHIFT;
        while self.position != end {
            match self.try_pop() {
                Some(message) => visit(message),
                // Claimed, not yet filled: the producer is about to.
                None => crate::sync::yield_now(),
            }
        }
        self.queue.full_waiters.notify_all();
    }

    /// The consumer goes to another process: producers get [`PushError::Moved`] from now on, and
    /// `visit` gets what was queued before.
    pub(crate) fn move_away(&mut self, visit: impl FnMut(T)) {
        self.finish(MOVED, visit);
    }
}

impl<T> Drop for Consumer<T> {
    fn drop(&mut self) {
        self.finish(RECEIVER_GONE, drop);
        if self.reclaim_sleeper() {
            // SAFETY: the consumer owns the cell. The waker would keep its task alive for as long
            // as a producer lives.
            drop(self.queue.sleeper.waker.with_mut(|waker| unsafe { (*waker).take() }));
        }
    }
}
