//! Rate limits for devices that move data: token buckets of bytes and of operations.
//!
//! ```text
//!   time ──rate──► [ tokens, at most `burst` ] ──charge──► operations that were admitted
//! ```
//!
//! An operation is admitted while both buckets hold something, and is charged with all it takes
//! when its size is known; a bucket may go into debt by one operation (or by those that are under
//! way at once), which time pays back. So no operation is too large for its bucket, and the rate
//! holds over any time that is long against one operation.

use std::sync::Arc;
use std::time::Duration;

use executor::Instant;
use serde::{Deserialize, Serialize};

use crate::sync::Lock;

/// Tokens are counted in billionths, so that a bucket at 1 per second fills without rounding.
const SCALE: i128 = 1_000_000_000;

/// How fast a bucket fills and how much it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateLimit {
    /// Tokens per second. Zero admits nothing once the burst is used up.
    pub per_second: u64,
    /// Tokens that may be used at once after a pause. At least one is held.
    pub burst: u64,
}

impl RateLimit {
    /// A limit whose burst is a tenth of a second's worth: short enough not to be seen in an average
    /// over a second, long enough for timers to be exact.
    pub fn per_second(per_second: u64) -> Self {
        Self { per_second, burst: (per_second / 10).max(1) }
    }
}

/// The limits of one direction or device; none means none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RateLimits {
    /// Bytes.
    pub bytes: Option<RateLimit>,
    /// Operations: frames of a network, requests of a disk.
    pub operations: Option<RateLimit>,
}

impl RateLimits {
    /// No limits.
    pub const NONE: Self = Self { bytes: None, operations: None };
}

/// Whether an operation may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Now.
    Now,
    /// Not before so much time has passed.
    After(Duration),
    /// Not before the limits change.
    Never,
}

/// Keeps to [`RateLimits`], which can change at any time.
#[derive(Debug, Default)]
pub struct RateLimiter {
    /// What this one goes by: those without limits take no lock.
    limited: bool,
    buckets: Held,
}

#[derive(Debug)]
enum Held {
    Alone(Buckets),
    /// With others, on other threads.
    Together(Arc<Lock<Buckets>>),
}

impl Default for Held {
    fn default() -> Self {
        Self::Alone(Buckets::default())
    }
}

#[derive(Debug, Default)]
struct Buckets {
    bytes: Option<Bucket>,
    operations: Option<Bucket>,
}

impl RateLimiter {
    /// Full buckets. `now` is a time of [`executor::now`].
    pub fn new(limits: RateLimits, now: Instant) -> Self {
        let mut limiter = Self::default();
        limiter.change(limits, now);
        limiter
    }

    /// Another one, for another thread, that takes from the same buckets: the limits are for both together. Who
    /// changes them changes them for both, and tells both.
    #[must_use]
    pub fn share(&mut self) -> Self {
        let together = match std::mem::take(&mut self.buckets) {
            Held::Alone(buckets) => Arc::new(Lock::new(buckets)),
            Held::Together(buckets) => buckets,
        };
        self.buckets = Held::Together(Arc::clone(&together));
        Self { limited: self.limited, buckets: Held::Together(together) }
    }

    /// Whether there is anything to keep to.
    #[inline]
    pub fn is_limited(&self) -> bool {
        self.limited
    }

    /// Go by other limits. What a bucket holds it keeps, as far as it fits.
    pub fn change(&mut self, limits: RateLimits, now: Instant) {
        self.limited = limits != RateLimits::NONE;
        self.with(|buckets| buckets.change(limits, now));
    }

    /// Whether another operation may start.
    pub fn admit(&mut self, now: Instant) -> Admission {
        self.with(|buckets| buckets.admit(now))
    }

    /// An operation moves or moved so many bytes.
    #[inline]
    pub fn charge(&mut self, bytes: u64) {
        if self.limited {
            self.with(|buckets| buckets.charge(bytes));
        }
    }

    fn with<R>(&mut self, then: impl FnOnce(&mut Buckets) -> R) -> R {
        match &mut self.buckets {
            Held::Alone(buckets) => then(buckets),
            Held::Together(buckets) => then(&mut buckets.lock()),
        }
    }
}

