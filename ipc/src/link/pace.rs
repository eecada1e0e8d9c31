//! Whether a task that waits for the peer shall have the executor look for a moment, or sleep.
//!
//! ```text
//!            `needed` waits in a row ended soon: looking would have paid
//!     cold ─────────────────────────────────────────────────────────────▶ hot
//!       ▲  sleep at once                                look for LONGEST  │ │ found: needed - 1
//!       └────────────────────────────────────────────────────────────────┘ ▲─┘
//!                        looked in vain: needed * 2
//! ```
//!
//! A single message, however often one comes, is never looked for; of several that follow each other
//! all but the first two are. Where looking keeps the peer from running, waits end soon only without
//! it; so each time in vain doubles how much proof the next time takes.

use std::time::Duration;

/// For how long to look, and which waits end soon: about what a sleep, a wake-up and two changes of
/// context cost together inside a virtual machine, so looking at most doubles the cost of a wait.
pub(crate) const LONGEST: Duration = Duration::from_micros(50);
/// Short waits in a row that are proof enough, whatever happened before: as many wake-ups cost twenty
/// times what looking once in vain does.
const MOST_NEEDED: u32 = 128;

/// What the waits so far say of the next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Pace {
    hot: bool,
    /// Waits in a row that ended soon although nobody looked.
    proof: u32,
    /// How many it takes to look.
    needed: u32,
}

impl Pace {
    pub(crate) fn new() -> Self {
        Self { hot: false, proof: 0, needed: 1 }
    }

    /// For how long to look now.
    pub(crate) fn patience(&self) -> Duration {
        if self.hot { LONGEST } else { Duration::ZERO }
    }

    /// Looking has found something.
    pub(crate) fn found(&mut self) {
        self.needed = (self.needed - 1).max(1);
    }

    /// Looking has found nothing.
    pub(crate) fn missed(&mut self) {
        self.hot = false;
        self.proof = 0;
        self.needed = (self.needed * 2).min(MOST_NEEDED);
    }

    /// A wait without looking took so long, the wake-up included.
    pub(crate) fn slept(&mut self, wait: Duration) {
        self.proof = if wait < LONGEST { self.proof + 1 } else { 0 };
        self.hot = self.proof >= self.needed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_micros(15);
    const LATE: Duration = Duration::from_micros(100);

    #[test]
    fn single_messages_are_not_looked_for() {
        let mut pace = Pace::new();
        for _ in 0..1000 {
            pace.slept(LATE);
            assert_eq!(pace.patience(), Duration::ZERO);
        }
    }

    #[test]
    fn the_second_prompt_message_is_enough() {
        let mut pace = Pace::new();
        pace.slept(LATE);
        pace.slept(SOON);
        assert_eq!(pace.patience(), LONGEST);
        pace.found();
        assert_eq!(pace.patience(), LONGEST);
    }

    #[test]
    fn where_looking_never_pays_it_gets_rare() {
        let mut pace = Pace::new();
        let mut misses = 0;
        for _ in 0..10_000 {
            pace.slept(SOON);
            if !pace.patience().is_zero() {
                misses += 1;
                pace.missed();
            }
        }
        assert!(misses <= MOST_NEEDED.ilog2() + 10_000 / MOST_NEEDED, "{misses}");
    }

    #[test]
    fn pairs_of_messages_are_not_looked_for_for_long() {
        let mut pace = Pace::new();
        let mut misses = 0;
        for _ in 0..1000 {
            pace.slept(LATE);
            pace.slept(SOON);
            if !pace.patience().is_zero() {
                misses += 1;
                pace.missed();
            }
        }
        assert_eq!(misses, 1);
    }

    #[test]
    fn looking_that_pays_makes_up_for_failures() {
        let mut pace = Pace::new();
        for _ in 0..10 {
            pace.missed();
        }
        (0..MOST_NEEDED).for_each(|_| pace.slept(SOON));
        assert_eq!(pace.patience(), LONGEST);
        (0..MOST_NEEDED).for_each(|_| pace.found());
        pace.missed();
        (0..2).for_each(|_| pace.slept(SOON));
        assert_eq!(pace.patience(), LONGEST);
    }
}
