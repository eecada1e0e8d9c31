//! Latencies in TSC counts: a histogram of buckets that grow with the value (error below 2 %).

use alloc::{vec, vec::Vec};

/// Buckets for each power of two: 64 of them make 1.6 %.
const STEPS_LOG2: u32 = 6;
const STEPS: usize = 1 << STEPS_LOG2;
const BUCKETS: usize = (64 - STEPS_LOG2 as usize + 1) * STEPS;

pub(crate) struct Latencies {
    buckets: Vec<u32>,
    count: u64,
    sum: u128,
    least: u64,
    most: u64,
}

impl Latencies {
    pub(crate) fn new() -> Self {
        Self { buckets: vec![0; BUCKETS], count: 0, sum: 0, least: u64::MAX, most: 0 }
    }

    #[inline]
    pub(crate) fn record(&mut self, value: u64) {
        let bucket = &mut self.buckets[bucket_of(value)];
        *bucket = bucket.saturating_add(1);
        self.count += 1;
        self.sum += u128::from(value);
        self.least = self.least.min(value);
        self.most = self.most.max(value);
    }

    /// The smallest, 0 if there is none.
    pub(crate) fn least(&self) -> u64 {
        if self.count == 0 { 0 } else { self.least }
    }

    pub(crate) fn most(&self) -> u64 {
        self.most
    }

    pub(crate) fn average(&self) -> u64 {
        (self.sum / u128::from(self.count.max(1))) as u64
    }

    /// The value that so many of a hundred do not exceed, from above.
    pub(crate) fn percentile(&self, percent: u64) -> u64 {
        let wanted = (self.count * percent).div_ceil(100);
        let mut seen = 0;
        for (index, bucket) in self.buckets.iter().enumerate() {
            seen += u64::from(*bucket);
            if seen >= wanted {
                return last_of(index).min(self.most);
            }
        }
        self.most
    }
}

#[inline]
fn bucket_of(value: u64) -> usize {
    let magnitude = u64::BITS - value.leading_zeros();
    if magnitude <= STEPS_LOG2 {
        return value as usize;
    }
    let shift = magnitude - STEPS_LOG2 - 1;
    (shift as usize + 1) * STEPS + (value >> shift) as usize % STEPS
}

/// The largest value of a bucket.
fn last_of(bucket: usize) -> u64 {
    let (row, step) = (bucket / STEPS, (bucket % STEPS) as u64);
    if row == 0 {
        return step;
    }
    let shift = row as u32 - 1;
    ((step + STEPS as u64) << shift) + ((1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_in_order_and_within_two_percent() {
        let mut last = 0;
        for shift in 0..64 {
            for value in [1u64 << shift, (1u64 << shift) | (1u64 << shift) >> 1] {
                let bucket = bucket_of(value);
                assert!(bucket < BUCKETS);
                assert!(bucket >= last);
                last = bucket;
                let end = last_of(bucket);
                assert!(end >= value && end - value <= value / 50, "{value} {end}");
            }
        }
        assert_eq!(last_of(bucket_of(u64::MAX)), u64::MAX);
    }

    #[test]
    fn percentiles_of_a_known_distribution() {
        let mut latencies = Latencies::new();
        assert_eq!((latencies.least(), latencies.average(), latencies.percentile(99)), (0, 0, 0));
        for value in 1..=1000 {
            latencies.record(value);
        }
        assert_eq!((latencies.least(), latencies.most(), latencies.average()), (1, 1000, 500));
        let p99 = latencies.percentile(99);
        assert!((990..=1000).contains(&p99), "{p99}");
        assert_eq!(latencies.percentile(100), 1000);
    }
}
