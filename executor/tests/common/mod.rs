//! Runs every test on every driver, and buffers that notice when they die too early.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use executor::{
    Config, DriverChoice, Executor, Fd, IoBuf, IoBufMut, KernelFeatures, KernelThread, Submission,
};

/// One function per test and driver: the best ring this kernel gives, the plainest, one that a thread
/// of the kernel looks at, epoll.
#[allow(unused_macros, reason = "each test binary uses a part of it")]
macro_rules! on_each_driver {
    ($($(#[$attribute:meta])* fn $name:ident($executor:ident) $body:block)*) => {$(
        mod $name {
            #[allow(unused_imports)]
            use super::*;

            $(#[$attribute])*
            fn body(#[allow(unused_mut)] mut $executor: executor::Executor) $body

            #[test]
            fn uring() {
                body($crate::common::uring(executor::KernelFeatures::empty()));
            }

            #[test]
            fn plain_uring() {
                body($crate::common::uring(executor::KernelFeatures::all()));
            }

            #[test]
            fn watched_uring() {
                body($crate::common::watched_uring(executor::KernelThread::default()));
            }

            #[test]
            fn epoll() {
                body($crate::common::epoll());
            }
        }
    )*};
}
#[allow(unused_imports, reason = "each test binary uses a part of it")]
pub(crate) use on_each_driver;

/// These tests need `io_uring`; without it they fail rather than pass without testing.
pub(crate) fn uring(without: KernelFeatures) -> Executor {
    let config = Config { driver: DriverChoice::Uring, without, ..Config::default() };
    Executor::new(&config).expect("an io_uring, which the tests of this driver need")
}

/// A ring that a thread of the kernel takes operations from.
pub(crate) fn watched_uring(thread: KernelThread) -> Executor {
    let submission = Submission::ByKernelThread(thread);
    let config = Config { submission, ..Config::default() };
    Executor::new(&config).expect("an io_uring with a thread, which the tests of it need")
}

pub(crate) fn epoll() -> Executor {
    let config = Config { driver: DriverChoice::Epoll, ..Config::default() };
    Executor::new(&config).expect("an epoll")
}

/// Polls a future once, with a waker that does nothing.
pub(crate) fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Lets the loop turn until `condition` holds. A test in which it never does hangs, and is killed
/// by whoever runs it: that is a failure.
pub(crate) async fn turn_until(condition: impl Fn() -> bool) {
    while !condition() {
        executor::yield_now().await;
    }
}

/// Lets the loop turn until so many completions have come since the executor was made.
pub(crate) async fn turn_until_completed(count: u64) {
    turn_until(|| executor::stats().expect("an executor").completed >= count).await;
}

pub(crate) fn completed() -> u64 {
    executor::stats().expect("an executor").completed
}

pub(crate) fn submitted() -> u64 {
    executor::stats().expect("an executor").submitted
}

pub(crate) fn pipe() -> (Fd, OwnedFd) {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    (Fd::new(reader).expect("an Fd"), writer.into())
}

pub(crate) fn write_now(fd: impl AsFd, bytes: &[u8]) {
    assert_eq!(rustix::io::write(fd, bytes).expect("a write"), bytes.len());
}

pub(crate) fn eventfd() -> OwnedFd {
    use rustix::event::EventfdFlags;
    rustix::event::eventfd(0, EventfdFlags::CLOEXEC).expect("an eventfd")
}

const POISON: u8 = 0xdd;

thread_local! {
    /// Memory of dropped buffers. It is never freed, so that a late write of the kernel is seen.
    static GRAVEYARD: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer that tells when it is dropped, and whose memory is watched after that.
pub(crate) struct Tracked {
    memory: Option<Box<[u8]>>,
    dropped: Rc<Cell<bool>>,
}

impl Tracked {
    pub(crate) fn new(size: usize) -> (Self, Rc<Cell<bool>>) {
        let dropped = Rc::new(Cell::new(false));
        let memory = Some(vec![0; size].into_boxed_slice());
        (Tracked { memory, dropped: Rc::clone(&dropped) }, dropped)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.memory.as_deref().expect("alive")
    }

    pub(crate) fn fill(&mut self, byte: u8) {
        self.memory.as_deref_mut().expect("alive").fill(byte);
    }

    pub(crate) fn pointer(&mut self) -> *mut u8 {
        self.memory.as_deref_mut().expect("alive").as_mut_ptr()
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        let mut memory = self.memory.take().expect("dropped once");
        memory.fill(POISON);
        GRAVEYARD.with_borrow_mut(|graves| graves.push(memory));
        self.dropped.set(true);
    }
}

// SAFETY: the memory is boxed, and moves of the value do not move it.
unsafe impl IoBuf for Tracked {
    fn stable_ptr(&self) -> *const u8 {
        self.bytes().as_ptr()
    }
    fn bytes_init(&self) -> usize {
        self.bytes().len()
    }
}

// SAFETY: as above.
unsafe impl IoBufMut for Tracked {
    fn stable_mut_ptr(&mut self) -> *mut u8 {
        self.pointer()
    }
    fn bytes_total(&self) -> usize {
        self.bytes().len()
    }
    unsafe fn set_init(&mut self, _count: usize) {}
}

/// Nothing was written to a buffer after it was dropped.
pub(crate) fn assert_graves_untouched() {
    GRAVEYARD.with_borrow(|graves| {
        for memory in graves {
            // Volatile: the compiler need not know who else could have written.
            let touched = memory.iter().any(|byte| {
                // SAFETY: a reference is valid for reads.
                unsafe { std::ptr::from_ref(byte).read_volatile() != POISON }
            });
            assert!(!touched, "a buffer was written to after it was dropped");
        }
    });
}

/// Lets the loop turn so many times.
pub(crate) async fn yield_turns(turns: u64) {
    let until = executor::stats().expect("an executor").turns + turns;
    turn_until(|| executor::stats().expect("an executor").turns >= until).await;
}
