//! Which way reads and writes take to the file.
//!
//! A request alone is done soonest by a system call of its own: the ring costs as much and a turn of the
//! executor besides. Many together are cheaper through the ring, which takes them all with one. So a visit to the
//! queue that finds few, with nothing under way, does them on the spot, unless the file made it wait
//! (`RWF_NOWAIT` says so at once): then the ring has the next ones, the more the oftener it happened.

use super::IoStrategy;
use crate::virtio::queue::{Moved, Wait};

/// At most so many at a time are worth a system call each.
const FEW: u16 = 2;
/// The longest time, in visits, before the next try.
const LONGEST: u16 = 1024;

/// The ways of one queue's requests.
#[derive(Debug)]
pub(super) struct Ways {
    strategy: IoStrategy,
    /// For requests of this visit: the ring, unless there is a wait to avoid.
    pub(super) inline: Option<Wait>,
    /// How many visits to skip after the next miss.
    doubt: u16,
    /// How many are still to be skipped.
    skip: u16,
}

impl Ways {
    pub(super) fn new(strategy: IoStrategy) -> Self {
        Self { strategy, inline: None, doubt: 1, skip: 0 }
    }

    /// Choose for a visit that finds so many requests.
    #[inline]
    pub(super) fn visit(&mut self, available: u16, in_flight: usize) {
        self.inline = match self.strategy {
            IoStrategy::Ring => None,
            IoStrategy::InMemory => Some(Wait::ForMemory),
            IoStrategy::Adaptive if available > FEW || in_flight > 0 => None,
            IoStrategy::Adaptive if self.skip > 0 => {
                self.skip -= 1;
                None
            }
            IoStrategy::Adaptive => Some(Wait::Never),
        };
    }

    /// What became of one that was to be done on the spot.
    #[inline]
    pub(super) fn tried(&mut self, moved: Moved) {
        match moved {
            Moved::Now => self.doubt = 1,
            Moved::Later => {
                self.inline = None;
                self.skip = self.doubt;
                self.doubt = (2 * self.doubt).min(LONGEST);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_alone_goes_inline_and_many_through_the_ring() {
        let mut ways = Ways::new(IoStrategy::Adaptive);
        ways.visit(1, 0);
        assert_eq!(ways.inline, Some(Wait::Never));
        ways.visit(32, 0);
        assert_eq!(ways.inline, None);
        ways.visit(1, 3);
        assert_eq!(ways.inline, None);
        let mut ways = Ways::new(IoStrategy::InMemory);
        ways.visit(32, 3);
        assert_eq!(ways.inline, Some(Wait::ForMemory));
    }

    #[test]
    fn a_file_that_makes_wait_is_tried_less_and_less() {
        let mut ways = Ways::new(IoStrategy::Adaptive);
        let mut tries = 0;
        for _ in 0..10_000 {
            ways.visit(1, 0);
            if ways.inline.is_some() {
                tries += 1;
                ways.tried(Moved::Later);
                assert_eq!(ways.inline, None, "the rest of the visit is for the ring");
            }
        }
        assert!((10..30).contains(&tries), "{tries}");
        while ways.inline.is_none() {
            ways.visit(1, 0);
        }
        ways.tried(Moved::Now);
        ways.visit(1, 0);
        assert_eq!(ways.inline, Some(Wait::Never), "what is cached again is tried again");
    }
}
