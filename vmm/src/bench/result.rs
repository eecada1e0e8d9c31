//! Medians and ratios.

use std::fmt::Write as _;

use loadgen::Figures;
use serde::Serialize;

/// What rounds of one contestant gave: the round with the median rate, and how far the others were off.
#[derive(Debug, Clone)]
pub struct Measured {
    /// Who.
    pub name: String,
    /// The round in the middle.
    pub figures: Figures,
    /// The slowest and the fastest round, in requests per second.
    pub spread: (f64, f64),
}

impl Measured {
    /// None without a round.
    pub(super) fn of(name: &str, mut rounds: Vec<Figures>) -> Option<Self> {
        rounds.sort_by(|a, b| a.rate().total_cmp(&b.rate()));
        let spread = (rounds.first()?.rate(), rounds.last()?.rate());
        let figures = rounds.swap_remove(rounds.len() / 2);
        Some(Self { name: name.into(), figures, spread })
    }

    /// Requests per second.
    pub fn rate(&self) -> f64 {
        self.figures.rate()
    }
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
        let figures = &measured.figures;
        Self {
            name: &measured.name,
            iops: measured.rate() as u64,
            iops_min: measured.spread.0 as u64,
            iops_max: measured.spread.1 as u64,
            p50_us: figures.percentile_us(50.0),
            p99_us: figures.percentile_us(99.0),
            p999_us: figures.percentile_us(99.9),
            cpu_us_per_io: rounded(figures.cpu_us()),
            syscalls_per_io: figures.system_calls().map(rounded),
            switches_per_io: rounded(figures.switches()),
        }
    }
}

impl<'a> From<&'a BlkResult> for Entry<'a> {
    fn from(result: &'a BlkResult) -> Self {
        let (ours, peer) = (&result.ours.figures, result.best_peer());
        let p999_us = ours.percentile_us(99.9);
        Self {
            depth: result.depth,
            iops: result.ours.rate() as u64,
            ratio_peer: peer.map(|peer| rounded(result.ours.rate() / peer.rate())),
            ratio_native: rounded(result.ours.rate() / result.native.rate()),
            cpu_us_per_io: rounded(ours.cpu_us()),
            cpu_ratio_peer: peer.map(|peer| rounded(ours.cpu_us() / peer.figures.cpu_us())),
            syscalls_per_io: ours.system_calls().map(rounded),
            p50_us: ours.percentile_us(50.0),
            p99_us: ours.percentile_us(99.0),
            p999_us,
            p999_ratio_native: rounded(p999_us / result.native.figures.percentile_us(99.9)),
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
                let Measured { name, figures, .. } = measured;
                let of_native = 100.0 * measured.rate() / result.native.rate();
                let calls =
                    figures.system_calls().map_or("-".into(), |calls| format!("{calls:.3}"));
                let _ = writeln!(
                    text,
                    "{:>5}  {name:<30} {:>9.0} {of_native:>10.0}% {:>10.1} {:>10.1} {:>10.1} {:>10.2} \
                     {calls:>9}",
                    result.depth,
                    measured.rate(),
                    figures.percentile_us(50.0),
                    figures.percentile_us(99.0),
                    figures.percentile_us(99.9),
                    figures.cpu_us(),
                );
            }
        }
        text
    }
}

pub(super) fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
