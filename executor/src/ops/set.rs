//! Many operations under way at once for one task: what a device back end lives on.
//!
//! ```text
//!   submit ──▶ places: [ payload | iovecs ] × capacity     the kernel works on what payloads guard
//!                 ▲                 │ completion
//!       free list │                 ▼
//!   next ◀─────── done: ring of (place, result) ── wakes the one waiting task, once per batch
//! ```
//!
//! Everything is allocated when the set is made. Each operation takes a place until its result is
//! taken, so the ring of results cannot overflow.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::ptr::NonNull;
use std::rc::Rc;
use std::task::{Context, Poll};

use libc::iovec;

use super::Operation;
use super::future::to_result;
use super::op::{Op, What};
use super::slots::{State, Token};
use crate::core::{self, Core};
use crate::fd::Fd;
use crate::task::group::Abandoned;
use crate::task::waker::LocalWaker;

/// The most segments that Linux takes in one vectored operation (`UIO_MAXIOV`).
const MAX_SEGMENTS: usize = 1024;

/// The set has no free place; here is the payload back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full<T>(pub T);

impl<T> std::fmt::Display for Full<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the set of operations is full")
    }
}

impl<T: std::fmt::Debug> std::error::Error for Full<T> {}

/// A fixed number of places for operations, each with a payload of type `T` that owns or guards
/// the memory of its operation.
///
/// Dropping the set cancels what is in flight; payloads are dropped as the completions arrive.
pub struct OpSet<T: 'static> {
    set: NonNull<SetInner<T>>,
}

/// The part of a set that completions work on, without the payload's type.
pub(crate) struct SetHeader {
    /// Places whose operations are complete, in order; a ring.
    done: Box<[Cell<(u32, i32)>]>,
    done_head: Cell<u32>,
    done_len: Cell<u32>,
    /// Operations that the kernel or the driver still works on.
    pending: Cell<u32>,
    waker: RefCell<Option<LocalWaker>>,
    /// The `OpSet` is gone; the last completion frees the set.
    orphaned: Cell<bool>,
    group: Cell<Option<Abandoned>>,
    drop_payload: unsafe fn(NonNull<SetHeader>, u32),
    free: unsafe fn(NonNull<SetHeader>),
}

/// `header` comes first, so a pointer to the set is one to the header.
#[repr(C)]
struct SetInner<T> {
    header: SetHeader,
    core: Rc<Core>,
    places: RefCell<Box<[Place<T>]>>,
    free: Cell<Option<u32>>,
    used: Cell<usize>,
}

struct Place<T> {
    payload: Option<T>,
    /// The operation in flight, to cancel it.
    in_flight: Option<(Token, Fd)>,
    /// Kept for its capacity.
    segments: Vec<iovec>,
    next_free: Option<u32>,
}

impl SetHeader {
    /// Takes the result of one operation.
    ///
    /// # Safety
    ///
    /// The set is alive, and the operation at `index` was in flight until now.
    pub(crate) unsafe fn complete(this: NonNull<SetHeader>, core: &Core, index: u32, result: i32) {
        // SAFETY: alive by the contract.
        let header = unsafe { this.as_ref() };
        header.pending.set(header.pending.get() - 1);
        if header.orphaned.get() {
            // SAFETY: the set is alive, and the operation that used the payload is over.
            unsafe { (header.drop_payload)(this, index) };
            if header.pending.get() == 0 {
                let group = header.group.take();
                // SAFETY: neither the `OpSet` nor any operation refers to it any more.
                unsafe { (header.free)(this) };
                if let Some(group) = group {
                    group.completed(core);
                }
            }
            return;
        }
        let position = (header.done_head.get() + header.done_len.get()) as usize;
        let capacity = header.done.len();
        let position = if position < capacity { position } else { position - capacity };
        header.done[position].set((index, result));
        header.done_len.set(header.done_len.get() + 1);
        let waker = header.waker.borrow_mut().take();
        if let Some(waker) = waker {
            waker.wake(core);
        }
    }

