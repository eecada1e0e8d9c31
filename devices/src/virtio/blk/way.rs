//! Which way reads and writes take to the file.
//!
//! A read alone is done soonest by a system call of its own: the ring costs as much and a turn of the
//! executor besides. Many together are cheaper through the ring, which takes them all with one. So a visit to the
//! queue that finds few, with nothing under way, does them on the spot, unless the file made it wait
//! (`RWF_NOWAIT` says so at once): then the ring has the next ones, the more the oftener it happened.
//!
//! Writes into a page cache are copies, but few file systems promise not to wait for them, and without that the
//! ring hands each to a worker thread, which takes ten times as long. So they are done on the spot, with a look at
//! the clock: when one had to wait, for a disk that does not keep up, the ring has the next ones.

use std::time::Duration;

use executor::Instant;

use super::IoStrategy;
use crate::virtio::queue::{Moved, Wait};
use crate::virtio::worker::Tries;

/// At most so many reads at a time are worth a system call each.
const FEW: u16 = 2;

/// A write that took longer had to wait: that is a hundred copies of a page.
const LONG: Duration = Duration::from_millis(1);

/// The ways of one queue's requests.
#[derive(Debug)]
pub(super) struct Ways {
    strategy: IoStrategy,
    /// For reads of this visit: the ring, unless there is a wait to avoid.
    pub(super) reads: Option<Wait>,
    /// The same for writes.
    pub(super) writes: Option<Wait>,
    /// Whether to try to read on the spot.
    reading: Tries,
    /// Whether to try to write on the spot.
    writing: Tries,
}

impl Ways {
    pub(super) fn new(strategy: IoStrategy) -> Self {
        Self { strategy, reads: None, writes: None, reading: Tries::new(), writing: Tries::new() }
    }

    /// Choose for a visit that finds so many requests.
    #[inline]
    pub(super) fn visit(&mut self, available: u16, in_flight: usize) {
        (self.reads, self.writes) = match self.strategy {
            IoStrategy::Ring => (None, None),
            IoStrategy::InMemory => (Some(Wait::ForMemory), Some(Wait::ForMemory)),
            IoStrategy::Adaptive => {
                let alone = available <= FEW && in_flight == 0;
                let reads = alone && self.reading.now();
                let writes = self.writing.now();
                (reads.then_some(Wait::Never), writes.then_some(Wait::ForMemory))
            }
        };
    }

    /// What became of a read that was to be done on the spot.
    #[inline]
    pub(super) fn has_read(&mut self, moved: Moved) {
        match moved {
            Moved::Now => self.reading.succeeded(),
            Moved::Later => {
                self.reads = None;
                self.reading.failed();
            }
        }
    }

    /// A write on the spot that began then is over.
    #[inline]
    pub(super) fn has_written(&mut self, begin: Instant) {
        if self.strategy == IoStrategy::InMemory {
            return;
        }
        if executor::now().duration_since(begin) < LONG {
            self.writing.succeeded();
        } else {
            self.writes = None;
            self.writing.failed();
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
        assert_eq!(ways.reads, Some(Wait::Never));
        ways.visit(32, 0);
        assert_eq!(ways.reads, None);
        ways.visit(1, 3);
        assert_eq!(ways.reads, None);
        let mut ways = Ways::new(IoStrategy::InMemory);
        ways.visit(32, 3);
        assert_eq!(ways.reads, Some(Wait::ForMemory));
    }

    #[test]
    fn reads_that_would_wait_leave_the_rest_of_the_visit_to_the_ring() {
        let mut ways = Ways::new(IoStrategy::Adaptive);
        ways.visit(1, 0);
        ways.has_read(Moved::Later);
        assert_eq!(ways.reads, None);
        ways.visit(1, 0);
        assert_eq!(ways.reads, None);
        ways.visit(1, 0);
        assert_eq!(ways.reads, Some(Wait::Never), "it is tried again");
    }

    #[test]
    fn writes_that_had_to_wait_leave_the_next_to_the_ring() {
        let mut ways = Ways::new(IoStrategy::Adaptive);
        ways.visit(32, 3);
        assert_eq!(ways.writes, Some(Wait::ForMemory), "however many there are");
        let Some(long_ago) = executor::now().checked_sub(2 * LONG) else { return };
        ways.has_written(long_ago);
        assert_eq!(ways.writes, None);
        ways.visit(32, 3);
        assert_eq!(ways.writes, None);
        ways.visit(32, 3);
        assert_eq!(ways.writes, Some(Wait::ForMemory), "they are tried again");
    }
}
