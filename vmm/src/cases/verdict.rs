//! What came of a case.

use std::time::Duration;

use super::file::{Case, Expected};
use crate::exec::status;
use crate::terminal;

/// The status by which a command says that it cannot run here (as automake has it).
const SKIPPED: i32 = 77;
/// How much of a stream a report shows.
const SHOWN_LINES: usize = 40;

/// Whether a case did what it had to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It did.
    Passed,
    /// It said that it cannot run here, and why.
    Skipped(String),
    /// It did not.
    Failed(String),
}

/// What a command wrote.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Output {
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
}

/// A case that has run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Its name.
    pub name: String,
    /// Whether it passed.
    pub verdict: Verdict,
    /// How long it took, with its machine.
    pub time: Duration,
    /// What it wrote.
    pub output: Output,
}

/// Compares with what was expected.
pub(super) fn judge(case: &Case, code: i32, output: &Output) -> Verdict {
    if code != i32::from(case.status) {
        return match code {
            SKIPPED => {
                let text = String::from_utf8_lossy(&output.stdout);
                Verdict::Skipped(terminal::cleaned(text.lines().next_back().unwrap_or_default()))
            }
            _ => Verdict::Failed(wrong_status(case, code)),
        };
    }
    for (name, stream, expected) in
        [("output", &output.stdout, &case.stdout), ("error", &output.stderr, &case.stderr)]
    {
        if let Some(wrong) = differs(stream, expected) {
            return Verdict::Failed(format!("standard {name} {wrong}"));
        }
    }
    Verdict::Passed
}

fn wrong_status(case: &Case, code: i32) -> String {
    let told = match u8::try_from(code) {
        Ok(status::TIMED_OUT) => {
            return format!("the time was over after {:?}", case.timeout);
        }
        Ok(status::GUEST_DOWN) => ": the guest went down",
        Ok(status::GUEST_PANIC) => ": the guest's kernel panicked",
        Ok(status::FAILED) => ": the machine failed",
        _ => "",
    };
    format!("status {code} instead of {}{told}", case.status)
}

fn differs(stream: &[u8], expected: &Expected) -> Option<String> {
    let text = String::from_utf8_lossy(stream);
    if expected.exactly.as_ref().is_some_and(|exactly| *exactly != text) {
        return Some("is not what it should be".into());
    }
    let lacking = expected.has.iter().find(|part| !text.contains(part.as_str()))?;
    Some(format!("lacks `{lacking}`"))
}

impl Output {
    /// Both streams with their names, the last lines of each, without control characters.
    pub(super) fn shown(&self) -> impl Iterator<Item = (&'static str, Vec<String>)> {
        [("stdout", &self.stdout), ("stderr", &self.stderr)].into_iter().filter_map(
            |(name, stream)| {
                let text = String::from_utf8_lossy(stream);
                let lines: Vec<_> = text.lines().map(terminal::cleaned).collect();
                let first = lines.len().saturating_sub(SHOWN_LINES);
                (!lines.is_empty()).then(|| (name, lines[first..].to_vec()))
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_and_streams_are_compared() {
        let mut case = Case {
            name: "a".into(),
            command: Vec::new(),
            options: Vec::new(),
            env: std::collections::BTreeMap::new(),
            stdin: String::new(),
            timeout: Duration::from_secs(1),
            status: 3,
            stdout: Expected { exactly: Some("out\n".into()), has: Vec::new() },
            stderr: Expected { exactly: None, has: vec!["rr".into()] },
        };
        let output = Output { stdout: b"out\n".to_vec(), stderr: b"err\n".to_vec() };
        assert_eq!(judge(&case, 3, &output), Verdict::Passed);
        assert_eq!(judge(&case, 77, &output), Verdict::Skipped("out".into()));
        let failed = |verdict| matches!(verdict, Verdict::Failed(_));
        assert!(failed(judge(&case, 0, &output)));
        assert!(failed(judge(&case, 124, &output)));
        case.stderr.has.push("absent".into());
        assert!(failed(judge(&case, 3, &output)));
        case.stdout.exactly = Some("out".into());
        assert!(failed(judge(&case, 3, &output)));
    }
}
