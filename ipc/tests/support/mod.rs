//! What the tests share: the smallest executor there is, and deadlines that only a hang reaches.

#![allow(dead_code, unreachable_pub, reason = "not every test uses every helper")]

pub mod requests;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use executor::DriverChoice;
use ipc::link::LinkEnd;
use ipc::{Deadline, Message};

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
    on_driver(DriverChoice::Auto, future)
}

/// Drives a future on a new executor with this driver.
pub fn on_driver<F: Future>(driver: DriverChoice, future: F) -> F::Output {
    let config = executor::Config { driver, ..executor::Config::default() };
    executor::Executor::new(&config).unwrap().block_on(future)
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

/// A forked process.
pub struct Process(libc::pid_t);

/// Forks a process that runs `body` with one end of a link and exits. The caller has one thread.
pub fn fork<Out: Message, In: Message>(
    end: LinkEnd<Out, In>,
    body: impl FnOnce(LinkEnd<Out, In>),
) -> Process {
    assert_eq!(std::fs::read_dir("/proc/self/task").unwrap().count(), 1, "one thread only");
    // SAFETY: there is no other thread whose locks the child could find held for ever.
    match unsafe { libc::fork() } {
        -1 => panic!("cannot fork: {}", std::io::Error::last_os_error()),
        0 => {
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| body(end)));
            // SAFETY: ends this process at once, without what belongs to the parent.
            unsafe { libc::_exit(if outcome.is_ok() { 0 } else { 101 }) }
        }
        child => Process(child),
    }
}

impl Process {
    /// Kills it; it is not waited for.
    pub fn kill(&self) {
        self.signal(libc::SIGKILL);
    }

    /// Stops it, and returns when it has stopped.
    pub fn stop(&self) {
        self.signal(libc::SIGSTOP);
        let mut status = 0;
        // SAFETY: `status` outlives the call.
        let stopped = unsafe { libc::waitpid(self.0, &raw mut status, libc::WUNTRACED) };
        assert!(stopped == self.0 && libc::WIFSTOPPED(status));
    }

    fn signal(&self, signal: libc::c_int) {
        // SAFETY: a child that was not waited for keeps its number.
        assert_eq!(unsafe { libc::kill(self.0, signal) }, 0);
    }

    /// Waits until it has ended: its exit status, `None` when a signal ended it.
    pub fn wait(self) -> Option<i32> {
        let mut status = 0;
        // SAFETY: `status` outlives the call.
        assert_eq!(unsafe { libc::waitpid(self.0, &raw mut status, 0) }, self.0);
        libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status))
    }
}
