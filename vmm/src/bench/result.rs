//! Medians and ratios.

use std::fmt::Write as _;

use hdrhistogram::Histogram;
use loadgen::Figures;
use serde::Serialize;

/// What rounds of one contestant gave: of each figure the median, which one round alone does not move.
#[derive(Debug, Clone)]
pub struct Measured {
    /// Who.
    pub name: String,
    /// At least one.
    rounds: Vec<Figures>,
}

impl Measured {
    /// None without a round.
    pub(super) fn of(name: &str, rounds: Vec<Figures>) -> Option<Self> {
        (!rounds.is_empty()).then(|| Self { name: name.into(), rounds })
    }

    /// Requests per second.
    pub fn rate(&self) -> f64 {
        self.median(Figures::rate)
    }

    /// Requests per second in the slowest and in the fastest round.
    pub fn spread(&self) -> (f64, f64) {
        let rates = || self.rounds.iter().map(Figures::rate);
        (rates().fold(f64::INFINITY, f64::min), rates().fold(0.0, f64::max))
    }

    /// Microseconds within which so many of a hundred requests came back.
    pub fn percentile_us(&self, percentile: f64) -> f64 {
        self.median(|round| round.percentile_us(percentile))
    }

    /// Seconds that a round took.
    pub fn seconds(&self) -> f64 {
        self.median(|round| round.elapsed.as_secs_f64())
    }

    /// Microseconds of processor time for each request.
    pub fn cpu_us(&self) -> f64 {
        self.median(Figures::cpu_us)
    }

    /// System calls for each request, where they could be counted.
    pub fn system_calls(&self) -> Option<f64> {
        median(self.rounds.iter().filter_map(Figures::system_calls).collect())
    }

    /// Context switches for each request.
    pub fn switches(&self) -> f64 {
        self.median(Figures::switches)
    }

    /// Nanoseconds that requests took, of all rounds.
    pub fn latency(&self) -> Histogram<u64> {
        let mut all = self.rounds[0].latency.clone();
        for round in &self.rounds[1..] {
            all.add(&round.latency).expect("the bounds are the same");
        }
        all
    }

    fn median(&self, of: impl Fn(&Figures) -> f64) -> f64 {
        median(self.rounds.iter().map(of).collect()).expect("there is a round")
    }
}

/// None without a value; the larger one of two in the middle.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// The one with the highest rate.
pub(super) fn fastest(all: &[Measured]) -> Option<&Measured> {
    all.iter().max_by(|a, b| a.rate().total_cmp(&b.rate()))
}

/// All contestants at one depth.
#[derive(Debug, Clone)]
pub struct BlkResult {
    /// Requests under way on each queue.
    pub depth: u16,
    /// Our own back end.
    pub ours: Measured,
    /// The same with a driver that does not poll.
    pub without_polling: Option<Measured>,
    /// The same with other options.
    pub others: Vec<Measured>,
    /// Those of others.
    pub peers: Vec<Measured>,
    /// Straight to the kernel, the better way.
    pub native: Measured,
}

/// All depths.
#[derive(Debug, Clone)]
pub struct BlkResults {
    /// What was done, in words.
    pub workload: String,
    /// By depth.
    pub results: Vec<BlkResult>,
}

impl BlkResult {
    /// The peer with the highest rate.
    pub fn best_peer(&self) -> Option<&Measured> {
        fastest(&self.peers)
    }
}

/// One contestant, for machines.
#[derive(Debug, Serialize)]
pub(super) struct Line<'a> {
    name: &'a str,
    iops: u64,
    iops_min: u64,
    iops_max: u64,
    p50_us: f64,
    p99_us: f64,
    p999_us: f64,
    cpu_us_per_io: f64,
    syscalls_per_io: Option<f64>,
    switches_per_io: f64,
}

#[derive(Debug, Serialize)]
struct Entry<'a> {
    depth: u16,
    iops: u64,
    ratio_peer: Option<f64>,
    ratio_native: f64,
    cpu_us_per_io: f64,
    /// Ours to that of the fastest peer.
    cpu_ratio_peer: Option<f64>,
    syscalls_per_io: Option<f64>,
    p50_us: f64,
    p99_us: f64,
    p999_us: f64,
    p999_ratio_native: f64,
    without_polling: Option<Line<'a>>,
    with_options: Vec<Line<'a>>,
    native: Line<'a>,
    peers: Vec<Line<'a>>,
}

