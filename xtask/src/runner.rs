//! Runs the tests of the Rust packages and counts them.
//!
//! Plain `cargo test`: some tests are programs of their own (they fork, or forbid themselves system
//! calls), which only it runs without conditions.

use std::process::{Command, ExitStatus};
use std::time::Instant;

use anyhow::Result;

use crate::project;
use crate::report::{Report, Tally, Verdict, run_logged, show_end};

/// A test that finds out that it cannot run here prints this and why, and counts as skipped.
const SKIP_MARK: &str = "skipped: ";

/// Builds and tests took three minutes; what takes five times as long hangs.
const LIMIT_SECONDS: &str = "900";

/// Runs all tests of the workspace and of the built-in guest.
pub(crate) fn run_into(report: &mut Report) {
    let mut workspace = cargo_test();
    workspace.args(["--workspace", "--no-fail-fast", "--lib", "--bins", "--tests"]);
    workspace.args(["--", "--show-output"]);
    let mut doc = cargo_test();
    doc.args(["--workspace", "--no-fail-fast", "--doc"]);
    let mut guest = cargo_test();
    guest.args(["--manifest-path", "guest/builtin/Cargo.toml", "--target-dir"]);
    guest.arg(project::target().join("builtin-guest")).args(["--", "--show-output"]);

    step(report, "unit/workspace", &mut workspace);
    step(report, "unit/examples-in-docs", &mut doc);
    step(report, "unit/builtin-guest", &mut guest);
}

/// `cargo test` with a limit on its time.
fn cargo_test() -> Command {
    let cargo = project::cargo();
    let mut command = Command::new("timeout");
    command.args(["--kill-after=10", LIMIT_SECONDS]).arg(cargo.get_program()).arg("test");
    command.current_dir(project::root());
    command
}

fn step(report: &mut Report, name: &str, command: &mut Command) {
    let start = Instant::now();
    let result: Result<(ExitStatus, String)> = run_logged(name, command);
    match result {
        Ok((status, text)) => {
            let tally = tally(status, &text);
            if !status.success() {
                show_end(&text);
            }
            report.add_many(name, &tally, start.elapsed());
        }
        Err(error) => report.add(name, Verdict::Failed(format!("{error:#}")), start.elapsed()),
    }
}

/// Counts from the lines `test module::test ... ok`; the totals after them are per program, and
/// programs of their own may have none.
fn tally(status: ExitStatus, text: &str) -> Tally {
    let mut tally = Tally::default();
    for line in text.lines() {
        match line.strip_prefix("test ").and_then(|test| test.rsplit_once(" ... ")) {
            Some((_, "ok")) => tally.passed += 1,
            Some((name, "FAILED")) => tally.failed.push(name.to_owned()),
            Some((name, end)) if end.starts_with("ignored") || end.starts_with("skipped") => {
                tally.skipped.push(format!("{name}: {end}"));
            }
            _ => {}
        }
    }
    for reason in text.lines().filter_map(|line| line.trim().strip_prefix(SKIP_MARK)) {
        tally.passed = tally.passed.saturating_sub(1);
        tally.skipped.push(reason.to_owned());
    }
    // A runner that failed without a failed test did not even build them.
    if !status.success() && tally.failed.is_empty() {
        tally.failed.push(format!("the runner ended with {status}"));
    }
    tally
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn cargo_output_is_counted_over_all_binaries() {
        let text = "\
test one ... ok
test two ... FAILED
test three ... ignored, needs a tape drive
test five ... skipped: no terminal
test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out
test four ... ok
skipped: no /dev/kvm
test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out";
        let tally = super::tally(ExitStatus::from_raw(101 << 8), text);
        assert_eq!(tally.passed, 1);
        assert_eq!(tally.failed, ["two"]);
        assert_eq!(
            tally.skipped,
            ["three: ignored, needs a tape drive", "five: skipped: no terminal", "no /dev/kvm"]
        );
    }

    #[test]
    fn a_runner_that_fails_without_tests_is_a_failure() {
        let tally = super::tally(ExitStatus::from_raw(101 << 8), "error: could not compile");
        assert_eq!(tally.failed.len(), 1);
    }
}
