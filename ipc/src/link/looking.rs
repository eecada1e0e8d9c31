//! An executor that looks at a link before it sleeps.
//!
//! As long as a thread looks, the tasks that wait there raise no flag: their progress is found by
//! comparing words, and the peer makes no system call for it. Only when the executor is going to
//! sleep, all flags go up, with one more look at each word.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::Waker;
use std::time::{Duration, Instant};

use executor::{IdlePoller, Lookout};

use super::core::Core;
use super::pace::Pace;

/// Whether the executor of a process looks at its link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Looking {
    /// For as long as that has been paying.
    WhileItPays,
    /// Never: right where the peer cannot run meanwhile.
    Never,
}

impl Looking {
    /// While it pays, or never if there is one processor only for both ends.
    pub fn for_this_host() -> Self {
        if executor::must_share_processor() { Self::Never } else { Self::WhileItPays }
    }
}

thread_local! {
    /// Its address stands for the thread. True while the thread blocks: its executor, should it
    /// have one, neither looks nor sleeps then.
    static HERE: Cell<bool> = const { Cell::new(false) };
}

/// Runs `wait`, during which the thread sleeps without its executor.
pub(crate) fn blocking<T>(wait: impl FnOnce() -> T) -> T {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            HERE.set(self.0);
        }
    }
    let _restore = Restore(HERE.replace(true));
    wait()
}

/// Which thread looks at a link.
#[derive(Default)]
pub(crate) struct Looker(AtomicUsize);

impl Looker {
    fn address() -> usize {
        HERE.with(|here| (&raw const *here).addr())
    }

    /// Whether the calling thread is the one, and runs its executor.
    pub(crate) fn is_here(&self) -> bool {
        let looker = self.0.load(Ordering::Relaxed);
        looker != 0 && looker == Self::address() && !HERE.get()
    }

    fn come(&self) {
        self.0.store(Self::address(), Ordering::Relaxed);
    }

    fn leave(&self) {
        // Unless another thread has begun to look.
        let _ = self.0.compare_exchange(Self::address(), 0, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// The look of one executor at one link.
struct LinkLookout {
    link: Weak<Core>,
    /// Tasks of the link whose flags are not raised.
    unflagged: Arc<AtomicUsize>,
    pace: RefCell<Pace>,
    /// It was patient, and has neither found anything since nor slept.
    looking: Cell<bool>,
    /// When the executor went to sleep without having looked, after the last wait had begun.
    slept: Cell<Option<Instant>>,
    scratch: RefCell<Vec<Waker>>,
}

impl LinkLookout {
    fn is_waited_for(&self) -> bool {
        self.unflagged.load(Ordering::Relaxed) > 0
    }

    fn with_link(&self, act: impl FnOnce(&Core, &mut Vec<Waker>) -> bool) -> bool {
        // Not borrowed while tasks are woken.
        let mut scratch = self.scratch.take();
        let found = self.link.upgrade().is_some_and(|core| act(&core, &mut scratch));
        self.scratch.replace(scratch);
        if found && self.looking.take() {
            self.pace.borrow_mut().found();
        }
        found
    }
}

impl Lookout for LinkLookout {
    fn look(&self) -> bool {
        self.is_waited_for() && self.with_link(Core::wake_tasks)
    }

    fn patience(&self) -> Duration {
        // Who waited already when the executor slept last was not heard of since.
        if !self.is_waited_for() {
            return Duration::ZERO;
        }
        let mut pace = self.pace.borrow_mut();
        if let Some(slept) = self.slept.take() {
            pace.slept(slept.elapsed());
        }
        let patience = pace.patience();
        self.looking.set(!patience.is_zero());
        patience
    }

    fn before_sleep(&self) -> bool {
        if !self.is_waited_for() {
            return false;
        }
        if self.with_link(Core::raise_flags) {
            return true;
        }
        if self.looking.take() {
            self.pace.borrow_mut().missed();
        } else {
            self.slept.set(Some(Instant::now()));
        }
        false
    }
}

impl Drop for LinkLookout {
    fn drop(&mut self) {
        if let Some(core) = self.link.upgrade() {
            core.looker.leave();
            core.raise_flags(&mut Vec::new());
        }
    }
}

/// Registers a look at the link with this thread's executor.
pub(crate) fn look_when_idle(core: &Arc<Core>) -> IdlePoller {
    let lookout = LinkLookout {
        link: Arc::downgrade(core),
        unflagged: core.sleepers.unflagged(),
        pace: RefCell::new(Pace::new()),
        looking: Cell::new(false),
        slept: Cell::new(None),
        scratch: RefCell::default(),
    };
    let poller = executor::idle_poller(Rc::new(lookout));
    core.looker.come();
    poller
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_thread_that_looks_waits_without_flags_and_not_while_it_blocks() {
        let looker = Looker::default();
        assert!(!looker.is_here());
        looker.come();
        assert!(looker.is_here());
        std::thread::scope(|scope| scope.spawn(|| assert!(!looker.is_here())).join().unwrap());
        blocking(|| {
            assert!(!looker.is_here());
            blocking(|| assert!(!looker.is_here()));
            assert!(!looker.is_here());
        });
        assert!(looker.is_here());
        looker.leave();
        assert!(!looker.is_here());
    }

    #[test]
    fn the_thread_that_looks_now_is_not_sent_away_by_the_last_one() {
        let looker = Looker::default();
        std::thread::scope(|scope| {
            looker.come();
            scope.spawn(|| looker.come()).join().unwrap();
            looker.leave();
        });
        assert_ne!(looker.0.load(Ordering::Relaxed), 0);
    }
}