impl Buckets {
    fn change(&mut self, limits: RateLimits, now: Instant) {
        change(&mut self.bytes, limits.bytes, now);
        change(&mut self.operations, limits.operations, now);
    }

    fn admit(&mut self, now: Instant) -> Admission {
        let mut admission = Admission::Now;
        for bucket in [&mut self.bytes, &mut self.operations].into_iter().flatten() {
            admission = match (admission, bucket.admit(now)) {
                (Admission::Never, _) | (_, Admission::Never) => Admission::Never,
                (Admission::After(one), Admission::After(other)) => {
                    Admission::After(one.max(other))
                }
                (Admission::Now, other) => other,
                (one, Admission::Now) => one,
            };
        }
        admission
    }

    fn charge(&mut self, bytes: u64) {
        if let Some(bucket) = &mut self.bytes {
            bucket.charge(bytes);
        }
        if let Some(bucket) = &mut self.operations {
            bucket.charge(1);
        }
    }
}

fn change(bucket: &mut Option<Bucket>, limit: Option<RateLimit>, now: Instant) {
    match (bucket.as_mut(), limit) {
        (_, None) => *bucket = None,
        (None, Some(limit)) => *bucket = Some(Bucket::full(limit, now)),
        (Some(bucket), Some(limit)) => bucket.change(limit, now),
    }
}

#[derive(Debug)]
struct Bucket {
    limit: RateLimit,
    /// In billionths of a token; negative is debt.
    level: i128,
    filled_at: Instant,
}

impl Bucket {
    fn full(limit: RateLimit, now: Instant) -> Self {
        Self { limit, level: capacity(limit), filled_at: now }
    }

    fn change(&mut self, limit: RateLimit, now: Instant) {
        self.fill(now);
        self.limit = limit;
        // A debt under the old rate must not become an age under the new one.
        self.level = self.level.clamp(-capacity(limit), capacity(limit));
    }

    fn fill(&mut self, now: Instant) {
        let elapsed = now.duration_since(self.filled_at);
        self.filled_at = self.filled_at.max(now);
        // Nanoseconds times tokens per second are billionths: 2^95 times 2^64 at the very most, but
        // a time that is longer than centuries counts as centuries.
        let nanoseconds = elapsed.as_nanos().min(u128::from(u64::MAX) >> 1) as i128;
        let gained = nanoseconds.saturating_mul(i128::from(self.limit.per_second));
        self.level = self.level.saturating_add(gained).min(capacity(self.limit));
    }

    fn admit(&mut self, now: Instant) -> Admission {
        self.fill(now);
        if self.level >= SCALE {
            return Admission::Now;
        }
        if self.limit.per_second == 0 {
            return Admission::Never;
        }
        let missing = (SCALE - self.level) as u128;
        let nanoseconds = missing.div_ceil(u128::from(self.limit.per_second));
        Admission::After(Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX)))
    }

    fn charge(&mut self, tokens: u64) {
        self.level = self.level.saturating_sub(i128::from(tokens) * SCALE);
    }
}

