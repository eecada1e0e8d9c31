//! Something that happens once, and that several tasks wait for.

use std::cell::RefCell;
use std::future::poll_fn;
use std::task::{Poll, Waker};

/// Something that happens once.
#[derive(Debug)]
pub(super) struct Announcement<T> {
    state: RefCell<State<T>>,
}

#[derive(Debug)]
enum State<T> {
    Awaited(Vec<Waker>),
    Made(T),
}

impl<T> Default for Announcement<T> {
    fn default() -> Self {
        Self { state: RefCell::new(State::Awaited(Vec::new())) }
    }
}

impl<T: Clone> Announcement<T> {
    /// It has happened.
    pub(super) fn make(&self, what: T) {
        let before = self.state.replace(State::Made(what));
        if let State::Awaited(wakers) = before {
            wakers.into_iter().for_each(Waker::wake);
        }
    }

    /// Waits until it has happened.
    pub(super) async fn wait(&self) -> T {
        poll_fn(|context| match &mut *self.state.borrow_mut() {
            State::Made(what) => Poll::Ready(what.clone()),
            State::Awaited(wakers) => {
                if !wakers.iter().any(|waker| waker.will_wake(context.waker())) {
                    wakers.push(context.waker().clone());
                }
                Poll::Pending
            }
        })
        .await
    }
}
