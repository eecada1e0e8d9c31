//! The terminal that `vmm` was started from.
//!
//! ```text
//!            enter()                     suspend(), drop, restore(), panic
//!   cooked ───────────▶ raw (the guest's) ─────────────────────────────▶ cooked
//!     ▲                                                                    │
//!     └──────────────────────── resume() after SIGCONT ────────────────────┘
//! ```
//!
//! In raw mode every key goes to the guest, apart from the escape keys of [`escape`]. The modes
//! that were found at the start are put back on every way out. While the process is in the
//! background, the terminal belongs to somebody else and is left alone.

mod clean;
pub mod escape;

pub use clean::{Clean, cleaned};

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Once, OnceLock};

use rustix::process::getpgrp;
use rustix::stdio::{stderr, stdin, stdout};
use rustix::termios::{
    OptionalActions, OutputModes, Termios, Winsize, isatty, tcgetattr, tcgetpgrp, tcgetwinsize,
    tcsetattr,
};

/// The modes found when the terminal was first made raw.
static ORIGINAL: OnceLock<Termios> = OnceLock::new();

/// The terminal has modes of ours.
static RAW: AtomicBool = AtomicBool::new(false);

/// The last byte of guest output on the terminal or standard output did not end a line.
static MID_LINE: AtomicBool = AtomicBool::new(false);

/// What a line feed from the guest does on a raw terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineFeed {
    /// It moves one line down: the guest has a terminal driver of its own.
    AsSent,
    /// It starts a new line: the guest writes plain text.
    NewLine,
}

/// A terminal on standard input that belongs to the guest until this is dropped.
#[derive(Debug)]
pub struct RawTerminal {
    line_feed: LineFeed,
}

impl RawTerminal {
    /// Makes the terminal raw. None: standard input is no terminal.
    ///
    /// In the background nothing is changed yet; [`RawTerminal::resume`] does it later.
    pub fn enter(line_feed: LineFeed) -> io::Result<Option<Self>> {
        if !isatty(stdin()) {
            return Ok(None);
        }
        restore_before_panics();
        let terminal = Self { line_feed };
        terminal.resume()?;
        Ok(Some(terminal))
    }

    /// Makes the terminal raw, again, if the process is in the foreground now.
    pub fn resume(&self) -> io::Result<Ownership> {
        if !in_foreground() {
            return Ok(Ownership::Background);
        }
        if RAW.load(Ordering::Acquire) {
            return Ok(Ownership::Foreground);
        }
        let found = tcgetattr(stdin())?;
        let mut raw = ORIGINAL.get_or_init(|| found).clone();
        raw.make_raw();
        if self.line_feed == LineFeed::NewLine {
            raw.output_modes |= OutputModes::OPOST | OutputModes::ONLCR;
        }
        // Set first: whoever sees raw modes must also find that they are ours.
        RAW.store(true, Ordering::Release);
        tcsetattr(stdin(), OptionalActions::Now, &raw)?;
        Ok(Ownership::Foreground)
    }

    /// Gives the terminal back for as long as the process is stopped.
    pub fn suspend(&self) {
        restore();
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        restore();
    }
}

/// Whose terminal it is at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ownership {
    /// This process's.
    Foreground,
    /// Some other job's; reading from it would stop this process.
    Background,
}

/// Puts the modes back that were found at the start. Safe at any time, any number of times.
pub fn restore() {
    if !RAW.swap(false, Ordering::AcqRel) || !in_foreground() {
        return;
    }
    if let Some(original) = ORIGINAL.get() {
        // A terminal that is gone needs no modes.
        let _ = tcsetattr(stdin(), OptionalActions::Now, original);
    }
}

/// The process may use the terminal on standard input.
pub fn in_foreground() -> bool {
    // Not our controlling terminal: job control does not apply to it.
    tcgetpgrp(stdin()).map_or(true, |foreground| foreground == getpgrp())
}

/// The size of the terminal that guest output goes to.
pub fn window_size() -> Option<Winsize> {
    tcgetwinsize(stdout()).ok()
}

/// How a line of text of ours ends.
pub fn line_end() -> &'static str {
    if RAW.load(Ordering::Acquire) { "\r\n" } else { "\n" }
}

/// What has to be written to standard error so that a line of ours starts on a line of its own.
pub fn start_of_error_line() -> &'static str {
    if isatty(stdout()) && isatty(stderr()) { start_of_line() } else { "" }
}

/// What has to be written to standard output so that a line of ours starts on a line of its own.
pub fn start_of_line() -> &'static str {
    if MID_LINE.swap(false, Ordering::Relaxed) { line_end() } else { "" }
}

/// Remembers where guest output to standard output has come to.
pub fn note_output(bytes: &[u8]) {
    if let Some(last) = bytes.last() {
        MID_LINE.store(!matches!(last, b'\n' | b'\r'), Ordering::Relaxed);
    }
}

/// Lets a panic message be read, also where a panic ends the process at once.
fn restore_before_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let next = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            restore();
            next(info);
        }));
    });
}
