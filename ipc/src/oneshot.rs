//! The place where one answer arrives.
//!
//! ```text
//!   EMPTY ⇄ WAITING      the caller leaves its waker, or takes it back
//!     │        │
//!     └────────┴──▶ ANSWERED | REFUSED      set once, by the reply port
//!              └──▶ FORWARDED               the port left for another process; the answer will
//!                                           arrive in a reply slot of the link
//! ```

use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};

use crate::codec::{Departing, Refusal};
use crate::error::CallError;
use crate::link::core::{Core, Slept};
use crate::link::handle::Handle;
use crate::link::slots::{SlotId, SlotWait};
use crate::spin::Pace;
use crate::{Deadline, Message, spin};

const EMPTY: u8 = 0;
const WAITING: u8 = 1;
const ANSWERED: u8 = 2;
const REFUSED: u8 = 3;
const FORWARDED: u8 = 4;

/// Shared by the caller ([`Waiting`]) and the reply port ([`Port`]).
pub(crate) struct OneShot<R> {
    state: AtomicU8,
    /// Owned by the caller in EMPTY, by the port from the moment it leaves WAITING.
    waker: UnsafeCell<Option<Waker>>,
    /// Written by the port before ANSWERED, read by the caller after it.
    answer: UnsafeCell<Option<R>>,
    /// Set before FORWARDED.
    forwarded: OnceLock<SlotWait>,
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
        forwarded: OnceLock::new(),
    });
    (Port { shared: Arc::clone(&shared) }, Waiting { shared })
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
    /// What leaves for another process in place of this port.
    pub(crate) fn shared(&self) -> &Arc<OneShot<R>> {
        &self.shared
    }

    pub(crate) fn answer(self, answer: R) {
        // SAFETY: only the one port writes the answer, it does so once because this consumes it,
        // and the caller does not read before ANSWERED. A port that was forwarded leads nowhere.
        unsafe { *self.shared.answer.get() = Some(answer) };
        self.shared.settle(ANSWERED);
    }
}

impl<R> Drop for Port<R> {
    fn drop(&mut self) {
        self.shared.settle(REFUSED);
    }
}

impl<R: Message> Departing for OneShot<R> {
    fn needs_reply_slot(&self) -> bool {
        true
    }

    fn depart(&self, core: &Arc<Core>, slots: &mut Vec<SlotId>) -> Result<Handle, Refusal> {
        let slot = slots.pop().ok_or(Refusal::NoRoom)?;
        if self.forwarded.set(SlotWait::new(core, slot)).is_err() {
            // The slot was given up with the value that was not stored.
            return Err(Refusal::ForeignHandle);
        }
        self.settle(FORWARDED);
        Ok(Handle::Reply(slot))
    }
}

/// The side that waits for the answer.
pub(crate) struct Waiting<R> {
    shared: Arc<OneShot<R>>,
}

impl<R: Message> Waiting<R> {
    /// The answer if it is there; does not wait.
    pub(crate) fn try_take(&mut self) -> Option<Result<R, CallError>> {
        match self.shared.state.load(Ordering::Acquire) {
            ANSWERED => {
                // SAFETY: ANSWERED hands the answer to this side, of which there is one.
                let answer = unsafe { (*self.shared.answer.get()).take() };
                Some(answer.ok_or(CallError::Refused))
            }
            REFUSED => Some(Err(CallError::Refused)),
            FORWARDED => self.shared.forwarded.get()?.try_take(),
            _ => None,
        }
    }

    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<R, CallError>> {
        let shared = &*self.shared;
        // Takes a waker of an earlier poll back; fails when there is none or the wait has ended.
        let _ = shared.state.compare_exchange(WAITING, EMPTY, Ordering::Acquire, Ordering::Relaxed);
        if shared.state.load(Ordering::Acquire) == EMPTY {
            // SAFETY: in EMPTY the waker belongs to this side.
            let stored = unsafe { &mut *shared.waker.get() };
            if !stored.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
                *stored = Some(context.waker().clone());
            }
            if shared
                .state
                .compare_exchange(EMPTY, WAITING, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
            {
                return Poll::Pending;
            }
        }
        if shared.state.load(Ordering::Acquire) == FORWARDED
            && let Some(slot) = shared.forwarded.get()
        {
            return slot.poll(context);
        }
        match self.try_take() {
            Some(outcome) => Poll::Ready(outcome),
            // Every state past WAITING has an outcome.
            None => Poll::Ready(Err(CallError::Refused)),
        }
    }

    /// Waits on a thread without an executor.
    pub(crate) fn block(&mut self, deadline: Deadline) -> Result<R, CallError> {
        if let Some(outcome) = spin::look(Pace::Message, || self.try_take()) {
            return outcome;
        }
        let forwarded = |waiting: &Self| {
            waiting.shared.state.load(Ordering::Acquire) == FORWARDED
                && waiting.shared.forwarded.get().is_some()
        };
        if !forwarded(self) {
            let settled = spin::block_until(deadline, |context| match self.poll(context) {
                Poll::Pending if !forwarded(self) => Poll::Pending,
                Poll::Pending => Poll::Ready(None),
                Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
            });
            match settled {
                Some(Some(outcome)) => return outcome,
                Some(None) => {}
                None => return Err(CallError::TimedOut),
            }
        }
        loop {
            if let Some(outcome) = self.try_take() {
                return outcome;
            }
            let slept = self.shared.forwarded.get().map(|slot| slot.sleep(deadline));
            if slept == Some(Slept::TimedOut) {
                return self.try_take().unwrap_or(Err(CallError::TimedOut));
            }
        }
    }
}
