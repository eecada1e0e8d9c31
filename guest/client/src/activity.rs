//! When something last came through streams, and how much.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use executor::Instant;

/// Clones note the same.
#[derive(Clone, Debug)]
pub struct Activity(Rc<State>);

#[derive(Debug)]
struct State {
    last: Cell<Instant>,
    bytes: Cell<u64>,
}

impl Default for Activity {
    fn default() -> Self {
        Activity(Rc::new(State { last: Cell::new(executor::now()), bytes: Cell::new(0) }))
    }
}

impl Activity {
    /// Notes that something happens now.
    pub fn note(&self) {
        self.0.last.set(executor::now());
    }

    /// Notes that bytes came through now.
    pub(crate) fn passed(&self, count: usize) {
        self.note();
        self.0.bytes.set(self.0.bytes.get() + count as u64);
    }

    /// How many bytes came through.
    pub fn bytes(&self) -> u64 {
        self.0.bytes.get()
    }

    /// Waits until nothing has happened for so long.
    pub async fn idle_for(&self, time: Duration) {
        loop {
            let due = self.0.last.get() + time;
            if executor::now() >= due {
                return;
            }
            executor::sleep_until(due).await;
        }
    }
}
