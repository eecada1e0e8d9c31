//! Why a task does nothing for a while although it could.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use executor::Sleep;

use super::network::Changes;
use crate::rate_limit::{Admission, RateLimiter};

/// A rest, or none.
#[derive(Debug)]
pub(super) enum Rest {
    None,
    /// For so long.
    Nap(Sleep),
    /// For so long, or for ever, or until something changed since this version.
    Limited(Option<Sleep>, u64),
}

impl Rest {
    pub(super) fn nap(duration: Duration) -> Self {
        Self::Nap(executor::sleep(duration))
    }

    /// A rest if the limiter asks for one.
    #[inline]
    pub(super) fn for_limit(limiter: &RefCell<RateLimiter>, changes: &Changes) -> Self {
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
    pub(super) fn until_change(changes: &Changes) -> Self {
        Self::Limited(None, changes.version())
    }

    pub(super) fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    /// Ready when it is over.
    pub(super) fn poll(&mut self, changes: &Changes, context: &mut Context<'_>) -> Poll<()> {
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
