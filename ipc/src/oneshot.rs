//! The place where one answer arrives.
//!
//! ```text
//!   EMPTY ⇄ WAITING      the caller leaves its waker, or takes it back
//!     │        │
//!     └────────┴──▶ ANSWERED | REFUSED      set once, by the reply port
//! ```

use std::cell::UnsafeCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Waker};

use crate::error::CallError;

const EMPTY: u8 = 0;
const WAITING: u8 = 1;
const ANSWERED: u8 = 2;
const REFUSED: u8 = 3;

/// Shared by the caller ([`Waiting`]) and the reply port ([`Port`]).
pub(crate) struct OneShot<R> {
    state: AtomicU8,
    /// Owned by the caller in EMPTY, by the port from the moment it leaves WAITING.
    waker: UnsafeCell<Option<Waker>>,
    /// Written by the port before ANSWERED, read by the caller after it.
    answer: UnsafeCell<Option<R>>,
}

// SAFETY: the answer is moved from one thread to another, never shared; the cells are handed over
// by `state` as their comments say.
unsafe impl<R: Send> Send for OneShot<R> {}
// SAFETY: as above.
unsafe impl<R: Send> Sync for OneShot<R> {}

/// A place for one answer, seen from both sides.
pub(crate) fn oneshot<R>() -> (Port<R>, Waiting<R>) {
    let shared = Arc::new(OneShot {
        state: AtomicU8::new(EMPTY),
        waker: UnsafeCell::new(None),
        answer: UnsafeCell::new(None),
    });
    (
        Port {
            shared: Arc::clone(&shared),
        },
        Waiting { shared },
    )
}

impl<R> OneShot<R> {
    /// Ends the wait with `outcome` unless it has ended.
    fn settle(&self, outcome: u8) {
        let mut state = self.state.load(Ordering::Relaxed);
        loop {
            if state != EMPTY && state != WAITING {
                return;
            }
            match self.state.compare_exchange_weak(
                state,
                outcome,
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => break,
                Err(current) => state = current,
            }
        }
        if state == WAITING {
            // SAFETY: leaving WAITING made this side the owner of the waker.
            if let Some(waker) = unsafe { (*self.waker.get()).take() } {
                waker.wake();
            }
        }
    }
}

/// The side that answers. There is one, and answering consumes it.
pub(crate) struct Port<R> {
    shared: Arc<OneShot<R>>,
}

impl<R> Port<R> {
    pub(crate) fn answer(self, answer: R) {
        // SAFETY: only the one port writes the answer, it does so once because this consumes it,
        // and the caller does not read before ANSWERED.
        unsafe { *self.shared.answer.get() = Some(answer) };
        self.shared.settle(ANSWERED);
    }
}

impl<R> Drop for Port<R> {
    fn drop(&mut self) {
        self.shared.settle(REFUSED);
    }
}

/// The side that waits for the answer.
pub(crate) struct Waiting<R> {
    shared: Arc<OneShot<R>>,
}

impl<R> Waiting<R> {
    /// The answer if it is there; does not wait.
    pub(crate) fn try_take(&mut self) -> Option<Result<R, CallError>> {
        match self.shared.state.load(Ordering::Acquire) {
            ANSWERED => {
                // SAFETY: ANSWERED hands the answer to this side, of which there is one.
                let answer = unsafe { (*self.shared.answer.get()).take() };
                Some(answer.ok_or(CallError::Refused))
            }
            REFUSED => Some(Err(CallError::Refused)),
            _ => None,
        }
    }

    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<R, CallError>> {
        if let Some(outcome) = self.try_take() {
            return Poll::Ready(outcome);
        }
        // Takes a waker of an earlier poll back; fails when the wait has just ended.
        let _ = self.shared.state.compare_exchange(
            WAITING,
            EMPTY,
            Ordering::Acquire,
            Ordering::Acquire,
        );
        if self.shared.state.load(Ordering::Acquire) == EMPTY {
            // SAFETY: in EMPTY the waker belongs to this side.
            let stored = unsafe { &mut *self.shared.waker.get() };
            if !stored
                .as_ref()
                .is_some_and(|waker| waker.will_wake(context.waker()))
            {
                *stored = Some(context.waker().clone());
            }
            if self
                .shared
                .state
                .compare_exchange(EMPTY, WAITING, Ordering::AcqRel, Ordering::Acquire)
                .is_ok()
            {
                return Poll::Pending;
            }
        }
        self.try_take().map_or_else(
            // Not reached: the state is past WAITING. A turn costs less than a panic.
            || {
                context.waker().wake_by_ref();
                Poll::Pending
            },
            Poll::Ready,
        )
    }
}
