//! The moment after which an answer is of no use any more.

use std::time::{Duration, Instant};

/// The end of a wait, as a moment and not as a length: it does not start again when a wait is
/// interrupted or handed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// A wait that never ends in practice: about thirty years. `Instant` has no maximum.
    const FAR: Duration = Duration::from_secs(1_000_000_000);

    /// The deadline that is `length` from now.
    pub fn after(length: Duration) -> Self {
        let now = Instant::now();
        Self(now.checked_add(length).unwrap_or_else(|| now + Self::FAR))
    }

    /// The deadline at `instant`.
    pub const fn at(instant: Instant) -> Self {
        Self(instant)
    }

    /// What is left; `None` when it has passed.
    pub fn remaining(self) -> Option<Duration> {
        self.0.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    }

    /// Whether it has passed.
    pub fn has_passed(self) -> bool {
        self.remaining().is_none()
    }
}