fn capacity(limit: RateLimit) -> i128 {
    i128::from(limit.burst.max(1)) * SCALE
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limits(bytes: Option<(u64, u64)>, operations: Option<(u64, u64)>) -> RateLimits {
        let limit = |(per_second, burst)| RateLimit { per_second, burst };
        RateLimits { bytes: bytes.map(limit), operations: operations.map(limit) }
    }

    #[test]
    fn without_limits_everything_is_admitted() {
        let now = executor::now();
        let mut limiter = RateLimiter::new(RateLimits::NONE, now);
        assert!(!limiter.is_limited());
        limiter.charge(u64::MAX);
        assert_eq!(limiter.admit(now), Admission::Now);
    }

    #[test]
    fn a_burst_is_admitted_and_its_debt_is_paid_by_time() {
        let start = executor::now();
        let mut limiter = RateLimiter::new(limits(Some((1000, 500)), None), start);
        assert_eq!(limiter.admit(start), Admission::Now);
        limiter.charge(1500);
        // 1000 of debt and one token to go on with.
        assert_eq!(limiter.admit(start), Admission::After(Duration::from_millis(1001)));
        let later = start + Duration::from_millis(1001);
        assert_eq!(limiter.admit(later), Admission::Now);
        limiter.charge(1);
        assert_eq!(limiter.admit(later), Admission::After(Duration::from_millis(1)));
        // A long pause fills no more than the burst.
        let much_later = later + Duration::from_hours(1_000_000);
        assert_eq!(limiter.admit(much_later), Admission::Now);
        limiter.charge(500);
        assert_eq!(limiter.admit(much_later), Admission::After(Duration::from_millis(1)));
    }

    #[test]
    fn the_slower_of_both_buckets_counts() {
        let start = executor::now();
        let mut limiter = RateLimiter::new(limits(Some((1000, 10)), Some((1, 1))), start);
        limiter.charge(10);
        assert_eq!(limiter.admit(start), Admission::After(Duration::from_secs(1)));
        limiter.change(limits(Some((1000, 10)), None), start);
        assert_eq!(limiter.admit(start), Admission::After(Duration::from_millis(1)));
        limiter.change(limits(Some((0, 10)), Some((1, 1))), start);
        assert_eq!(limiter.admit(start), Admission::Never);
        limiter.change(RateLimits::NONE, start);
        assert_eq!(limiter.admit(start), Admission::Now);
    }

    #[test]
    fn those_who_share_have_one_burst_and_pay_one_debt() {
        let start = executor::now();
        let mut one = RateLimiter::new(limits(None, Some((1, 3))), start);
        let mut other = one.share();
        let mut third = other.share();
        for limiter in [&mut one, &mut other, &mut third] {
            assert!(limiter.is_limited());
            assert_eq!(limiter.admit(start), Admission::Now);
            limiter.charge(512);
        }
        for limiter in [&mut one, &mut other, &mut third] {
            assert_eq!(limiter.admit(start), Admission::After(Duration::from_secs(1)));
        }
        // Each is told, and the burst is there once.
        for limiter in [&mut one, &mut other, &mut third] {
            limiter.change(limits(None, Some((0, 1))), start);
        }
        assert_eq!(other.admit(start), Admission::Never);
        for limiter in [&mut one, &mut other, &mut third] {
            limiter.change(RateLimits::NONE, start);
            assert!(!limiter.is_limited());
        }
        assert_eq!(third.admit(start), Admission::Now);
    }

    proptest! {
        #[test]
        fn the_rate_holds_whatever_is_sent(
            per_second in 1u64..1_000_000_000,
            burst in 0u64..1_000_000,
            sizes in prop::collection::vec(0u64..100_000, 1..200),
        ) {
            let start = executor::now();
            let mut now = start;
            let mut limiter = RateLimiter::new(limits(Some((per_second, burst)), None), start);
            let mut moved = 0u128;
            for size in &sizes {
                match limiter.admit(now) {
                    Admission::Now => {}
                    Admission::After(wait) => {
                        now += wait;
                        prop_assert_eq!(limiter.admit(now), Admission::Now);
                    }
                    Admission::Never => prop_assert!(false),
                }
                // What was admitted so far is within the rate, but for the last one.
                let allowed = u128::from(burst.max(1))
                    + now.duration_since(start).as_nanos() * u128::from(per_second) / SCALE as u128;
                prop_assert!(moved <= allowed, "{moved} in {:?}", now.duration_since(start));
                limiter.charge(*size);
                moved += u128::from(*size);
            }
        }

        #[test]
        fn nothing_overflows(
            numbers in prop::collection::vec((any::<u64>(), any::<u64>(), any::<u64>(), any::<u32>()), 1..50),
        ) {
            let mut now = executor::now();
            let mut limiter = RateLimiter::new(RateLimits::NONE, now);
            for (per_second, burst, bytes, seconds) in numbers {
                limiter.change(limits(Some((per_second, burst)), Some((burst, per_second))), now);
                let _ = limiter.admit(now);
                limiter.charge(bytes);
                now += Duration::from_secs(u64::from(seconds));
            }
        }
    }
}
