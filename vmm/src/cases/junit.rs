//! Results as the XML of `JUnit`, which most servers for continuous integration read.

use std::io::{self, Write};

use super::{Outcome, Verdict};
use crate::markup::escaped;

/// Writes the whole document.
pub fn write(mut out: impl Write, suite: &str, outcomes: &[Outcome]) -> io::Result<()> {
    let count = |is: fn(&Verdict) -> bool| outcomes.iter().filter(|one| is(&one.verdict)).count();
    let failed = count(|verdict| matches!(verdict, Verdict::Failed(_)));
    let skipped = count(|verdict| matches!(verdict, Verdict::Skipped(_)));
    let time: f64 = outcomes.iter().map(|one| one.time.as_secs_f64()).sum();
    let suite = escaped(suite);
    writeln!(out, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>")?;
    writeln!(
        out,
        "  <testsuite name=\"{suite}\" tests=\"{}\" failures=\"{failed}\" errors=\"0\" \
         skipped=\"{skipped}\" time=\"{time:.3}\">",
        outcomes.len()
    )?;
    for outcome in outcomes {
        let (name, time) = (escaped(&outcome.name), outcome.time.as_secs_f64());
        writeln!(out, "    <testcase name=\"{name}\" classname=\"{suite}\" time=\"{time:.3}\">")?;
        match &outcome.verdict {
            Verdict::Passed => {}
            Verdict::Skipped(why) => {
                writeln!(out, "      <skipped message=\"{}\"/>", escaped(why))?;
            }
            Verdict::Failed(why) => {
                writeln!(out, "      <failure message=\"{}\"/>", escaped(why))?;
            }
        }
        for (name, lines) in outcome.output.shown() {
            let element = if name == "stdout" { "system-out" } else { "system-err" };
            writeln!(out, "      <{element}>{}</{element}>", escaped(&lines.join("\n")))?;
        }
        writeln!(out, "    </testcase>")?;
    }
    writeln!(out, "  </testsuite>\n</testsuites>")?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::verdict::Output;
    use super::*;

    #[test]
    fn what_a_guest_wrote_stays_text() {
        let outcome = |verdict| Outcome {
            name: "<a>".into(),
            verdict,
            time: Duration::from_millis(1500),
            output: Output { stdout: b"]]></system-out>\x00&".to_vec(), stderr: Vec::new() },
        };
        let outcomes = [outcome(Verdict::Passed), outcome(Verdict::Failed("\"no\"".into()))];
        let mut bytes = Vec::new();
        write(&mut bytes, "some", &outcomes).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        assert!(
            text.contains("tests=\"2\" failures=\"1\" errors=\"0\" skipped=\"0\" time=\"3.000\"")
        );
        assert!(text.contains("<failure message=\"&quot;no&quot;\"/>"), "{text}");
        assert!(text.contains("<system-out>]]&gt;&lt;/system-out&gt;\\u{0}&amp;</system-out>"));
        assert_eq!(text.matches("</testcase>").count(), 2);
    }
}
