//! A value that comes once and that any number of tasks wait for.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// Clones are the same latch.
pub(crate) struct Latch<T>(Rc<RefCell<State<T>>>);

struct State<T> {
    value: Option<T>,
    /// Who waits, by the number that each got.
    waiting: Vec<(u64, Waker)>,
    next: u64,
}

impl<T: Clone> Latch<T> {
    pub(crate) fn new() -> Self {
        Latch(Rc::new(RefCell::new(State { value: None, waiting: Vec::new(), next: 0 })))
    }

    /// Sets the value and wakes who waits. The first value stays.
    pub(crate) fn set(&self, value: T) {
        let mut state = self.0.borrow_mut();
        state.value.get_or_insert(value);
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        for (_, waker) in waiting {
            waker.wake();
        }
    }

    pub(crate) fn get(&self) -> Option<T> {
        self.0.borrow().value.clone()
    }

    /// Waits for the value.
    pub(crate) async fn wait(&self) -> T {
        let place = Place { latch: self, number: self.number() };
        poll_fn(|context| {
            let mut state = self.0.borrow_mut();
            if let Some(value) = &state.value {
                return Poll::Ready(value.clone());
            }
            let waker = context.waker().clone();
            match state.waiting.iter_mut().find(|(number, _)| *number == place.number) {
                Some((_, stored)) => *stored = waker,
                None => state.waiting.push((place.number, waker)),
            }
            Poll::Pending
        })
        .await
    }

    fn number(&self) -> u64 {
        let mut state = self.0.borrow_mut();
        state.next += 1;
        state.next
    }
}

impl<T> Clone for Latch<T> {
    fn clone(&self) -> Self {
        Latch(Rc::clone(&self.0))
    }
}

/// Takes who stopped waiting off the list.
struct Place<'a, T> {
    latch: &'a Latch<T>,
    number: u64,
}

impl<T> Drop for Place<'_, T> {
    fn drop(&mut self) {
        self.latch.0.borrow_mut().waiting.retain(|(number, _)| *number != self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_get_the_first_value_and_none_stays_on_the_list() {
        let mut executor = executor::Executor::new(&executor::Config::default()).unwrap();
        executor.block_on(async {
            let latch = Latch::new();
            let tasks = [latch.clone(), latch.clone()]
                .map(|latch| executor::spawn(async move { latch.wait().await }));
            let impatient = executor::select(executor::yield_now(), latch.wait()).await;
            assert_eq!(impatient, executor::Either::Left(()));
            latch.set(1);
            latch.set(2);
            for task in tasks {
                assert_eq!(task.await, 1);
            }
            assert_eq!(latch.wait().await, 1);
            assert!(latch.0.borrow().waiting.is_empty());
        });
    }
}
