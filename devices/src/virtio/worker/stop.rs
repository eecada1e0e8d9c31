//! How the message loop ends the tasks that serve queues.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// How to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopMode {
    /// Take nothing new, finish and publish what is in flight.
    Drain,
    /// Take nothing new, cancel what is in flight, publish nothing.
    Abort,
}

/// Tells tasks of the same thread to stop. Clones are the same signal.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    shared: Rc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    mode: Cell<Option<StopMode>>,
    waiting: RefCell<Vec<Waker>>,
}

impl Stop {
    /// Not stopped.
    pub fn new() -> Self {
        Self::default()
    }

    /// Tell everybody. The first call counts.
    pub fn stop(&self, mode: StopMode) {
        if self.shared.mode.get().is_none() {
            self.shared.mode.set(Some(mode));
        }
        for waker in self.shared.waiting.take() {
            waker.wake();
        }
    }

    /// Whether and how to stop.
    pub fn mode(&self) -> Option<StopMode> {
        self.shared.mode.get()
    }

    /// Ready when it is time to stop; wakes the task of `context` then.
    pub fn poll(&self, context: &Context<'_>) -> Poll<StopMode> {
        if let Some(mode) = self.mode() {
            return Poll::Ready(mode);
        }
        // One waker for each task: as many as there are queues.
        let mut waiting = self.shared.waiting.borrow_mut();
        if !waiting.iter().any(|known| known.will_wake(context.waker())) {
            waiting.push(context.waker().clone());
        }
        Poll::Pending
    }

    /// Wait until it is time to stop.
    pub async fn stopped(&self) -> StopMode {
        poll_fn(|context| self.poll(context)).await
    }
}