#[derive(Debug, Serialize)]
struct All<'a> {
    results: Vec<Entry<'a>>,
}

impl<'a> From<&'a Measured> for Line<'a> {
    fn from(measured: &'a Measured) -> Self {
        let (slowest, fastest) = measured.spread();
        Self {
            name: &measured.name,
            iops: measured.rate() as u64,
            iops_min: slowest as u64,
            iops_max: fastest as u64,
            p50_us: measured.percentile_us(50.0),
            p99_us: measured.percentile_us(99.0),
            p999_us: measured.percentile_us(99.9),
            cpu_us_per_io: rounded(measured.cpu_us()),
            syscalls_per_io: measured.system_calls().map(rounded),
            switches_per_io: rounded(measured.switches()),
        }
    }
}

impl<'a> From<&'a BlkResult> for Entry<'a> {
    fn from(result: &'a BlkResult) -> Self {
        let (ours, peer) = (&result.ours, result.best_peer());
        let p999_us = ours.percentile_us(99.9);
        Self {
            depth: result.depth,
            iops: ours.rate() as u64,
            ratio_peer: peer.map(|peer| rounded(ours.rate() / peer.rate())),
            ratio_native: rounded(ours.rate() / result.native.rate()),
            cpu_us_per_io: rounded(ours.cpu_us()),
            cpu_ratio_peer: peer.map(|peer| rounded(ours.cpu_us() / peer.cpu_us())),
            syscalls_per_io: ours.system_calls().map(rounded),
            p50_us: ours.percentile_us(50.0),
            p99_us: ours.percentile_us(99.0),
            p999_us,
            p999_ratio_native: rounded(p999_us / result.native.percentile_us(99.9)),
            without_polling: result.without_polling.as_ref().map(Line::from),
            with_options: result.others.iter().map(Line::from).collect(),
            native: (&result.native).into(),
            peers: result.peers.iter().map(Line::from).collect(),
        }
    }
}

impl BlkResults {
    /// One line of JSON.
    pub fn json(&self) -> String {
        let all = All { results: self.results.iter().map(Entry::from).collect() };
        serde_json::to_string(&all).expect("numbers and names have a form in JSON")
    }

    /// A table for readers.
    pub fn table(&self) -> String {
        let mut text = format!("{}\n\n", self.workload);
        text += "depth  contestant                          IOPS   of native     p50 us     p99 us   p99.9 us  \
                 CPU us/IO  calls/IO\n";
        for result in &self.results {
            let lines = std::iter::once(&result.native)
                .chain([&result.ours])
                .chain(&result.without_polling)
                .chain(&result.others)
                .chain(&result.peers);
            for measured in lines {
                let name = &measured.name;
                let of_native = 100.0 * measured.rate() / result.native.rate();
                let calls =
                    measured.system_calls().map_or("-".into(), |calls| format!("{calls:.3}"));
                let _ = writeln!(
                    text,
                    "{:>5}  {name:<30} {:>9.0} {of_native:>10.0}% {:>10.1} {:>10.1} {:>10.1} {:>10.2} \
                     {calls:>9}",
                    result.depth,
                    measured.rate(),
                    measured.percentile_us(50.0),
                    measured.percentile_us(99.0),
                    measured.percentile_us(99.9),
                    measured.cpu_us(),
                );
            }
        }
        text
    }
}

pub(super) fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Operations in a second, each of which took so long.
    fn round(operations: u64, nanoseconds: u64, system_calls: Option<u64>) -> Figures {
        let elapsed = Duration::from_secs(1);
        let mut figures = Figures { operations, elapsed, ..Figures::default() };
        figures.cost.system_calls = system_calls;
        figures.latency.record_n(nanoseconds, operations).expect("the bounds allow it");
        figures
    }

    #[test]
    fn each_figure_is_the_median_of_all_rounds() {
        let rounds =
            vec![round(10, 9_000, None), round(30, 2_000, Some(60)), round(20, 1_000, Some(20))];
        let measured = Measured::of("it", rounds).expect("there are rounds");
        assert_eq!(measured.rate() as u64, 20);
        let (slowest, fastest) = measured.spread();
        assert_eq!((slowest as u64, fastest as u64), (10, 30));
        assert_eq!(measured.percentile_us(99.9) as u64, 2, "not of the round with the median rate");
        assert_eq!(measured.system_calls(), Some(2.0), "of those that counted them");
        assert_eq!(measured.latency().len(), 60);
        assert!(Measured::of("nothing", Vec::new()).is_none());
    }
}
