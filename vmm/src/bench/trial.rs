//! Small things that are done very often: nanoseconds each, in turns with other ways to do the same.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::error::BenchError;
use super::result::rounded;

/// One way of doing something.
pub(super) struct Way<'a> {
    name: Cow<'static, str>,
    run: Run<'a>,
}

type Run<'a> = Box<dyn FnMut(u64) -> Result<Duration, BenchError> + 'a>;

impl<'a> Way<'a> {
    /// `run` does it so often and says how long that took.
    pub(super) fn new(
        name: impl Into<Cow<'static, str>>,
        run: impl FnMut(u64) -> Result<Duration, BenchError> + 'a,
    ) -> Self {
        Self { name: name.into(), run: Box::new(run) }
    }
}

/// Something that is done, in the first way and in others.
pub(super) struct Trial<'a> {
    pub(super) what: Cow<'static, str>,
    /// How often it is done in each round.
    pub(super) operations: u64,
    pub(super) ways: Vec<Way<'a>>,
}

/// What one way costs.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Cost {
    name: Cow<'static, str>,
    /// The median of all rounds.
    ns: f64,
    /// The fastest and the slowest round.
    spread_ns: (f64, f64),
    /// To the first way: above 1 means that the first is faster.
    ratio: f64,
}

/// All ways of one thing.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Costs {
    what: Cow<'static, str>,
    ways: Vec<Cost>,
}

/// What small things cost.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrialResults {
    results: Vec<Costs>,
}

/// Lets the ways of each trial take turns, after a round that does not count.
pub(super) fn run_trials(
    trials: Vec<Trial<'_>>,
    rounds: u32,
    progress: &dyn Fn(&str),
) -> Result<TrialResults, BenchError> {
    let mut results = Vec::with_capacity(trials.len());
    for mut trial in trials {
        let mut samples = vec![Vec::new(); trial.ways.len()];
        for round in 0..=rounds {
            for (way, samples) in trial.ways.iter_mut().zip(&mut samples) {
                progress(&format!("{}, round {round} of {rounds}: {}", trial.what, way.name));
                let time = (way.run)(trial.operations)?;
                if round > 0 {
                    samples.push(time.as_secs_f64() * 1e9 / trial.operations as f64);
                }
            }
        }
        results.push(costs(&trial, samples));
    }
    Ok(TrialResults { results })
}

fn costs(trial: &Trial<'_>, samples: Vec<Vec<f64>>) -> Costs {
    let mut ways = Vec::with_capacity(samples.len());
    let mut first = None;
    for (way, mut samples) in trial.ways.iter().zip(samples) {
        samples.sort_by(f64::total_cmp);
        let (Some(fastest), Some(slowest)) = (samples.first(), samples.last()) else { continue };
        let ns = samples[samples.len() / 2];
        let ratio = rounded(ns / *first.get_or_insert(ns));
        let spread_ns = (rounded(*fastest), rounded(*slowest));
        ways.push(Cost { name: way.name.clone(), ns: rounded(ns), spread_ns, ratio });
    }
    Costs { what: trial.what.clone(), ways }
}

/// How long work takes that cannot fail.
pub(super) fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

impl TrialResults {
    /// One line of JSON.
    pub fn json(&self) -> String {
        serde_json::to_string(self).expect("numbers and names have a form in JSON")
    }

    /// A table for readers.
    pub fn table(&self) -> String {
        let mut text = format!(
            "{:<32} {:<22} {:>12} {:>24} {:>8}\n",
            "what", "how", "ns", "fastest and slowest", "times"
        );
        for Costs { what, ways } in &self.results {
            for Cost { name, ns, spread_ns: (fastest, slowest), ratio } in ways {
                let spread = format!("{fastest:.1} to {slowest:.1}");
                let _ =
                    writeln!(text, "{what:<32} {name:<22} {ns:>12.1} {spread:>24} {ratio:>8.2}");
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_turns_are_held_against_the_first() {
        let mut times = [9, 1, 3, 2].into_iter().map(Duration::from_micros);
        let ours = Way::new("ours", move |_| Ok(times.next().expect("four rounds")));
        let other = Way::new("other", |_| Ok(Duration::from_micros(4)));
        let trial = Trial { what: "a thing".into(), operations: 1000, ways: vec![ours, other] };
        let results = run_trials(vec![trial], 3, &|_| ()).expect("they do not fail");
        let cost = |name: &'static str, ns, spread_ns, ratio| Cost {
            name: name.into(),
            ns,
            spread_ns,
            ratio,
        };
        let ways = vec![cost("ours", 2.0, (1.0, 3.0), 1.0), cost("other", 4.0, (4.0, 4.0), 2.0)];
        assert_eq!(results, TrialResults { results: vec![Costs { what: "a thing".into(), ways }] });
        let line = results.json();
        assert!(
            line.starts_with(r#"{"results":[{"what":"a thing","ways":[{"name":"ours","ns":2.0"#)
        );
        assert_eq!(results.table().lines().count(), 3);
    }
}
