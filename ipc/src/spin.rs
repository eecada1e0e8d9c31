//! How a thread without an executor waits: it looks for a while, then it sleeps.
//!
//! A peer that runs on another processor answers within a microsecond or two; going to sleep and
//! being woken costs several times that. A peer that needs the same processor cannot answer while
//! somebody looks. Which of the two it is changes with what else the machine does, so a thread
//! remembers: looking that paid is done again, looking in vain is done more and more rarely.

use std::cell::Cell;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use crate::Deadline;
use crate::link::looking;

/// Longest time to look before sleeping: about what a sleep, a wake-up and two changes of context
/// cost together inside a virtual machine, so looking at most doubles the cost of a wait.
const LONGEST: Duration = Duration::from_micros(50);
/// Looks between two readings of the clock.
const LOOKS_PER_READING: u32 = 32;
/// Pauses before the first look. A receiver that is as fast as its sender and looks at once gets
/// each message alone and takes the cache line from the sender for it; a moment later there are
/// several, and it stays behind. Measured: three times the throughput for 15 ns of latency.
const FIRST_PAUSES: u32 = 2;
/// After so many misses in a row, each doubling the number of waits without looking, it does not
/// get rarer: one wait in 64 finds out whether looking pays again, for less than a microsecond on
/// average.
const MOST_MISSES: u32 = 6;
/// Times to give the processor away before sleeping: a peer that waits for this processor runs then
/// and answers without having to wake anybody. More would only burn time when it is elsewhere.
const YIELDS: u32 = 2;

/// What a thread remembers of its waits.
#[derive(Clone, Copy)]
struct Memory {
    /// Times in a row that looking did not pay.
    misses: u32,
    /// Waits left without looking.
    skip: u32,
}

thread_local! {
    static MEMORY: Cell<Memory> = const { Cell::new(Memory { misses: 0, skip: 0 }) };
    static SLEEPER: Waker = Waker::from(Arc::new(Sleeper(std::thread::current())));
}

/// How often a thread looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// All the time, for a message or an answer: what counts is when it is seen.
    Message,
    /// Now and then, for room in a full channel. The receiver makes room by the message, and each
    /// look takes the cache line from it that it needs for that; a bit later there is more room.
    Room,
}

impl Pace {
    fn pauses(self) -> u32 {
        match self {
            Self::Message => 1,
            Self::Room => 32,
        }
    }
}

/// Looks with `attempt` for as long as that has been paying on this thread.
pub(crate) fn look<T>(pace: Pace, mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
    if let Some(found) = attempt() {
        return Some(found);
    }
    let memory = MEMORY.get();
    if memory.skip > 0 {
        MEMORY.set(Memory { skip: memory.skip - 1, ..memory });
    } else if let Some(found) = spin(pace, &mut attempt) {
        MEMORY.set(Memory { misses: 0, skip: 0 });
        return Some(found);
    } else {
        let misses = (memory.misses + 1).min(MOST_MISSES);
        MEMORY.set(Memory { misses, skip: (1 << misses) - 1 });
    }
    (0..YIELDS).find_map(|_| {
        std::thread::yield_now();
        attempt()
    })
}

fn spin<T>(pace: Pace, attempt: &mut impl FnMut() -> Option<T>) -> Option<T> {
    (0..FIRST_PAUSES).for_each(|_| std::hint::spin_loop());
    let mut start = None;
    loop {
        for _ in 0..LOOKS_PER_READING {
            (0..pace.pauses()).for_each(|_| std::hint::spin_loop());
            if let Some(found) = attempt() {
                return Some(found);
            }
        }
        // The clock itself costs as much as some looks, so the first ones do without.
        if start.get_or_insert_with(Instant::now).elapsed() >= LONGEST {
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
            if let Poll::Ready(ready) = looking::blocking(|| poll(&mut context)) {
                return Some(ready);
            }
            std::thread::park_timeout(deadline.remaining()?);
        }
    })
}
