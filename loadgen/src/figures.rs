//! What a run gave.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::cost::Cost;

/// Requests of a run, their times and what they cost.
#[derive(Debug, Clone)]
pub struct Figures {
    /// Requests that came back.
    pub operations: u64,
    /// In how long.
    pub elapsed: Duration,
    /// Nanoseconds from the moment a request was made to that in which its driver saw it done.
    pub latency: Histogram<u64>,
    /// What the processes that carried them out spent.
    pub cost: Cost,
    /// Requests that came back while system calls were counted, if that was in a time of its own.
    pub counted: Option<u64>,
}

impl Default for Figures {
    fn default() -> Self {
        // A nanosecond to a minute with three digits; larger values count as a minute.
        let latency = Histogram::new_with_bounds(1, 60_000_000_000, 3);
        Self {
            operations: 0,
            elapsed: Duration::ZERO,
            latency: latency.expect("the bounds are those of a histogram"),
            cost: Cost::default(),
            counted: None,
        }
    }
}

impl Figures {
    #[inline]
    pub(crate) fn count(&mut self, latency: Duration) {
        self.operations += 1;
        self.latency.saturating_record(latency.as_nanos() as u64);
    }

    /// Those of another queue or device in the same time.
    pub fn add(&mut self, other: &Self) {
        self.operations += other.operations;
        self.cost = self.cost.and(other.cost);
        self.counted = self.counted.zip(other.counted).map(|(ours, theirs)| ours + theirs);
        self.latency.add(&other.latency).expect("the bounds are the same");
    }

    /// Requests per second.
    pub fn rate(&self) -> f64 {
        self.operations as f64 / self.elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// Microseconds within which so many of a hundred requests came back.
    pub fn percentile_us(&self, percentile: f64) -> f64 {
        self.latency.value_at_percentile(percentile) as f64 / 1000.0
    }

    /// Microseconds of processor time for each request.
    pub fn cpu_us(&self) -> f64 {
        self.cost.cpu.as_secs_f64() * 1e6 / self.operations.max(1) as f64
    }

    /// System calls for each request, where they could be counted.
    pub fn system_calls(&self) -> Option<f64> {
        let operations = self.counted.unwrap_or(self.operations).max(1);
        self.cost.system_calls.map(|calls| calls as f64 / operations as f64)
    }

    /// Context switches for each request.
    pub fn switches(&self) -> f64 {
        self.cost.switches as f64 / self.operations.max(1) as f64
    }
}
