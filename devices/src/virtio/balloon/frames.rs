//! Page frame numbers, put together to ranges.

use std::ops::Range;

/// Frames that are freed together: four times what Linux sends at once.
const BATCH: usize = 1024;

/// A batch of page frame numbers, in no order.
#[derive(Debug)]
pub(super) struct Frames {
    numbers: Vec<u32>,
}

impl Frames {
    pub(super) fn new() -> Self {
        Self { numbers: Vec::with_capacity(BATCH) }
    }

    pub(super) fn push(&mut self, number: u32) {
        self.numbers.push(number);
    }

    pub(super) fn is_full(&self) -> bool {
        self.numbers.len() >= BATCH
    }

    /// Calls `range` with the frames that lie side by side, and forgets them.
    pub(super) fn drain_ranges(&mut self, mut range: impl FnMut(Range<u64>)) {
        self.numbers.sort_unstable();
        for side_by_side in self.numbers.chunk_by(|one, next| next - one <= 1) {
            if let [first, ..] = side_by_side
                && let [.., last] = side_by_side
            {
                range(u64::from(*first)..u64::from(*last) + 1);
            }
        }
        self.numbers.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ranges(numbers: &[u32]) -> Vec<Range<u64>> {
        let mut frames = Frames::new();
        for number in numbers {
            frames.push(*number);
        }
        let mut ranges = Vec::new();
        frames.drain_ranges(|range| ranges.push(range));
        frames.drain_ranges(|_| panic!("they are forgotten"));
        ranges
    }

    #[test]
    fn neighbours_become_one_range() {
        for (numbers, expected) in [
            (vec![], vec![]),
            (vec![5], vec![(5, 6)]),
            (vec![9, 8, 7, 2, 3, 5], vec![(2, 4), (5, 6), (7, 10)]),
            (vec![4, 4, 5, 4], vec![(4, 6)]),
            (vec![u32::MAX, 0], vec![(0, 1), (0xffff_ffff, 0x1_0000_0000)]),
        ] {
            let ranges = ranges(&numbers).into_iter();
            let ends: Vec<_> = ranges.map(|range| (range.start, range.end)).collect();
            assert_eq!(ends, expected, "{numbers:?}");
        }
    }

    proptest! {
        #[test]
        fn ranges_hold_exactly_the_frames(numbers in prop::collection::vec(0_u32..300, 0..200)) {
            let ranges = ranges(&numbers);
            for number in 0..301 {
                let held = ranges.iter().filter(|range| range.contains(&number)).count();
                prop_assert_eq!(held, usize::from(numbers.contains(&(number as u32))));
            }
            for pair in ranges.windows(2) {
                prop_assert!(pair[0].end < pair[1].start, "in order, and not side by side");
            }
        }
    }
}
