//! When something last came through the streams of a command.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Clones note the same.
#[derive(Clone, Debug)]
pub struct Activity(Rc<Cell<Instant>>);

impl Default for Activity {
    fn default() -> Self {
        Activity(Rc::new(Cell::new(executor::now())))
    }
}

impl Activity {
    /// Notes that something happens now.
    pub fn note(&self) {
        self.0.set(executor::now());
    }

    /// Waits until nothing has happened for so long.
    pub async fn idle_for(&self, time: Duration) {
        loop {
            let due = self.0.get() + time;
            if executor::now() >= due {
                return;
            }
            executor::sleep_until(due).await;
        }
    }
}
