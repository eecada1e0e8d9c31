//! The executor and its loop.

use std::collections::hash_map::RandomState;
use std::future::Future;
use std::hash::BuildHasher;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustix::event::EventfdFlags;

use crate::config::{Config, DriverKind};
use crate::core::{self, Core, Stats};
use crate::driver::Driver;
use crate::error::Error;
use crate::remote::{Remote, Shared};
use crate::task::cell::MainCell;
use crate::task::header::TaskRef;
use crate::task::waker;
use crate::time::instant::Instant;

/// Task polls between two visits to the kernel when tasks never run out. Large enough that a full
/// queue of completions is served in one turn, small enough that I/O waits for some ten
/// microseconds at most behind tasks that only wake each other. Those that do more [tell the time](tell_time).
const POLLS_PER_TURN: u32 = 256;

/// An executor for one thread; see the [crate]'s description.
///
/// Make it on the thread that runs it, after any fork. Dropping it drops all its tasks, cancels
/// all operations and waits until the kernel has let go of every buffer.
pub struct Executor {
    // Before `core`, which its release still needs.
    main: TaskRef,
    core: Rc<Core>,
    kind: DriverKind,
}

impl Executor {
    /// Sets up an executor for the calling thread.
    pub fn new(config: &Config) -> Result<Self, Error> {
        // Whoever moves this thread later does it on purpose.
        crate::processors::must_share_processor();
        let doorbell = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|errno| Error::Doorbell(errno.into()))?;
        let shared = Arc::new(Shared::new(doorbell));
        let driver = crate::driver::open(config, &shared)?;
        Ok(Self::with_driver(shared, driver, config))
    }

    pub(crate) fn with_driver(
        shared: Arc<Shared>,
        driver: Box<dyn Driver>,
        config: &Config,
    ) -> Self {
        let kind = driver.kind();
        let main = MainCell::allocate(Arc::as_ptr(&shared));
        // SAFETY: it comes with one counted reference.
        let main = unsafe { TaskRef::from_counted(main) };
        let core = Core::new(shared, driver, config.idle_spin, config.entries as usize);
        Executor { main, core: Rc::new(core), kind }
    }

    /// Which driver it uses.
    pub fn driver(&self) -> DriverKind {
        self.kind
    }

    /// A handle for other threads.
    pub fn remote(&self) -> Remote {
        Remote::new(Arc::clone(self.core.shared()))
    }

    /// What it has done so far.
    pub fn stats(&self) -> Stats {
        self.core.stats()
    }

    /// Runs `future` and the tasks it spawns until `future` is ready. Tasks that are not finished
    /// then go on in the next call. What they and `future` have queued until then, wake-ups of other
    /// executors above all, is under way when this returns.
    pub fn block_on<F: Future>(&mut self, future: F) -> F::Output {
        let core = &*self.core;
        let _entered = core::enter(&self.core);
        let _flushed = FlushedAtEnd(core);
        let mut future = pin!(future);
        // SAFETY: `self.main` outlives the loop.
        let waker = unsafe { waker::borrowed(self.main.as_ptr()) };
        let mut context = Context::from_waker(&waker);
        core.main_woken.set(true);
        loop {
            core.shared().drain(core);
            for _ in 0..POLLS_PER_TURN {
                if core.main_woken.take() {
                    core.count_poll();
                    if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
                        return output;
                    }
                }
                let Some(task) = core.next_ready() else {
                    break;
                };
                crate::task::run(core, &task);
                if core.turn_is_long() {
                    break;
                }
            }
            core.turn();
        }
    }
}

/// Hands over what is queued when it is dropped. No turn follows that would do so, and others may
/// wait for it: wake-ups of executors on other threads go through this one's ring.
struct FlushedAtEnd<'a>(&'a Core);

impl Drop for FlushedAtEnd<'_> {
    fn drop(&mut self) {
        self.0.driver().drain();
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        let _entered = core::enter(&self.core);
        self.core.shut_down();
        self.main.retire();
    }
}

impl std::fmt::Debug for Executor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Executor").field("driver", &self.kind).finish_non_exhaustive()
    }
}

/// A handle for other threads to the executor that runs on this one, if one does.
pub fn remote() -> Option<Remote> {
    core::with_current(|core| core.map(|core| Remote::new(Arc::clone(core.shared()))))
}

/// The driver of the executor that runs on this thread, if one does.
pub fn driver() -> Option<DriverKind> {
    core::with_current(|core| core.map(|core| core.driver().kind()))
}

/// A number that no other process is likely to have had, for names that must not be taken for those of
/// others. Not for secrets.
pub fn random() -> u64 {
    core::with_current(|core| {
        core.map_or_else(|| RandomState::new().hash_one(()), |core| core.driver().random())
    })
}

/// What the executor that runs on this thread has done so far.
pub fn stats() -> Option<Stats> {
    core::with_current(|core| core.map(Core::stats))
}

/// Hands everything that was queued to the kernel now. For code that is about to block the thread
/// by other means; operations, signals and wake-ups would otherwise wait for the end of the turn. A
/// [`KernelThread`](crate::KernelThread) takes them a moment later.
pub fn flush() {
    core::with_current(|core| {
        if let Some(core) = core {
            core.driver().flush();
        }
    });
}

/// Tells the executor the time, from a task that has just looked at the clock and goes on for long without waiting
/// for the kernel. A turn that has lasted for some ten microseconds ends with this poll, so that others get what they
/// wait for.
pub fn tell_time(now: Instant) {
    core::with_current(|core| {
        if let Some(core) = core {
            core.tell_time(now);
        }
    });
}

/// As [`flush`], and takes what has completed. For a task that has more of its work waiting for what the
/// kernel completes at once: it goes on without a turn of the executor in between.
pub fn visit() {
    core::with_current(|core| {
        if let Some(core) = core {
            core.visit();
        }
    });
}
