//! The time of a world.

use std::cell::Cell;
use std::time::Duration;

use crate::time::instant::Instant;

/// What reading the clock costs: no loop that looks at it can run for ever.
const READING: Duration = Duration::from_nanos(40);
/// When a world begins: there is a time before.
const BEGINNING: Instant = Instant::from_nanos(1 << 40);

/// A clock that goes on when it is looked at, and when it is told to.
pub(super) struct Clock {
    elapsed: Cell<Duration>,
    /// When the executor wants to be woken.
    alarm: Option<Duration>,
}

impl Clock {
    pub(super) fn new() -> Self {
        Clock { elapsed: Cell::new(Duration::ZERO), alarm: None }
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.elapsed.get()
    }

    /// The time for those who live in the world.
    pub(super) fn now(&self) -> Instant {
        self.elapsed.set(self.elapsed.get() + READING);
        BEGINNING + self.elapsed.get()
    }

    pub(super) fn pass(&self, time: Duration) {
        self.elapsed.set(self.elapsed.get() + time);
    }

    /// The executor sleeps for so long at most.
    pub(super) fn sleep(&mut self, time: Option<Duration>) {
        self.alarm = time.map(|time| self.elapsed.get() + time);
    }

    pub(super) fn wake(&mut self) {
        self.alarm = None;
    }

    pub(super) fn alarm(&self) -> Option<Duration> {
        self.alarm
    }

    /// It is at least that late.
    pub(super) fn reach(&self, time: Duration) {
        self.elapsed.set(self.elapsed.get().max(time));
    }
}
