//! Log lines on standard error, fit for a terminal in raw mode.

use std::fmt::Write as _;
use std::io::Write;
use std::time::Instant;

use env_logger::{Builder, Target};
use log::LevelFilter;

use super::Verbosity;
use crate::{terminal, warden};

/// Names the levels per module, as in `VMM_LOG=warn,executor=debug`.
const VARIABLE: &str = "VMM_LOG";

/// Starts logging. Flags win over the environment.
pub(super) fn start(verbosity: Verbosity) {
    let mut builder = Builder::new();
    match (level(verbosity), std::env::var(VARIABLE)) {
        (None, Ok(filters)) => builder.filter_level(LevelFilter::Warn).parse_filters(&filters),
        (level, _) => builder.filter_level(level.unwrap_or(LevelFilter::Warn)),
    };
    let start = Instant::now();
    builder.target(Target::Stderr).format(move |out, record| {
        // One write per line, so that lines of several threads do not mix.
        if let Some(mut line) = warden::actor_prefix(record) {
            append_clean(&mut line, record.args());
            line.push('\n');
            warden::actor_says(line.as_bytes());
            return Ok(());
        }
        let mut line = prefix(start, record);
        append_clean(&mut line, record.args());
        line.push_str(terminal::line_end());
        out.write_all(line.as_bytes())
    });
    builder.init();
}

fn prefix(start: Instant, record: &log::Record<'_>) -> String {
    let seconds = start.elapsed().as_secs_f64();
    format!("[{seconds:9.3} {:5} {}] ", record.level(), record.target())
}

fn level(verbosity: Verbosity) -> Option<LevelFilter> {
    match (verbosity.verbose, verbosity.quiet) {
        (0, 0) => None,
        (0, 1) => Some(LevelFilter::Error),
        (0, _) => Some(LevelFilter::Off),
        (1, _) => Some(LevelFilter::Info),
        (2, _) => Some(LevelFilter::Debug),
        (_, _) => Some(LevelFilter::Trace),
    }
}

/// Appends a message in which nothing can control the terminal: guests choose parts of some.
fn append_clean(line: &mut String, message: &std::fmt::Arguments<'_>) {
    // Only a Display that fails by itself fails here; what it wrote until then is logged.
    let _ = terminal::Clean(line).write_fmt(*message);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_choose_the_level() {
        let table = [
            (0, 0, None),
            (1, 0, Some(LevelFilter::Info)),
            (2, 0, Some(LevelFilter::Debug)),
            (200, 0, Some(LevelFilter::Trace)),
            (0, 1, Some(LevelFilter::Error)),
            (0, 2, Some(LevelFilter::Off)),
        ];
        for (verbose, quiet, expected) in table {
            assert_eq!(level(Verbosity { verbose, quiet }), expected);
        }
    }

    #[test]
    fn messages_cannot_control_the_terminal() {
        let mut line = String::new();
        append_clean(&mut line, &format_args!("a{}b", "\x1b[2J\r\n"));
        assert_eq!(line, "a\\u{1b}[2J\\r\\nb");
    }
}
