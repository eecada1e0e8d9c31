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
//!
//! Reads from a page cache are soonest done without any system call, from a mapping ([`View`](super::view::View)). There
//! nothing says beforehand whether storage has to be waited for, and the kernel counts afterwards how often it was. So
//! visits that took long are looked into, and when that was the reason the other ways have the next ones, the
//! more the oftener it happened.

use std::time::Duration;

use executor::Instant;

use super::IoStrategy;
use super::view::View;
use crate::memory::major_faults;
use crate::virtio::queue::{Moved, Wait};
use crate::virtio::worker::Tries;

/// At most so many reads at a time are worth a system call each.
const FEW: u16 = 2;

/// A write that took longer had to wait: that is a hundred copies of a page.
const LONG: Duration = Duration::from_millis(1);

/// A visit that copied from a mapping and took longer than this, beside the time for the copies, may have waited for
/// storage: that is several times what eight requests take, and the fastest storage.
const PROMPT: Duration = Duration::from_micros(40);

/// A processor copies about four times as many bytes.
const COPIED_IN_A_NANOSECOND: u64 = 4;

/// Visits between tries to read from a mapping, at most. A wait for storage takes as long as some hundred reads, so
/// one of so many costs little.
const MOST_DOUBT: u16 = 4096;

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
    /// Whether reads of this visit are copies out of a view, as far as that has what they want.
    pub(super) viewed: bool,
    viewing: Viewing,
}

impl Ways {
    pub(super) fn new(strategy: IoStrategy) -> Self {
        Self {
            strategy,
            reads: None,
            writes: None,
            reading: Tries::new(),
            writing: Tries::new(),
            viewed: false,
            viewing: Viewing::new(),
        }
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

    /// Choose whether to read from a view, if there is one, after a visit that took so long for so many bytes.
    #[inline]
    pub(super) fn look(&mut self, view: Option<&View>, took: Duration, bytes: u64) {
        let Some(view) = view else { return };
        if self.viewed {
            let copying = Duration::from_nanos(bytes / COPIED_IN_A_NANOSECOND);
            let slow = took > PROMPT + copying;
            self.viewing.went(if slow { major_faults() } else { self.viewing.faults });
        }
        self.viewed = view.is_intact() && self.viewing.tries.now();
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

/// Whether reads from a mapping seldom wait for storage.
#[derive(Debug)]
struct Viewing {
    /// The last count of faults for which storage was waited for.
    faults: u64,
    tries: Tries,
}

impl Viewing {
    fn new() -> Self {
        Self { faults: 0, tries: Tries::up_to(MOST_DOUBT) }
    }

    /// A visit is over, and so many faults there were by then.
    #[inline]
    fn went(&mut self, faults: u64) {
        if faults == self.faults {
            self.tries.paid_a_little();
        } else {
            self.faults = faults;
            self.tries.failed();
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
    fn a_view_that_waits_for_storage_is_used_less_and_less_and_soon_again_when_it_does_not() {
        let visits = |viewing: &mut Viewing, faults: &mut dyn FnMut() -> u64| {
            let mut tried = 0;
            for _ in 0..100_000 {
                if viewing.tries.now() {
                    viewing.went(faults());
                    tried += 1;
                }
            }
            tried
        };
        let mut viewing = Viewing::new();
        let mut faults = 0;
        assert_eq!(visits(&mut viewing, &mut || 0), 100_000);
        let count = visits(&mut viewing, &mut || {
            faults += 1;
            faults
        });
        assert!((10..50).contains(&count), "{count}");
        // Each second one waits: not every second one is tried.
        let mut turn = 0;
        let count = visits(&mut viewing, &mut || {
            turn += 1;
            faults += turn % 2;
            faults
        });
        assert!(count < 100, "{count}");
        let count = visits(&mut viewing, &mut || faults);
        assert!(count > 100_000 - 2 * usize::from(MOST_DOUBT), "{count}");
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
