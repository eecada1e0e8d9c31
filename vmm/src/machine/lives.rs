//! When a dead back end is started again, and when no more.
//!
//! ```text
//!   long life ──► at once
//!   short life, n in a row ──► at once, at once, then 5 ms, 10 ms, 20 ms ... ──► never again
//! ```
//!
//! A life in which a back end crashed before it had finished a single request is a short one, however long
//! it took: its successor gets the same request, and on a slow machine would die of it for ever.

use std::time::Duration;

use executor::Instant;

use crate::config::RestartLimit;

/// A life that is shorter does not count as one: a back end needs about a millisecond to start,
/// and what dies right after it will die again.
const MINIMUM_LIFE: Duration = Duration::from_millis(20);
/// Short lives in a row that are followed by another at once: a crash that the same request caused
/// twice is no accident, and until then a guest should not wait.
const PROMPT_LIVES: u32 = 2;
/// The first wait; each further one doubles.
const FIRST_DELAY: Duration = Duration::from_millis(5);
/// Short lives in a row that end it: the waits before it add up to 1.3 seconds.
const SHORT_LIVES: u32 = 10;

/// What a life was good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    /// It ended itself before it had finished any request.
    Fruitless,
    /// Requests were finished, or something else ended it, or it is not known.
    Other,
}

/// What to do about a death.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Start another after this time.
    Restart {
        after: Duration,
    },
    GiveUp,
}

/// The lives of one back end.
#[derive(Debug)]
pub(crate) struct Lives {
    limit: RestartLimit,
    born: Instant,
    restarts: u32,
    short_in_a_row: u32,
}

impl Lives {
    pub(crate) fn new(limit: RestartLimit, born: Instant) -> Self {
        Self { limit, born, restarts: 0, short_in_a_row: 0 }
    }

    /// How often it was started again.
    pub(crate) fn restarts(&self) -> u32 {
        self.restarts
    }

    /// It was started again.
    pub(crate) fn reborn(&mut self, now: Instant) {
        self.born = now;
        self.restarts = self.restarts.saturating_add(1);
    }

    /// It has died.
    pub(crate) fn died(&mut self, now: Instant, life: Life) -> Verdict {
        let allowed = match self.limit {
            RestartLimit::Always => u32::MAX,
            RestartLimit::Times(times) => times.get(),
            RestartLimit::Never => 0,
        };
        if self.restarts >= allowed {
            return Verdict::GiveUp;
        }
        let time = now.duration_since(self.born);
        if time >= MINIMUM_LIFE && life != Life::Fruitless {
            self.short_in_a_row = 0;
            return Verdict::Restart { after: Duration::ZERO };
        }
        self.short_in_a_row += 1;
        match self.short_in_a_row {
            SHORT_LIVES.. => Verdict::GiveUp,
            lives @ ..=PROMPT_LIVES => {
                debug_assert!(lives > 0);
                Verdict::Restart { after: Duration::ZERO }
            }
            lives => {
                let doublings = lives - PROMPT_LIVES - 1;
                Verdict::Restart { after: FIRST_DELAY * 2_u32.pow(doublings) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    const LONG: Duration = Duration::from_secs(1);
    const SHORT: Duration = Duration::from_millis(1);

    fn next(lives: &mut Lives, now: &mut Instant, life: Duration) -> Verdict {
        *now += life;
        let verdict = lives.died(*now, Life::Other);
        lives.reborn(*now);
        verdict
    }

    #[test]
    fn long_lives_are_followed_at_once_for_ever() {
        let mut now = executor::now();
        let mut lives = Lives::new(RestartLimit::Always, now);
        for _ in 0..1000 {
            let verdict = next(&mut lives, &mut now, LONG);
            assert_eq!(verdict, Verdict::Restart { after: Duration::ZERO });
        }
    }

    #[test]
    fn short_lives_wait_longer_and_end() {
        let mut now = executor::now();
        let mut lives = Lives::new(RestartLimit::Always, now);
        let waits = [0, 0, 5, 10, 20, 40, 80, 160, 320];
        for wait in waits {
            let expected = Verdict::Restart { after: Duration::from_millis(wait) };
            assert_eq!(next(&mut lives, &mut now, SHORT), expected);
        }
        assert_eq!(next(&mut lives, &mut now, SHORT), Verdict::GiveUp);
    }

    #[test]
    fn a_long_life_forgives_short_ones() {
        let mut now = executor::now();
        let mut lives = Lives::new(RestartLimit::Always, now);
        for _ in 0..20 {
            for life in [SHORT, SHORT, SHORT, LONG] {
                assert_ne!(next(&mut lives, &mut now, life), Verdict::GiveUp);
            }
        }
    }

    #[test]
    fn a_request_that_kills_slowly_does_not_for_ever() {
        let mut now = executor::now();
        let mut lives = Lives::new(RestartLimit::Always, now);
        for _ in 1..SHORT_LIVES {
            now += LONG;
            assert_ne!(lives.died(now, Life::Fruitless), Verdict::GiveUp);
            lives.reborn(now);
        }
        now += LONG;
        assert_eq!(lives.died(now, Life::Fruitless), Verdict::GiveUp);
    }

    #[test]
    fn the_limit_counts_all_lives() {
        let mut now = executor::now();
        let mut lives = Lives::new(RestartLimit::Never, now);
        assert_eq!(lives.died(now, Life::Other), Verdict::GiveUp);
        let twice = NonZeroU32::new(2).map(RestartLimit::Times).expect("not zero");
        lives = Lives::new(twice, now);
        assert_ne!(next(&mut lives, &mut now, LONG), Verdict::GiveUp);
        assert_ne!(next(&mut lives, &mut now, LONG), Verdict::GiveUp);
        assert_eq!(next(&mut lives, &mut now, LONG), Verdict::GiveUp);
    }
}
