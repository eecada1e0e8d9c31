//! A wish for news, from the message loop to the task that can ask the guest.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Poll, Waker};

/// Made by one, waited for by another.
#[derive(Debug, Default)]
pub(super) struct Wish {
    made: Cell<bool>,
    waiting: RefCell<Option<Waker>>,
}

impl Wish {
    pub(super) fn make(&self) {
        self.made.set(true);
        if let Some(waker) = self.waiting.take() {
            waker.wake();
        }
    }

    /// Whether it was made since the last call.
    pub(super) fn take(&self) -> bool {
        self.made.take()
    }

    /// Wait until it is made, and take it.
    pub(super) async fn made(&self) {
        poll_fn(|context| {
            if self.take() {
                return Poll::Ready(());
            }
            self.waiting.replace(Some(context.waker().clone()));
            Poll::Pending
        })
        .await;
    }
}
