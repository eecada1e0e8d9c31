//! Runs the tests of the Rust packages with nextest, or without it with cargo, and counts them.

use std::process::{Command, ExitStatus};
use std::time::Instant;

use anyhow::Result;

use crate::project;
use crate::report::{Report, Tally, Verdict, run_logged, show_end};

/// A test that finds out that it cannot run here prints this and why, and counts as skipped.
const SKIP_MARK: &str = "skipped: ";

/// Runs all tests of the workspace and of the built-in guest.
pub(crate) fn run_into(report: &mut Report) {
    let mut doc = project::cargo();
    doc.args(["test", "--workspace", "--no-fail-fast", "--doc"]);
    let mut guest = project::cargo();
    guest.args(["test", "--manifest-path", "guest/builtin/Cargo.toml", "--target-dir"]);
    guest.arg(project::target().join("builtin-guest")).args(["--", "--show-output"]);

    if has_nextest() {
        let mut nextest = project::cargo();
        nextest.args(["nextest", "run", "--workspace", "--no-fail-fast", "--no-tests", "pass"]);
        nextest.args([
            "--success-output",
            "final",
            "--failure-output",
            "final",
            "--color",
            "never",
        ]);
        step(report, "unit/workspace", &mut nextest, nextest_tally);
    } else {
        let mut cargo = project::cargo();
        cargo.args(["test", "--workspace", "--no-fail-fast", "--lib", "--bins", "--tests"]);
        cargo.args(["--", "--show-output"]);
        step(report, "unit/workspace", &mut cargo, cargo_tally);
    }
    step(report, "unit/examples-in-docs", &mut doc, cargo_tally);
    step(report, "unit/builtin-guest", &mut guest, cargo_tally);
}

fn has_nextest() -> bool {
    project::output(project::cargo().args(["nextest", "--version"])).is_ok()
}

fn step(
    report: &mut Report,
    name: &str,
    command: &mut Command,
    count: fn(ExitStatus, &str) -> Tally,
) {
    let start = Instant::now();
    let result: Result<(ExitStatus, String)> = run_logged(name, command);
    match result {
        Ok((status, text)) => {
            let tally = count(status, &text);
            if !status.success() {
                show_end(&text);
            }
            report.add_many(name, &tally, start.elapsed());
        }
        Err(error) => report.add(name, Verdict::Failed(format!("{error:#}")), start.elapsed()),
    }
}

/// Counts from nextest's lines: `PASS [0.004s] package module::test`, `FAIL …`, `Summary …`.
fn nextest_tally(status: ExitStatus, text: &str) -> Tally {
    let mut tally = Tally::default();
    for line in text.lines() {
        let line = line.trim();
        if let Some(summary) = line.strip_prefix("Summary [") {
            tally.passed = number_before(summary, "passed");
            let ignored = number_before(summary, "skipped");
            if ignored > 0 {
                tally.skipped.push(format!("{ignored} tests with #[ignore]"));
            }
            // Only the lines after the summary name each failure once.
            tally.failed.clear();
        } else if let Some((_, name)) =
            ["FAIL [", "TIMEOUT [", "SIGABRT [", "SIGSEGV [", "SIGKILL ["]
                .iter()
                .find_map(|mark| line.strip_prefix(mark))
                .and_then(|rest| rest.split_once(']'))
        {
            tally.failed.push(name.trim().to_owned());
        }
    }
    add_skips(&mut tally, text);
    close(status, tally)
}

/// Counts from cargo's lines: `test module::test ... ok`, `test result: ok. 3 passed; …`.
fn cargo_tally(status: ExitStatus, text: &str) -> Tally {
    let mut tally = Tally::default();
    for line in text.lines() {
        if let Some(result) = line.strip_prefix("test result: ") {
            tally.passed += number_before(result, "passed");
        } else if let Some(test) = line.strip_prefix("test ") {
            match test.split_once(" ... ") {
                Some((name, "FAILED")) => tally.failed.push(name.to_owned()),
                Some((name, end)) if end.starts_with("ignored") => {
                    tally.skipped.push(format!("{name}: {end}"));
                }
                _ => {}
            }
        }
    }
    add_skips(&mut tally, text);
    close(status, tally)
}

/// Moves tests that passed but said that they skipped.
fn add_skips(tally: &mut Tally, text: &str) {
    for reason in text.lines().filter_map(|line| line.trim().strip_prefix(SKIP_MARK)) {
        tally.passed = tally.passed.saturating_sub(1);
        tally.skipped.push(reason.to_owned());
    }
}

/// A runner that failed without a failed test did not even build them.
fn close(status: ExitStatus, mut tally: Tally) -> Tally {
    if !status.success() && tally.failed.is_empty() {
        tally.failed.push(format!("the runner ended with {status}"));
    }
    tally
}

/// The number in front of a word: 12 in `14 tests run: 12 passed (1 slow), 2 failed`.
fn number_before(text: &str, word: &str) -> u64 {
    let before = text.split(word).next().filter(|before| before.len() < text.len());
    before
        .and_then(|before| before.split_whitespace().last())
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn nextest_output_is_counted() {
        let text = "\
        PASS [   0.004s] (1/3) ipc channel::test
        FAIL [   0.004s] (2/3) ipc channel::broken
   skipped: no /dev/kvm
     Summary [   0.010s] 3 tests run: 2 passed (1 slow), 1 failed, 4 skipped
        FAIL [   0.004s] (2/3) ipc channel::broken
error: test run failed";
        let tally = nextest_tally(ExitStatus::from_raw(100 << 8), text);
        assert_eq!(tally.passed, 1);
        assert_eq!(tally.failed, ["(2/3) ipc channel::broken"]);
        assert_eq!(tally.skipped, ["4 tests with #[ignore]", "no /dev/kvm"]);
    }

    #[test]
    fn cargo_output_is_counted_over_all_binaries() {
        let text = "\
test one ... ok
test two ... FAILED
test three ... ignored, needs a tape drive
test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out
test four ... ok
test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out";
        let tally = cargo_tally(ExitStatus::from_raw(101 << 8), text);
        assert_eq!(tally.passed, 2);
        assert_eq!(tally.failed, ["two"]);
        assert_eq!(tally.skipped, ["three: ignored, needs a tape drive"]);
    }

    #[test]
    fn a_runner_that_fails_without_tests_is_a_failure() {
        let tally = cargo_tally(ExitStatus::from_raw(101 << 8), "error: could not compile");
        assert_eq!(tally.failed.len(), 1);
        assert_eq!(nextest_tally(ExitStatus::from_raw(0), ""), Tally::default());
    }
}
