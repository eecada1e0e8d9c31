//! `vmm test`: several commands, each in a machine of its own, and what has to come out of them.
//!
//! ```text
//!   file ──▶ plan ──▶ workers ──▶ vmm exec, a process for each case ──▶ verdicts ──▶ TAP, JUnit
//! ```
//!
//! docs/test.md is for users.

mod child;
mod file;
mod junit;
mod tap;
mod verdict;

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

pub use file::{Case, Error, Suite};
pub use junit::write as write_junit;
pub use tap::Tap;
pub use verdict::{Outcome, Verdict};

/// Runs the cases, so many at a time, and tells of each in the order of the file.
pub fn run(
    suite: &Suite,
    parallel: usize,
    mut tell: impl FnMut(usize, &Outcome) -> io::Result<()>,
) -> io::Result<Vec<Outcome>> {
    let next = AtomicUsize::new(0);
    let (sender, receiver) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..parallel.clamp(1, suite.cases.len().max(1)) {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(case) = suite.cases.get(number) else { return };
                    // Nobody listens any more if the results could not be told.
                    if sender.send((number, child::run(suite, case))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let mut outcomes: Vec<Option<Outcome>> = suite.cases.iter().map(|_| None).collect();
        let mut told = 0;
        for (number, outcome) in receiver {
            if let Some(place) = outcomes.get_mut(number) {
                *place = Some(outcome);
            }
            while let Some(Some(outcome)) = outcomes.get(told) {
                tell(told, outcome)?;
                told += 1;
            }
        }
        Ok(outcomes.into_iter().flatten().collect())
    })
}

/// How long `vmm exec` may go on after the time of its case is over.
const GRACE: Duration = Duration::from_secs(10);

/// The folder of a file, in which its cases run.
fn folder_of(file: &std::path::Path) -> PathBuf {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => ".".into(),
    }
}