    fn pop(&self) -> Option<(u32, i32)> {
        let len = self.done_len.get();
        if len == 0 {
            return None;
        }
        let head = self.done_head.get();
        let entry = self.done[head as usize].get();
        let next = head + 1;
        self.done_head.set(if next as usize == self.done.len() { 0 } else { next });
        self.done_len.set(len - 1);
        Some(entry)
    }
}

impl<T: 'static> OpSet<T> {
    /// A set with `capacity` places, for the executor that runs on this thread.
    ///
    /// # Panics
    ///
    /// When no executor runs on this thread, or `capacity` is zero or more than 2³⁰.
    pub fn with_capacity(capacity: usize) -> Self {
        let core = core::current().expect("an OpSet needs an executor that runs on this thread");
        assert!((1..=1 << 30).contains(&capacity), "an OpSet has between 1 and 2^30 places");
        let place = |index: usize| Place {
            payload: None,
            in_flight: None,
            segments: Vec::new(),
            next_free: (index + 1 < capacity).then_some(index as u32 + 1),
        };
        let set = Box::new(SetInner {
            header: SetHeader {
                done: vec![Cell::new((0, 0)); capacity].into(),
                done_head: Cell::new(0),
                done_len: Cell::new(0),
                pending: Cell::new(0),
                waker: RefCell::new(None),
                orphaned: Cell::new(false),
                group: Cell::new(None),
                drop_payload: SetInner::<T>::drop_payload,
                free: SetInner::<T>::free,
            },
            core,
            places: RefCell::new((0..capacity).map(place).collect()),
            free: Cell::new(Some(0)),
            used: Cell::new(0),
        });
        // SAFETY: a box is not null.
        let set = unsafe { NonNull::new_unchecked(Box::into_raw(set)) };
        OpSet { set }
    }

    fn inner(&self) -> &SetInner<T> {
        // SAFETY: the set is freed after this handle was dropped at the earliest.
        unsafe { self.set.as_ref() }
    }

    /// Starts an operation with the next visit to the kernel. Its payload comes back with the
    /// result from [`next`](Self::next).
    pub fn submit(&mut self, op: Op<'_>, payload: T) -> Result<(), Full<T>> {
        let inner = self.inner();
        let Some(index) = inner.free.get() else {
            return Err(Full(payload));
        };
        let operation = {
            let place = &mut inner.places.borrow_mut()[index as usize];
            inner.free.set(place.next_free);
            place.payload = Some(payload);
            place.prepare(op.what)
        };
        inner.used.set(inner.used.get() + 1);
        inner.header.pending.set(inner.header.pending.get() + 1);
        let state = State::Set { set: self.set.cast(), index };
        let token = inner.core.submit(&op.file.inner, operation, state);
        let place = &mut inner.places.borrow_mut()[index as usize];
        place.in_flight = Some((token, op.file.clone()));
        Ok(())
    }

    /// The next completion, in the order in which they arrive. Waits for one, also when nothing is
    /// in flight.
    pub async fn next(&mut self) -> (T, io::Result<u32>) {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// [`next`](Self::next) for hand-written futures.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<(T, io::Result<u32>)> {
        if let Some(completion) = self.try_next() {
            return Poll::Ready(completion);
        }
        let inner = self.inner();
        let mut waker = inner.header.waker.borrow_mut();
        let previous = LocalWaker::store(&mut waker, context.waker(), &inner.core);
        drop(waker);
        drop(previous);
        Poll::Pending
    }

    /// A completion that is there already.
    pub fn try_next(&mut self) -> Option<(T, io::Result<u32>)> {
        let inner = self.inner();
        let (index, result) = inner.header.pop()?;
        let payload = inner.take_payload(index)?;
        Some((payload, to_result(result)))
    }

    /// Operations submitted whose results were not taken yet.
    pub fn in_flight(&self) -> usize {
        self.inner().used.get()
    }

    /// Operations submitted that are not over yet.
    pub fn waiting(&self) -> usize {
        self.inner().header.pending.get() as usize
    }

    /// How many operations fit.
    pub fn capacity(&self) -> usize {
        self.inner().header.done.len()
    }

    /// Asks the kernel to give up what is in flight. Everything still completes, mostly with
    /// `ECANCELED`.
    pub fn cancel_all(&mut self) {
        self.inner().cancel_all();
    }

    /// Cancels what is in flight, waits for it, and drops all payloads. Afterwards the set is
    /// empty and can be used again.
    pub async fn cancel_and_drain(&mut self) {
        self.cancel_all();
        while self.in_flight() > 0 {
            drop(self.next().await);
        }
    }
}

