//! Comparisons that can be repeated anywhere with public tools.
//!
//! Every figure is a ratio taken in one run: the contestants take turns (A B C A B C ...), each
//! turn on a fresh thread, and the medians of all rounds are compared. Machines differ and are
//! noisy; ratios of medians of interleaved rounds are what survives that.

#![forbid(unsafe_code)]

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Says how this program is called, and ends, if it was asked that.
pub fn help(usage: &str) {
    if std::env::args_os().skip(1).any(|argument| argument == "--help" || argument == "-h") {
        println!("Usage: {usage}");
        std::process::exit(0);
    }
}

/// The number of rounds that the first argument asks for, 7 without one. One that is no number ends the program.
pub fn rounds() -> usize {
    let Some(argument) = std::env::args_os().nth(1) else { return 7 };
    let number = argument.to_str().and_then(|text| text.parse::<NonZeroUsize>().ok());
    number.map_or_else(
        || {
            eprintln!("{} is no number of rounds; see --help", argument.display());
            std::process::exit(2)
        },
        NonZeroUsize::get,
    )
}

/// One way of doing the work that is compared.
pub struct Contestant {
    /// Its name.
    pub name: &'static str,
    /// Does the work `operations` times and says how long it took.
    pub run: Box<dyn Fn(u64) -> Duration + Send + Sync>,
}

impl Contestant {
    /// A contestant whose `run` measures itself.
    pub fn new(name: &'static str, run: impl Fn(u64) -> Duration + Send + Sync + 'static) -> Self {
        Self { name, run: Box::new(run) }
    }
}

/// What one contestant needed.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Its name.
    pub name: &'static str,
    /// Median over the rounds, in nanoseconds per operation.
    pub median_ns: f64,
    /// The fastest and the slowest round.
    pub spread_ns: (f64, f64),
}

/// Lets the contestants take turns for `rounds` rounds after one that does not count.
pub fn compare(contestants: &[Contestant], operations: u64, rounds: usize) -> Vec<Outcome> {
    let mut samples = vec![Vec::with_capacity(rounds); contestants.len()];
    for round in 0..=rounds {
        for (contestant, samples) in contestants.iter().zip(&mut samples) {
            let elapsed = std::thread::scope(|scope| {
                scope.spawn(|| (contestant.run)(operations)).join().expect("a contestant panicked")
            });
            if round > 0 {
                samples.push(elapsed.as_secs_f64() * 1e9 / operations as f64);
            }
        }
    }
    contestants
        .iter()
        .zip(samples)
        .map(|(contestant, mut samples)| {
            samples.sort_by(f64::total_cmp);
            Outcome {
                name: contestant.name,
                median_ns: samples[samples.len() / 2],
                spread_ns: (samples[0], samples[samples.len() - 1]),
            }
        })
        .collect()
}

/// Prints one comparison; ratios above 1 mean that the first contestant is faster.
pub fn print(title: &str, outcomes: &[Outcome]) {
    let Some(ours) = outcomes.first() else { return };
    println!("{title}");
    for outcome in outcomes {
        println!(
            "  {:<18} {:>10.1} ns/op  (min {:.1}, max {:.1})  {:>6.2}x",
            outcome.name,
            outcome.median_ns,
            outcome.spread_ns.0,
            outcome.spread_ns.1,
            outcome.median_ns / ours.median_ns,
        );
    }
}

/// Times `work`.
pub fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

/// The `vmm` that was built with this program.
pub fn vmm() -> PathBuf {
    std::env::current_exe().expect("this program's path").with_file_name("vmm")
}

/// A folder for files of a measurement, on the disk of the build: `/tmp` may be in memory.
pub fn scratch() -> TempDir {
    tempfile::tempdir_in(vmm().parent().expect("a folder")).expect("makes a folder")
}

/// A stream of pseudo-random numbers (xorshift64*), the same for every contestant.
#[derive(Debug, Clone)]
pub struct Numbers(u64);

impl Numbers {
    /// The stream that belongs to `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed.max(1))
    }

    /// The next number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) % bound.max(1)
    }
}
