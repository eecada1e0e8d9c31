//! The future of one operation.
//!
//! ```text
//!   Idle(kind) ─ first poll ─▶ InFlight(token, kind) ─ completion ─▶ Finished
//!                                 │        ▲
//!                                 │ EAGAIN │ ready      (files that are non-blocking and that
//!                                 ▼        │             io_uring does not wait for itself)
//!                              AwaitingReadiness
//! ```
//!
//! Dropped in flight, it gives `kind`, with the buffers in it, to the slot.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::Operation;
use super::slots::{State, Token};
use crate::fd::FdInner;
use crate::task::group::Abandoned;
use crate::task::waker::LocalWaker;

/// One kind of operation with what it owns.
pub(crate) trait Kind: 'static {
    type Output;

    /// What to ask the kernel for. The pointers stay valid until `self` is dropped, also when it
    /// is moved.
    fn operation(&mut self) -> Operation;

    fn finish(self, result: io::Result<u32>) -> Self::Output;
}

pub(crate) struct Submission<K: Kind> {
    file: Rc<FdInner>,
    stage: Stage<K>,
}

enum Stage<K> {
    Idle(K),
    InFlight { token: Token, kind: K },
    AwaitingReadiness { token: Token, kind: K },
    Finished,
}

impl<K: Kind> Submission<K> {
    pub(crate) fn new(file: &Rc<FdInner>, kind: K) -> Self {
        Submission { file: Rc::clone(file), stage: Stage::Idle(kind) }
    }

    fn submit(&self, operation: Operation, context: &Context<'_>) -> Token {
        let core = &self.file.core;
        let waker = Some(LocalWaker::new(context.waker(), core));
        core.submit(&self.file, operation, State::Waiting { waker })
    }

    /// The result, or the waker is stored.
    fn result_of(&self, token: Token, context: &Context<'_>) -> Option<i32> {
        let core = &self.file.core;
        let mut slots = core.slots.borrow_mut();
        if let Some(result) = slots.take_result(token) {
            return Some(result);
        }
        let slot = slots.get(token).map(|slot| &mut slot.state);
        let Some(State::Waiting { waker }) = slot else {
            unreachable!("the slot of an operation belongs to its future");
        };
        let previous = LocalWaker::store(waker, context.waker(), core);
        drop(slots);
        drop(previous);
        None
    }
}

// Nothing in it is pinned: buffers are at stable addresses by the contract of `Kind`.
impl<K: Kind> Unpin for Submission<K> {}

impl<K: Kind> Future for Submission<K> {
    type Output = K::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<K::Output> {
        loop {
            match std::mem::replace(&mut self.stage, Stage::Finished) {
                Stage::Idle(mut kind) => {
                    let token = self.submit(kind.operation(), context);
                    self.stage = Stage::InFlight { token, kind };
                    return Poll::Pending;
                }
                Stage::InFlight { token, mut kind } => {
                    let Some(result) = self.result_of(token, context) else {
                        self.stage = Stage::InFlight { token, kind };
                        return Poll::Pending;
                    };
                    if result == -libc::EAGAIN
                        && let Some(flags) = kind.operation().readiness()
                    {
                        let token = self.submit(Operation::Poll { flags }, context);
                        self.stage = Stage::AwaitingReadiness { token, kind };
                        return Poll::Pending;
                    }
                    return Poll::Ready(kind.finish(to_result(result)));
                }
                Stage::AwaitingReadiness { token, kind } => {
                    let Some(result) = self.result_of(token, context) else {
                        self.stage = Stage::AwaitingReadiness { token, kind };
                        return Poll::Pending;
                    };
                    if result < 0 {
                        return Poll::Ready(kind.finish(to_result(result)));
                    }
                    self.stage = Stage::Idle(kind);
                }
                Stage::Finished => panic!("an operation was polled after it had finished"),
            }
        }
    }
}

impl<K: Kind> Drop for Submission<K> {
    fn drop(&mut self) {
        match std::mem::replace(&mut self.stage, Stage::Finished) {
            Stage::InFlight { token, kind } | Stage::AwaitingReadiness { token, kind } => {
                abandon(&self.file, token, kind);
            }
            Stage::Idle(_) | Stage::Finished => {}
        }
    }
}

/// Leaves an operation to the executor, with what it uses.
fn abandon<K: Kind>(file: &Rc<FdInner>, token: Token, kind: K) {
    let core = &file.core;
    let mut slots = core.slots.borrow_mut();
    let makes_descriptor = slots.get(token).is_some_and(|slot| slot.makes_descriptor());
    if let Some(result) = slots.take_result(token) {
        drop(slots);
        // It had completed. A descriptor that nobody asked for any more is closed.
        if makes_descriptor && result >= 0 {
            // SAFETY: the operation made it for the future that is being dropped.
            drop(unsafe { super::slots::descriptor(result) });
        }
        return;
    }
    let group = Abandoned::of_current_task(core);
    let Some(slot) = slots.get(token) else {
        return;
    };
    let state = State::Abandoned { storage: Some(Box::new(kind)), group };
    let previous = std::mem::replace(&mut slot.state, state);
    drop(slots);
    drop(previous);
    core.cancel(token, file);
}

pub(crate) fn to_result(result: i32) -> io::Result<u32> {
    if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(result as u32) }
}
