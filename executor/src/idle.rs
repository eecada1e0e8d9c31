//! Looking for work before sleeping.
//!
//! ```text
//!   turn: look ──▶ nothing ──▶ is anybody patient? ──no──▶ before_sleep ──▶ sleep in the kernel
//!                                   │ yes                       ▲
//!                                   └─▶ look, look, look ───────┘ time is over
//! ```

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::{Rc, Weak};
use std::time::Duration;

use crate::core::{self, Core};
use crate::time::instant::Instant;

/// Where work may come from that the kernel does not report, or not as fast. What finds some wakes
/// the task concerned and says so by returning true. Nothing here may block.
///
/// A function that returns whether it has found work is one.
pub trait Lookout {
    /// Looks for work. Done in each turn, and again and again while it waits, so it must be cheap.
    fn look(&self) -> bool;

    /// How long looking again and again may pay now. Asked when nothing is ready.
    ///
    /// It counts from then on, once until something is found or the executor sleeps: what other work
    /// comes up in between does not prolong it.
    fn patience(&self) -> Duration {
        Duration::ZERO
    }

    /// The executor sleeps next unless this finds work: what arrives from here on must wake it.
    fn before_sleep(&self) -> bool {
        false
    }
}

impl<F: Fn() -> bool> Lookout for F {
    fn look(&self) -> bool {
        self()
    }
}

type Poller = Rc<dyn Lookout>;

pub(crate) struct IdlePollers {
    spin: Duration,
    pollers: RefCell<Vec<(u64, Poller)>>,
    next_id: Cell<u64>,
    /// When the patience of the pollers ends.
    expiry: Cell<Option<Instant>>,
}

impl IdlePollers {
    pub(crate) fn new(spin: Duration) -> Self {
        IdlePollers {
            spin,
            pollers: RefCell::default(),
            next_id: Cell::new(0),
            expiry: Cell::new(None),
        }
    }

    /// For how long to look for work now.
    pub(crate) fn patience(&self) -> Patience {
        let mut learned = Duration::ZERO;
        self.any(|poller| {
            learned = learned.max(poller.patience());
            false
        });
        Patience { fixed: self.spin, learned }
    }

    /// When looking ends that has begun about `now`.
    pub(crate) fn until(&self, now: Instant, patience: Patience) -> Instant {
        let expiry = self.expiry.get().unwrap_or(now + patience.learned);
        self.expiry.set(Some(expiry));
        expiry.max(now + patience.fixed)
    }

    /// Asks each poller until one has found work.
    pub(crate) fn look(&self) -> bool {
        let found = self.any(|poller| poller.look());
        if found {
            self.expiry.set(None);
        }
        found
    }

    /// Prepares each poller for a sleep, until one has found work.
    pub(crate) fn settle(&self) -> bool {
        self.expiry.set(None);
        self.any(|poller| poller.before_sleep())
    }

    fn any(&self, mut ask: impl FnMut(&dyn Lookout) -> bool) -> bool {
        let mut index = 0;
        loop {
            // Not borrowed during the call: a poller may add or remove one.
            let Some(poller) =
                self.pollers.borrow().get(index).map(|(_, poller)| Rc::clone(poller))
            else {
                return false;
            };
            if ask(&*poller) {
                return true;
            }
            index += 1;
        }
    }

    pub(crate) fn clear(&self) {
        drop(self.pollers.take());
    }
}

/// For how long an executor looks for work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Patience {
    /// [`Config::idle_spin`](crate::Config::idle_spin), each time.
    fixed: Duration,
    /// What pollers have said.
    learned: Duration,
}

impl Patience {
    pub(crate) fn is_none(self) -> bool {
        self.fixed.is_zero() && self.learned.is_zero()
    }
}

/// Registers a look for work: in each turn, and when nothing is ready again and again for
/// [`Config::idle_spin`](crate::Config::idle_spin) or its own [patience](Lookout::patience),
/// whichever is longer.
///
/// It is asked until the guard that is returned is dropped, or the executor has ended.
///
/// # Panics
///
/// When no executor runs on this thread.
pub fn idle_poller(poller: Rc<dyn Lookout>) -> IdlePoller {
    let core = core::current().expect("an idle poller needs an executor that runs on this thread");
    let id = core.idle.next_id.get();
    core.idle.next_id.set(id + 1);
    core.idle.pollers.borrow_mut().push((id, poller));
    IdlePoller { id, core: Rc::downgrade(&core) }
}

/// Keeps an idle poller registered.
#[must_use = "dropping the guard unregisters the poller"]
pub struct IdlePoller {
    id: u64,
    core: Weak<Core>,
}

impl Drop for IdlePoller {
    fn drop(&mut self) {
        if let Some(core) = self.core.upgrade() {
            let removed = {
                let mut pollers = core.idle.pollers.borrow_mut();
                let index = pollers.iter().position(|(id, _)| *id == self.id);
                index.map(|index| pollers.remove(index))
            };
            drop(removed);
        }
    }
}

impl fmt::Debug for IdlePoller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdlePoller").field("id", &self.id).finish_non_exhaustive()
    }
}
