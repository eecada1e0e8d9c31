//! A bound on log lines that a guest or a back end can cause at will.

use std::sync::atomic::{AtomicU32, Ordering};

/// Lines that one source may log in its life. Enough to see a pattern, too few to fill a disk.
const LINES: u32 = 16;

/// Counts the lines of one source and says when it has used up its share.
#[derive(Debug, Default)]
pub(crate) struct LogLimit {
    used: AtomicU32,
}

impl LogLimit {
    /// A full share.
    pub(crate) const fn new() -> LogLimit {
        LogLimit {
            used: AtomicU32::new(0),
        }
    }

    /// Logs `message` as a warning unless the share is used up; the last line says that it is.
    pub(crate) fn warn(&self, message: std::fmt::Arguments<'_>) {
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
