//! What the comparisons share: rounds in turn, medians, a table or JSON.

#![allow(unreachable_pub, reason = "shared by several programs")]

use std::time::{Duration, Instant};

/// One thing to measure: does `count` operations and says how long they took.
pub struct Case<'a> {
    pub name: &'static str,
    pub run: Box<dyn FnMut(u32) -> Duration + 'a>,
}

impl<'a> Case<'a> {
    pub fn new(name: &'static str, run: impl FnMut(u32) -> Duration + 'a) -> Self {
        Self { name, run: Box::new(run) }
    }
}

/// Nanoseconds per operation.
pub struct Figure {
    pub name: &'static str,
    pub median_ns: f64,
    pub best_ns: f64,
}

/// Times `work`.
pub fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

/// Runs the cases in turn, round by round, so that what else the machine does hits all of them.
pub fn compare(title: &str, count: u32, rounds: usize, mut cases: Vec<Case<'_>>) -> Vec<Figure> {
    let mut samples = vec![Vec::new(); cases.len()];
    for round in 0..=rounds {
        for (case, samples) in cases.iter_mut().zip(&mut samples) {
            let nanoseconds = (case.run)(count).as_secs_f64() * 1e9 / f64::from(count);
            // The first round warms up.
            if round > 0 {
                samples.push(nanoseconds);
            }
        }
    }
    let figures: Vec<Figure> = cases
        .iter()
        .zip(&mut samples)
        .map(|(case, samples)| {
            samples.sort_by(f64::total_cmp);
            let (median_ns, best_ns) = (samples[samples.len() / 2], samples[0]);
            Figure { name: case.name, median_ns, best_ns }
        })
        .collect();
    report(title, &figures);
    figures
}

/// Whether programs read the figures.
pub fn is_for_programs() -> bool {
    std::env::args().any(|argument| argument == "--json")
}

fn report(title: &str, figures: &[Figure]) {
    let first = figures[0].median_ns;
    if is_for_programs() {
        for Figure { name, median_ns, best_ns } in figures {
            println!(
                r#"{{"comparison":"{title}","case":"{name}","median_ns":{median_ns:.1},"best_ns":{best_ns:.1}}}"#
            );
        }
        return;
    }
    println!("{title}, ns per operation: median, best, median against the first line");
    for Figure { name, median_ns, best_ns } in figures {
        println!("  {name:<44} {median_ns:>9.1} {best_ns:>9.1} {:>7.2}", median_ns / first);
    }
    println!();
}
