//! How a thread without an executor waits: it looks for a while, then it sleeps.
//!
//! A peer that runs on another processor answers within a microsecond or two; going to sleep and
//! being woken costs several times that. Looking costs the processor, so its length adapts: it
//! grows while it pays and shrinks to almost nothing while it does not.

use std::cell::Cell;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use crate::Deadline;

/// Longest time to look before sleeping: about what a sleep, a wake-up and two changes of context
/// cost together inside a virtual machine, so looking at most doubles the cost of a wait.
const LONGEST: Duration = Duration::from_micros(50);
/// Shortest time to look: enough to notice that it would pay again.
const SHORTEST: Duration = Duration::from_micros(2);
/// Looks between two readings of the clock.
const LOOKS_PER_READING: u32 = 16;

thread_local! {
    static SPIN: Cell<Duration> = const { Cell::new(LONGEST) };
    static SLEEPER: Waker = Waker::from(Arc::new(Sleeper(std::thread::current())));
}

/// Looks with `attempt` for as long as that has been paying on this thread.
pub(crate) fn look<T>(mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
    let length = SPIN.get();
    let start = Instant::now();
    loop {
        for _ in 0..LOOKS_PER_READING {
            if let Some(found) = attempt() {
                SPIN.set((length * 2).min(LONGEST));
                return Some(found);
            }
            std::hint::spin_loop();
        }
        if start.elapsed() >= length {
            SPIN.set((length / 2).max(SHORTEST));
            return None;
        }
    }
}

struct Sleeper(Thread);

impl Wake for Sleeper {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

/// Drives `poll` on the calling thread until it is ready or the deadline has passed (`None`).
pub(crate) fn block_until<T>(
    deadline: Deadline,
    mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
) -> Option<T> {
    SLEEPER.with(|waker| {
        let mut context = Context::from_waker(waker);
        loop {
            if let Poll::Ready(ready) = poll(&mut context) {
                return Some(ready);
            }
            std::thread::park_timeout(deadline.remaining()?);
        }
    })
}
