//! A bound on log lines that a guest or a back end can cause at will.

use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicU32, Ordering};

/// Lines that one source may log in its life. Enough to see a pattern, too few to fill a disk.
const LINES: u32 = 16;

/// Characters of a text that a back end chose which go into a line.
const TEXT_LIMIT: usize = 200;

/// A text from elsewhere, fit for a log: one line of bounded length.
pub(crate) struct Foreign<'a>(pub(crate) &'a str);

impl fmt::Display for Foreign<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars().take(TEXT_LIMIT) {
            if character.is_control() {
                write!(formatter, "{}", character.escape_default())?;
            } else {
                formatter.write_char(character)?;
            }
        }
        if self.0.chars().nth(TEXT_LIMIT).is_some() { formatter.write_str("...") } else { Ok(()) }
    }
}

/// Counts the lines of one source and says when it has used up its share.
#[derive(Debug, Default)]
pub(crate) struct LogLimit {
    used: AtomicU32,
}

impl LogLimit {
    /// A full share.
    pub(crate) const fn new() -> LogLimit {
        LogLimit { used: AtomicU32::new(0) }
    }

    /// Logs `message` as a warning unless the share is used up; the last line says that it is.
    pub(crate) fn warn(&self, message: fmt::Arguments<'_>) {
        // A load first, so that a flood costs no write to a shared cache line.
        if self.used.load(Ordering::Relaxed) >= LINES {
            return;
        }
        match self.used.fetch_add(1, Ordering::Relaxed) {
            n if n < LINES - 1 => log::warn!("{message}"),
            n if n == LINES - 1 => log::warn!("{message} (further lines of this kind are dropped)"),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_stays_on_one_line_and_ends() {
        assert_eq!(
            Foreign("broken\nERROR: all is lost\u{1b}[2J").to_string(),
            "broken\\nERROR: all is lost\\u{1b}[2J"
        );
        assert_eq!(Foreign(&"ä".repeat(200)).to_string(), "ä".repeat(200));
        assert_eq!(Foreign(&"ä".repeat(201)).to_string(), "ä".repeat(200) + "...");
    }
}
