//! Log lines on standard error, which is the console in a guest.

use log::{LevelFilter, Log, Metadata, Record};

/// Names the level: off, error, warn, info, debug or trace.
const VARIABLE: &str = "VMM_AGENT_LOG";

struct Console;

impl Log for Console {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        // One write per line. A console that is gone leaves nothing to say it on.
        let line = format!("vmm-agent: {}: {}\n", record.level(), record.args());
        let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
    }

    fn flush(&self) {}
}

pub(crate) fn start() {
    let level = std::env::var(VARIABLE).ok().and_then(|text| text.parse().ok());
    // Set by nobody before.
    let _ = log::set_logger(&Console);
    log::set_max_level(level.unwrap_or(LevelFilter::Warn));
}
