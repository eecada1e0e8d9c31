//! Points in time.

use std::ops::{Add, AddAssign, Sub};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

const NANOSECONDS: u64 = 1_000_000_000;

/// A point in time by the clock that timers go by.
///
/// As [`std::time::Instant`], but one number: differences are taken for each request of a device, where a pair
/// of seconds and nanoseconds costs as much as the look at the clock does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The host's monotonic clock; nobody simulates it.
    #[inline]
    pub(crate) fn of_host() -> Self {
        let time = clock_gettime(ClockId::Monotonic);
        Self(time.tv_sec as u64 * NANOSECONDS + time.tv_nsec as u64)
    }

    /// So many nanoseconds after the clock's beginning.
    #[inline]
    pub const fn from_nanos(nanoseconds: u64) -> Self {
        Self(nanoseconds)
    }

    /// Nanoseconds since the clock's beginning: with a host's clock the same number in all of its processes.
    #[inline]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// What has passed since `earlier`; nothing, if that is later.
    #[inline]
    pub const fn duration_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// None if that is later than can be said.
    #[inline]
    pub fn checked_add(self, duration: Duration) -> Option<Self> {
        let nanoseconds = u64::try_from(duration.as_nanos()).ok()?;
        self.0.checked_add(nanoseconds).map(Self)
    }

    /// None if that is before the clock's beginning.
    #[inline]
    pub fn checked_sub(self, duration: Duration) -> Option<Self> {
        let nanoseconds = u64::try_from(duration.as_nanos()).ok()?;
        self.0.checked_sub(nanoseconds).map(Self)
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    /// The last one that there is, if the sum is later: 584 years after the clock's beginning.
    #[inline]
    fn add(self, duration: Duration) -> Self {
        self.checked_add(duration).unwrap_or(Self(u64::MAX))
    }
}

impl AddAssign<Duration> for Instant {
    #[inline]
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

impl Sub for Instant {
    type Output = Duration;

    /// What has passed between them; nothing, if the other one is later.
    #[inline]
    fn sub(self, earlier: Self) -> Duration {
        self.duration_since(earlier)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_and_differences_end_where_the_clock_does() {
        let (second, now) = (Duration::from_secs(1), Instant::from_nanos(5 * NANOSECONDS));
        assert_eq!(now + second - now, second);
        assert_eq!(now - (now + second), Duration::ZERO);
        assert_eq!((now + Duration::MAX).as_nanos(), u64::MAX);
        assert_eq!(now.checked_add(Duration::MAX), None);
        assert_eq!(now.checked_sub(5 * second), Some(Instant::from_nanos(0)));
        assert_eq!(now.checked_sub(6 * second), None);
    }

    #[test]
    fn the_hosts_clock_is_that_of_everybody() {
        let monotonic = || clock_gettime(ClockId::Monotonic);
        let (before, now, after) = (monotonic(), Instant::of_host(), monotonic());
        let number =
            |time: rustix::time::Timespec| time.tv_sec as u64 * NANOSECONDS + time.tv_nsec as u64;
        assert!((number(before)..=number(after)).contains(&now.as_nanos()));
    }
}
