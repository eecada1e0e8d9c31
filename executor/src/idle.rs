//! Looking for work before sleeping.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::{Rc, Weak};
use std::time::Duration;

use crate::core::{self, Core};

type Poller = Rc<dyn Fn() -> bool>;

pub(crate) struct IdlePollers {
    spin: Duration,
    pollers: RefCell<Vec<(u64, Poller)>>,
    next_id: Cell<u64>,
}

impl IdlePollers {
    pub(crate) fn new(spin: Duration) -> Self {
        IdlePollers { spin, pollers: RefCell::default(), next_id: Cell::new(0) }
    }

    pub(crate) fn spin(&self) -> Duration {
        self.spin
    }

    /// Whether there is anything to do before sleeping.
    pub(crate) fn is_used(&self) -> bool {
        !self.spin.is_zero() || !self.pollers.borrow().is_empty()
    }

    /// Asks each poller until one has found work.
    pub(crate) fn poll(&self) -> bool {
        let mut index = 0;
        loop {
            // Not borrowed during the call: a poller may add or remove one.
            let Some(poller) =
                self.pollers.borrow().get(index).map(|(_, poller)| Rc::clone(poller))
            else {
                return false;
            };
            if poller() {
                return true;
            }
            index += 1;
        }
    }

    pub(crate) fn clear(&self) {
        drop(self.pollers.take());
    }
}

/// Registers a function that looks for work whenever the executor is about to sleep: once, and
/// again and again for [`Config::idle_spin`](crate::Config::idle_spin). It returns true when it
/// has found some, having woken the task concerned. It must be short and must not block.
///
/// It is called until the guard that is returned is dropped.
///
/// # Panics
///
/// When no executor runs on this thread.
pub fn idle_poller(poller: Rc<dyn Fn() -> bool>) -> IdlePoller {
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
