//! What passed, failed and was skipped, and why.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::project;

/// Lines of a log that are shown when its case fails.
const SHOWN_LINES: usize = 30;

/// How a case ended.
pub(crate) enum Verdict {
    Passed,
    Failed(String),
    Skipped(String),
}

/// All cases so far.
#[derive(Default)]
pub(crate) struct Report {
    passed: u64,
    failures: Vec<String>,
    skips: Vec<String>,
}

impl Report {
    /// Counts one case and prints its line.
    pub(crate) fn add(&mut self, name: &str, verdict: Verdict, time: Duration) {
        let seconds = time.as_secs_f64();
        match verdict {
            Verdict::Passed => {
                self.passed += 1;
                println!("passed  {seconds:6.1} s  {name}");
            }
            Verdict::Failed(reason) => {
                println!("FAILED  {seconds:6.1} s  {name}: {reason}");
                self.failures.push(format!("{name}: {reason}"));
            }
            Verdict::Skipped(reason) => {
                println!("skipped {seconds:6.1} s  {name}: {reason}");
                self.skips.push(format!("{name}: {reason}"));
            }
        }
    }

    /// Counts the cases of a test runner.
    pub(crate) fn add_many(&mut self, name: &str, tally: &Tally, time: Duration) {
        self.passed += tally.passed;
        let seconds = time.as_secs_f64();
        println!("passed  {seconds:6.1} s  {name}: {} tests", tally.passed);
        for failure in &tally.failed {
            println!("FAILED            {name}: {failure}");
            self.failures.push(format!("{name}: {failure}"));
        }
        for skip in &tally.skipped {
            println!("skipped           {name}: {skip}");
            self.skips.push(format!("{name}: {skip}"));
        }
    }

    /// Prints everything that did not pass, and the totals as the last line.
    pub(crate) fn finish(&self, start: Instant) -> ExitCode {
        println!();
        for skip in &self.skips {
            println!("skipped: {skip}");
        }
        for failure in &self.failures {
            println!("failed: {failure}");
        }
        println!("all took {:.0} s", start.elapsed().as_secs_f64());
        let failed = self.failures.len();
        println!("{} passed, {failed} failed, {} skipped", self.passed, self.skips.len());
        // A run of nothing proves nothing.
        if failed == 0 && self.passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// What a test runner counted.
#[derive(Default, Debug, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: Vec<String>,
    pub(crate) skipped: Vec<String>,
}

/// The file that keeps what a case printed.
pub(crate) fn log_file(name: &str) -> Result<PathBuf> {
    let path = project::target().join("test-logs").join(format!("{name}.log"));
    fs::create_dir_all(path.parent().unwrap_or(&path))
        .with_context(|| format!("cannot create the folder of {}", path.display()))?;
    Ok(path)
}

/// What a case printed. Not all of it may be text.
pub(crate) fn read_log(name: &str) -> Result<String> {
    let path = log_file(name)?;
    let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Runs a command whose output goes to a log, and gives the log's text.
pub(crate) fn run_logged(name: &str, command: &mut Command) -> Result<(ExitStatus, String)> {
    let path = log_file(name)?;
    let log = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    let status = command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .status()
        .with_context(|| format!("cannot start {}", command.get_program().display()))?;
    Ok((status, read_log(name)?))
}

/// Runs a command that passes when it succeeds; shows the end of its output when not.
pub(crate) fn check(name: &str, command: &mut Command) -> Verdict {
    match run_logged(name, command) {
        Ok((status, _)) if status.success() => Verdict::Passed,
        Ok((status, text)) => {
            show_end(&text);
            Verdict::Failed(format!("{status}"))
        }
        Err(error) => Verdict::Failed(format!("{error:#}")),
    }
}

/// Prints the last lines of a log.
pub(crate) fn show_end(text: &str) {
    let lines: Vec<&str> = text.lines().collect();
    for line in &lines[lines.len().saturating_sub(SHOWN_LINES)..] {
        println!("    {line}");
    }
}
