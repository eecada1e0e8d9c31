//! Results as the Test Anything Protocol has them (version 13, with its YAML blocks).

use std::io::{self, Write};

use super::{Outcome, Verdict};
use crate::terminal;

/// Writes a line for each case as it comes.
#[derive(Debug)]
pub struct Tap<W>(W);

impl<W: Write> Tap<W> {
    /// Begins, with the number of cases.
    pub fn begin(mut out: W, cases: usize) -> io::Result<Self> {
        writeln!(out, "TAP version 13\n1..{cases}")?;
        out.flush()?;
        Ok(Self(out))
    }

    /// Tells of a case; numbers begin with 0.
    pub fn tell(&mut self, number: usize, outcome: &Outcome) -> io::Result<()> {
        let Self(out) = self;
        let number = number + 1;
        let name = escaped(&outcome.name);
        match &outcome.verdict {
            Verdict::Passed => writeln!(out, "ok {number} - {name}")?,
            Verdict::Skipped(why) => writeln!(out, "ok {number} - {name} # SKIP {}", escaped(why))?,
            Verdict::Failed(why) => {
                writeln!(out, "not ok {number} - {name}\n  ---\n  message: {}", quoted(why))?;
                writeln!(out, "  duration_ms: {}", outcome.time.as_millis())?;
                for (name, lines) in outcome.output.shown() {
                    writeln!(out, "  {name}: |2")?;
                    for line in lines {
                        writeln!(out, "    {line}")?;
                    }
                }
                writeln!(out, "  ...")?;
            }
        }
        out.flush()
    }
}

/// One line, in which `#` begins nothing.
fn escaped(text: &str) -> String {
    terminal::cleaned(text).replace('#', "\\#")
}

/// A string of YAML (and of JSON).
fn quoted(text: &str) -> String {
    let cleaned = terminal::cleaned(text);
    format!("\"{}\"", cleaned.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::verdict::Output;
    use super::*;

    #[test]
    fn lines_are_those_of_the_protocol() {
        let mut bytes = Vec::new();
        let mut tap = Tap::begin(&mut bytes, 3).unwrap();
        let outcome = |name: &str, verdict, stdout: &[u8]| Outcome {
            name: name.into(),
            verdict,
            time: Duration::from_millis(1500),
            output: Output { stdout: stdout.to_vec(), stderr: Vec::new() },
        };
        tap.tell(0, &outcome("a # b", Verdict::Passed, b"")).unwrap();
        tap.tell(1, &outcome("c", Verdict::Skipped("no disk".into()), b"")).unwrap();
        let failed = Verdict::Failed("it is \"so\"".into());
        tap.tell(2, &outcome("d\n", failed, b"one\n\x1b[2J")).unwrap();
        assert_eq!(
            String::from_utf8(bytes).unwrap(),
            "TAP version 13\n1..3\nok 1 - a \\# b\nok 2 - c # SKIP no disk\nnot ok 3 - d\\n\n  ---\n  \
             message: \"it is \\\"so\\\"\"\n  duration_ms: 1500\n  stdout: |2\n    one\n    \
             \\u{1b}[2J\n  ...\n"
        );
    }
}
