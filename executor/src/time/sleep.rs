//! Sleeping, by the executor's clock.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::wheel::TimerKey;
use crate::core::{self, Core};
use crate::task::waker::LocalWaker;
use crate::time::instant::Instant;

/// The time by the clock that timers go by.
pub fn now() -> Instant {
    core::with_current(|core| core.map_or_else(Instant::of_host, |core| core.driver().now()))
}

/// Waits for so long.
pub fn sleep(duration: Duration) -> Sleep {
    let now = now();
    // The last instant that there is, is as good as never.
    Sleep { created: now, deadline: now + duration, timer: None }
}

/// Waits until then.
pub fn sleep_until(deadline: Instant) -> Sleep {
    Sleep { created: now(), deadline, timer: None }
}

/// The future of [`sleep`] and [`sleep_until`]. Never ready before its deadline, and meant to be later
/// by a sixteenth of its length, a quarter of a millisecond at most.
#[must_use = "futures do nothing unless awaited"]
pub struct Sleep {
    /// Spares asking the clock again: the first poll mostly follows at once.
    created: Instant,
    deadline: Instant,
    timer: Option<(Rc<Core>, TimerKey)>,
}

impl Sleep {
    /// When it is over.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }
}

impl Future for Sleep {
    type Output = ();

    /// # Panics
    ///
    /// When no executor runs on this thread.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if let Some((core, key)) = &self.timer {
            let mut timers = core.timers.borrow_mut();
            let Some(waker) = timers.waker(*key) else {
                // It has fired.
                drop(timers);
                self.stop();
                self.created = self.deadline;
                return Poll::Ready(());
            };
            let previous = LocalWaker::store(waker, context.waker(), core);
            drop(timers);
            drop(previous);
            return Poll::Pending;
        }
        if self.created >= self.deadline {
            return Poll::Ready(());
        }
        let core = core::current().expect("sleep needs an executor that runs on this thread");
        let waker = LocalWaker::new(context.waker(), &core);
        let key = core.timers.borrow_mut().insert(self.created, self.deadline, waker);
        self.timer = Some((core, key));
        Poll::Pending
    }
}

impl Sleep {
    fn stop(&mut self) {
        if let Some((core, key)) = self.timer.take() {
            let waker = core.timers.borrow_mut().remove(key);
            drop(waker);
        }
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.stop();
    }
}

impl std::fmt::Debug for Sleep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sleep").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}
