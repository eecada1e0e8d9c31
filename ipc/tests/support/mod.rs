//! What the tests share: the smallest executor there is, and deadlines that only a hang reaches.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "not every test uses every helper"
)]

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use ipc::Deadline;

/// Far beyond what any test takes.
pub fn far() -> Deadline {
    Deadline::after(Duration::from_mins(1))
}

/// A deadline that has passed.
pub fn passed() -> Deadline {
    Deadline::after(Duration::ZERO)
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Drives a future on the calling thread.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        std::thread::park();
    }
}

/// Drives a future on a new executor of the calling thread.
pub fn on_executor<F: Future>(future: F) -> F::Output {
    executor::Executor::new(&executor::Config::default())
        .unwrap()
        .block_on(future)
}

/// A waker that counts.
#[derive(Default)]
pub struct Count(AtomicUsize);

impl Count {
    pub fn new() -> (Arc<Self>, Waker) {
        let count = Arc::new(Self::default());
        (Arc::clone(&count), Waker::from(count))
    }

    pub fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}
