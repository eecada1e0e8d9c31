//! A record as a line of text that nobody need be afraid of.

use std::fmt::Write;

use proto::v1::{LogRecord, log_record::Source};

use super::date::Date;

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
/// RFC 5424 section 6.2.1, with the names of syslog(3).
const SEVERITIES: [&str; 8] =
    ["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"];
/// Facility 23, severity 7.
const MAX_PRIORITY: u32 = 191;
/// A line of a guest that is longer is cut.
const MAX_TEXT_BYTES: usize = 8 << 10;

/// How lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Time, tag, source and severity, text
    #[default]
    Plain,
    /// The syslog protocol (RFC 5424)
    Rfc5424,
    /// What syslog was before (RFC 3164)
    Rfc3164,
}

/// A line without its end. The tag stands where syslog has the name of the host.
pub(super) fn line(record: &LogRecord, tag: &str, format: Format) -> String {
    let mut line = String::new();
    let date = Date::from_ns(record.time_ns);
    let priority = record.priority.min(MAX_PRIORITY);
    let Date { year, month, day, hour, minute, second, micros } = date;
    let is_kernel = record.source() == Source::Kernel;
    // Writing to a String cannot fail.
    let _ = match format {
        Format::Plain => {
            let source = if is_kernel { "kernel" } else { "user" };
            let severity = SEVERITIES[priority as usize % SEVERITIES.len()];
            write!(
                line,
                "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z {tag} \
                 {source}.{severity}: "
            )
        }
        Format::Rfc5424 => {
            let program = if is_kernel { "kernel" } else { "-" };
            write!(
                line,
                "<{priority}>1 {year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.\
                 {micros:06}Z {tag} {program} - - - "
            )
        }
        Format::Rfc3164 => {
            let month = MONTHS[(month as usize).saturating_sub(1) % MONTHS.len()];
            let program = if is_kernel { "kernel: " } else { "" };
            write!(
                line,
                "<{priority}>{month} {day:2} {hour:02}:{minute:02}:{second:02} {tag} {program}"
            )
        }
    };
    scrub(&record.text, &mut line);
    line
}

/// Text of several lines, each made harmless.
pub(crate) fn scrubbed_lines(text: &[u8]) -> String {
    let mut lines = String::new();
    for text in text.strip_suffix(b"\n").unwrap_or(text).split(|&byte| byte == b'\n') {
        scrub(text, &mut lines);
        lines.push('\n');
    }
    lines
}

/// Appends text in which control characters are octal numbers, as syslogd writes them, and whatever is no
/// UTF-8 or could turn a line around is U+FFFD.
fn scrub(text: &[u8], line: &mut String) {
    let shown = &text[..text.len().min(MAX_TEXT_BYTES)];
    for letter in String::from_utf8_lossy(shown).chars() {
        match letter {
            // Marks of direction, and separators of lines.
            '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                line.push(char::REPLACEMENT_CHARACTER);
            }
            letter if letter.is_control() => {
                let _ = write!(line, "#{:03o}", u32::from(letter));
            }
            letter => line.push(letter),
        }
    }
    if shown.len() < text.len() {
        line.push('…');
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(source: Source, priority: u32, text: &[u8]) -> LogRecord {
        let time_ns = 1_795_273_445_000_006_000;
        LogRecord { source: source.into(), priority, time_ns, text: text.to_vec() }
    }

    #[test]
    fn formats_have_time_tag_and_severity() {
        let kernel = record(Source::Kernel, 6, b"NET: up");
        assert_eq!(
            line(&kernel, "vm1", Format::Plain),
            "2026-11-21T15:04:05.000006Z vm1 kernel.info: NET: up"
        );
        assert_eq!(
            line(&kernel, "vm1", Format::Rfc5424),
            "<6>1 2026-11-21T15:04:05.000006Z vm1 kernel - - - NET: up"
        );
        let user = record(Source::User, 13, b"cron[7]: done");
        assert_eq!(line(&user, "vm1", Format::Rfc3164), "<13>Nov 21 15:04:05 vm1 cron[7]: done");
    }

    #[test]
    fn nothing_controls_a_terminal_or_makes_a_second_line() {
        let hostile = "\x1b[2J\nroot: all is well\r\u{202e}\u{85}\u{2028}é".as_bytes();
        let mut bytes = hostile.to_vec();
        bytes.push(0xff);
        let line = line(&record(Source::User, 13, &bytes), "t", Format::Plain);
        assert!(
            line.ends_with("#033[2J#012root: all is well#015\u{fffd}#205\u{fffd}é\u{fffd}"),
            "{line}"
        );
        assert!(line.len() < 200);
    }

    proptest! {
        #[test]
        fn any_record_is_one_bounded_line(
            text: Vec<u8>, priority: u32, time_ns: u64, source: i32, long in 0..20_000_usize,
        ) {
            let mut text = text;
            text.resize(text.len() + long, b'\0');
            let record = LogRecord { source, priority, time_ns, text };
            for format in [Format::Plain, Format::Rfc5424, Format::Rfc3164] {
                let line = line(&record, "tag", format);
                prop_assert!(!line.chars().any(char::is_control));
                prop_assert!(line.len() <= 5 * MAX_TEXT_BYTES);
            }
        }
    }
}
