//! Why a task does nothing for a while although it could.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use executor::Sleep;

use crate::rate_limit::{Admission, RateLimiter};

/// Tells tasks that wait for nothing else that something they go by has changed.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    version: Cell<u64>,
    waiting: RefCell<Vec<Waker>>,
}

impl Changes {
    pub(crate) fn version(&self) -> u64 {
        self.version.get()
    }

    pub(crate) fn notify(&self) {
        self.version.set(self.version.get() + 1);
        for waker in self.waiting.take() {
            waker.wake();
        }
    }

    /// Wake the task of `context` at the next change.
    pub(crate) fn register(&self, context: &Context<'_>) {
        // One for each queue.
        let mut waiting = self.waiting.borrow_mut();
        if !waiting.iter().any(|known| known.will_wake(context.waker())) {
            waiting.push(context.waker().clone());
        }
    }
}

/// A rest, or none.
#[derive(Debug)]
pub(crate) enum Rest {
    None,
    /// For so long.
    Nap(Sleep),
    /// For so long, or for ever, or until something changed since this version.
    Limited(Option<Sleep>, u64),
}

impl Rest {
    pub(crate) fn nap(duration: Duration) -> Self {
        Self::Nap(executor::sleep(duration))
    }

    /// A rest if the limiter asks for one.
    #[inline]
    pub(crate) fn for_limit(limiter: &RefCell<RateLimiter>, changes: &Changes) -> Self {
        let mut limiter = limiter.borrow_mut();
        if !limiter.is_limited() {
            return Self::None;
        }
        match limiter.admit(executor::now()) {
            Admission::Now => Self::None,
            Admission::After(wait) => Self::Limited(Some(executor::sleep(wait)), changes.version()),
            Admission::Never => Self::Limited(None, changes.version()),
        }
    }

    /// Until something changes.
    pub(crate) fn until_change(changes: &Changes) -> Self {
        Self::Limited(None, changes.version())
    }

    pub(crate) fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    /// Ready when it is over.
    pub(crate) fn poll(&mut self, changes: &Changes, context: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::None => return Poll::Ready(()),
            Self::Nap(sleep) => std::task::ready!(Pin::new(sleep).poll(context)),
            Self::Limited(sleep, version) if *version == changes.version() => {
                changes.register(context);
                match sleep {
                    Some(sleep) => std::task::ready!(Pin::new(sleep).poll(context)),
                    None => return Poll::Pending,
                }
            }
            Self::Limited(..) => {}
        }
        *self = Self::None;
        Poll::Ready(())
    }
}
