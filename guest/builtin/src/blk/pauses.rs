//! The longest times without a finished request: how long a device was away.

use alloc::vec::Vec;

/// The longest pauses of a load, in TSC counts.
pub(crate) struct Pauses {
    longest: Vec<u64>,
    /// How many are kept.
    most: usize,
    /// A pause that is not longer is not kept.
    threshold: u64,
}

impl Pauses {
    /// Keeps up to `most` pauses.
    pub(crate) fn new(most: usize) -> Self {
        let threshold = if most == 0 { u64::MAX } else { 0 };
        Self { longest: Vec::with_capacity(most), most, threshold }
    }

    /// Takes the time between two turns that finished requests.
    #[inline]
    pub(crate) fn record(&mut self, pause: u64) {
        if pause > self.threshold {
            self.keep(pause);
        }
    }

    fn keep(&mut self, pause: u64) {
        if self.longest.len() == self.most {
            let shortest = self.longest.iter_mut().min().expect("keeps at least one");
            *shortest = pause;
        } else {
            self.longest.push(pause);
        }
        if self.longest.len() == self.most {
            self.threshold = self.longest.iter().copied().min().unwrap_or_default();
        }
    }

    /// The pauses, longest first.
    pub(crate) fn sorted(&self) -> Vec<u64> {
        let mut pauses = self.longest.clone();
        pauses.sort_unstable_by(|a, b| b.cmp(a));
        pauses
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_are_kept_in_order() {
        let mut pauses = Pauses::new(3);
        for pause in [5, 1, 9, 3, 7, 7, 2] {
            pauses.record(pause);
        }
        assert_eq!(pauses.sorted(), [9, 7, 7]);
    }

    #[test]
    fn none_are_kept_unless_asked_for() {
        let mut pauses = Pauses::new(0);
        pauses.record(u64::MAX);
        assert!(pauses.sorted().is_empty());
    }
}