impl<T> Place<T> {
    /// Turns a list of segments into something that stays valid.
    fn prepare(&mut self, what: What<'_>) -> Operation {
        let (segments, offset, read) = match what {
            What::Plain(operation) => return operation,
            What::Read { segments, offset } => (segments, offset, true),
            What::Write { segments, offset } => (segments, offset, false),
        };
        if let [segment] = segments
            && let Ok(length) = u32::try_from(segment.iov_len)
        {
            let pointer: *mut u8 = segment.iov_base.cast();
            return if read {
                Operation::Read { pointer, length, offset }
            } else {
                Operation::Write { pointer, length, offset }
            };
        }
        self.segments.clear();
        // A count that is too large is refused before the list is looked at.
        self.segments.extend_from_slice(&segments[..segments.len().min(MAX_SEGMENTS)]);
        let iovecs = self.segments.as_ptr();
        let count = segments.len().min(MAX_SEGMENTS + 1) as u32;
        if read {
            Operation::ReadVectored { iovecs, count, offset }
        } else {
            Operation::WriteVectored { iovecs, count, offset }
        }
    }
}

impl<T> SetInner<T> {
    /// Empties a place whose operation is over.
    fn take_payload(&self, index: u32) -> Option<T> {
        let (payload, file) = {
            let place = &mut self.places.borrow_mut()[index as usize];
            place.next_free = self.free.replace(Some(index));
            (place.payload.take(), place.in_flight.take())
        };
        self.used.set(self.used.get() - 1);
        drop(file);
        payload
    }

    fn cancel_all(&self) {
        // Cancelling only queues or marks; no completion is handled meanwhile.
        for place in &*self.places.borrow() {
            if let Some((token, file)) = &place.in_flight {
                self.core.cancel(*token, &file.inner);
            }
        }
    }

    unsafe fn drop_payload(header: NonNull<SetHeader>, index: u32) {
        // SAFETY: the function belongs to this set, which is alive.
        let inner = unsafe { header.cast::<Self>().as_ref() };
        drop(inner.take_payload(index));
    }

    unsafe fn free(header: NonNull<SetHeader>) {
        // SAFETY: made by `Box::into_raw`; this is its last use.
        drop(unsafe { Box::from_raw(header.cast::<Self>().as_ptr()) });
    }
}

impl<T: 'static> Drop for OpSet<T> {
    fn drop(&mut self) {
        let inner = self.inner();
        // Results that nobody took: their payloads go now.
        while let Some((index, _)) = inner.header.pop() {
            drop(inner.take_payload(index));
        }
        drop(inner.header.waker.borrow_mut().take());
        if inner.header.pending.get() == 0 {
            // SAFETY: nothing else refers to the set.
            unsafe { SetInner::<T>::free(self.set.cast()) };
            return;
        }
        inner.header.group.set(Abandoned::of_current_task(&inner.core));
        inner.header.orphaned.set(true);
        inner.cancel_all();
    }
}

impl<T: 'static> std::fmt::Debug for OpSet<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpSet")
            .field("capacity", &self.capacity())
            .field("in_flight", &self.in_flight())
            .finish()
    }
}
