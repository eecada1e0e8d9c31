//! What actors log: each has a pipe of its own from its standard error to the machine.
//!
//! ```text
//!   actor: log ──► "WARN target message\n" ──► pipe, which never waits ──► machine: log, with the name
//! ```
//!
//! An actor may have been taken over, so that what comes is hostile: the machine reads a little at a
//! time, cuts lines, passes on a bounded number of them and counts the others, and lets nothing
//! through that controls a terminal. What a full pipe does not take is lost; nobody waits for anybody.

use std::cell::OnceCell;
use std::fmt::Write as _;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use log::Level;
use rustix::pipe::PipeFlags;

use crate::terminal;

/// Bytes read at once: with [`REST`], what a hostile actor can make the machine read in a second.
const CHUNK: usize = 8 << 10;
/// How long the machine leaves a pipe alone after it has read from it.
pub const REST: Duration = Duration::from_millis(20);
/// Reads that empty a full pipe, whose size is 64 KiB where nobody chose another.
const DRAINING_READS: usize = 16;
/// Bytes kept of a line; the longest are those of panics.
const LINE_BYTES: usize = 1024;
/// Lines passed on in each period: more than an actor has to say when all goes wrong.
const LINES: u32 = 32;
/// The same for those who asked for details.
const DETAILED_LINES: u32 = 2000;
const PERIOD: Duration = Duration::from_secs(1);
/// What the target of a line is when it names none.
const TARGET: &str = "vmm::actor";
const LONGEST_TARGET: usize = 80;

thread_local! {
    /// Where this thread logs, if not to standard error.
    static PIPE: OnceCell<OwnedFd> = const { OnceCell::new() };
}

/// Whether this process is an actor.
static ACTOR: AtomicBool = AtomicBool::new(false);

/// The beginning of a log line if this process is an actor, whose lines the machine finishes.
pub fn actor_prefix(record: &log::Record<'_>) -> Option<String> {
    let is_actor = ACTOR.load(Ordering::Relaxed);
    is_actor.then(|| format!("{} {} ", record.level(), record.target()))
}

/// In an actor: from now on standard error is the pipe.
pub(super) fn speak_into(pipe: BorrowedFd<'_>) -> io::Result<()> {
    rustix::stdio::dup2_stderr(pipe)?;
    ACTOR.store(true, Ordering::Relaxed);
    Ok(())
}

/// In an actor: from now on what this thread logs goes into a pipe of its own.
pub(super) fn speak_here(pipe: OwnedFd) {
    // A thread is one actor for all its life.
    let _ = PIPE.with(|own| own.set(pipe));
}

/// In an actor: writes a line into its pipe. What a full pipe does not take is lost.
pub fn actor_says(line: &[u8]) {
    let _ = PIPE.with(|own| match own.get() {
        Some(pipe) => rustix::io::write(pipe, line),
        None => rustix::io::write(std::io::stderr(), line),
    });
}

/// The machine's end of an actor's pipe.
#[derive(Debug)]
pub struct LogPipe {
    pipe: OwnedFd,
    lines: Lines,
    last_error: Option<String>,
}

/// What reading came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Something was there, and more may be.
    More,
    /// Nothing is there for now.
    Dry,
    /// The actor is gone, and everything was read.
    Ended,
}

impl LogPipe {
    /// The machine's end, and the actor's.
    pub(super) fn new() -> io::Result<(Self, OwnedFd)> {
        // A hostile actor can make its own end wait, and only itself with it.
        let (pipe, end) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let detailed = log::max_level() > log::LevelFilter::Info;
        let limit = if detailed { DETAILED_LINES } else { LINES };
        Ok((Self { pipe, lines: Lines::new(limit, Instant::now()), last_error: None }, end))
    }

    /// Reads once and logs the lines that are complete, with the name of who said them.
    pub fn pass_on(&mut self, name: &str) -> Flow {
        let mut chunk = [0; CHUNK];
        let flow = match rustix::io::retry_on_intr(|| rustix::io::read(&self.pipe, &mut chunk)) {
            Ok(0) => Flow::Ended,
            Ok(length) => {
                let last_error = &mut self.last_error;
                self.lines.feed(&chunk[..length], Instant::now(), |line| {
                    say(name, line, last_error);
                });
                Flow::More
            }
            Err(rustix::io::Errno::AGAIN) => Flow::Dry,
            Err(_) => Flow::Ended,
        };
        let dropped = match flow {
            Flow::Ended => self.lines.end(),
            Flow::More | Flow::Dry => self.lines.overdue(Instant::now()),
        };
        if dropped > 0 {
            log::warn!("{name}: {dropped} lines of its process are left out here");
        }
        flow
    }

    /// Logs what is left of an actor that is dead.
    pub fn drain(&mut self, name: &str) {
        for _ in 0..DRAINING_READS {
            if self.pass_on(name) != Flow::More {
                break;
            }
        }
    }

    /// The last error that it logged.
    pub fn last_error(&self) -> Option<&str> {
        self.last_error.as_deref()
    }
}

impl AsFd for LogPipe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

fn say(name: &str, line: &[u8], last_error: &mut Option<String>) {
    let (level, target, text) = parse(line);
    log::log!(target: &target, level, "{name}: {text}");
    if level == Level::Error {
        *last_error = Some(text);
    }
}

/// Level, target and text of a line. One that is not as it should be is a warning.
fn parse(line: &[u8]) -> (Level, String, String) {
    let line = String::from_utf8_lossy(line);
    let mut words = line.splitn(3, ' ');
    let level = words.next().and_then(|word| word.parse().ok());
    let target = words.next().filter(|word| is_target(word));
    match (level, target, words.next()) {
        (Some(level), Some(target), Some(text)) => (level, target.to_owned(), clean(text)),
        _ => (Level::Warn, TARGET.to_owned(), clean(&line)),
    }
}

fn is_target(word: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':');
    (1..=LONGEST_TARGET).contains(&word.len()) && word.bytes().all(fits)
}

fn clean(text: &str) -> String {
    let mut cleaned = String::with_capacity(text.len());
    // Writing to a string cannot fail.
    let _ = terminal::Clean(&mut cleaned).write_str(text);
    cleaned
}

/// Cuts bytes into lines, and lets a bounded number of them pass in a time.
#[derive(Debug)]
struct Lines {
    /// A line without its end so far.
    partial: Vec<u8>,
    period_began: Instant,
    /// In each period.
    limit: u32,
    left: u32,
    dropped: u64,
}

impl Lines {
    fn new(limit: u32, now: Instant) -> Self {
        Self { partial: Vec::new(), period_began: now, limit, left: limit, dropped: 0 }
    }

    fn feed(&mut self, bytes: &[u8], now: Instant, mut pass: impl FnMut(&[u8])) {
        // Before the lines that fill a period anew, so that nothing is left out in silence.
        if self.dropped == 0 {
            self.renew(now);
        }
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ends) = match piece.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (piece, false),
            };
            let room = LINE_BYTES - self.partial.len();
            self.partial.extend_from_slice(&text[..text.len().min(room)]);
            if ends {
                self.finish(&mut pass);
            }
        }
    }

    fn finish(&mut self, pass: &mut impl FnMut(&[u8])) {
        if self.left > 0 {
            self.left -= 1;
            pass(&self.partial);
        } else {
            self.dropped += 1;
        }
        self.partial.clear();
    }

    fn renew(&mut self, now: Instant) {
        if now.saturating_duration_since(self.period_began) >= PERIOD {
            self.period_began = now;
            self.left = self.limit;
        }
    }

    /// How many lines were dropped in a period that is over.
    fn overdue(&mut self, now: Instant) -> u64 {
        if self.dropped == 0 || now.saturating_duration_since(self.period_began) < PERIOD {
            return 0;
        }
        self.renew(now);
        self.end()
    }

    /// How many lines were dropped and not told of.
    fn end(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(lines: &mut Lines, bytes: &[u8], now: Instant) -> Vec<String> {
        let mut passed = Vec::new();
        lines.feed(bytes, now, |line| passed.push(String::from_utf8_lossy(line).into_owned()));
        passed
    }

    #[test]
    fn lines_come_in_pieces() {
        let now = Instant::now();
        let mut lines = Lines::new(LINES, now);
        assert_eq!(feed(&mut lines, b"one\ntw", now), ["one"]);
        assert_eq!(feed(&mut lines, b"o\n\nthree", now), ["two", ""]);
        assert_eq!(feed(&mut lines, b"\n", now), ["three"]);
    }

    #[test]
    fn long_lines_are_cut_and_take_no_memory() {
        let now = Instant::now();
        let mut lines = Lines::new(LINES, now);
        for _ in 0..1000 {
            assert!(feed(&mut lines, &[b'a'; CHUNK], now).is_empty());
        }
        assert!(lines.partial.capacity() <= 2 * LINE_BYTES);
        assert_eq!(feed(&mut lines, b"b\nc\n", now), ["a".repeat(LINE_BYTES), "c".into()]);
    }

    #[test]
    fn a_flood_is_counted_and_passes_in_part() {
        let start = Instant::now();
        let mut lines = Lines::new(LINES, start);
        let flood = b"\n".repeat(1000);
        assert_eq!(feed(&mut lines, &flood, start).len(), LINES as usize);
        assert_eq!(lines.overdue(start), 0);
        assert_eq!(feed(&mut lines, &flood, start + PERIOD / 2).len(), 0);
        assert_eq!(lines.overdue(start + PERIOD), 2000 - u64::from(LINES));
        assert_eq!(feed(&mut lines, &flood, start + PERIOD).len(), LINES as usize);
        assert_eq!(lines.end(), 1000 - u64::from(LINES));
        assert_eq!(lines.end(), 0);
    }

    #[test]
    fn lines_are_taken_apart_and_cleaned() {
        let table: [(&[u8], Level, &str, &str); 6] = [
            (b"ERROR devices::virtio it broke", Level::Error, "devices::virtio", "it broke"),
            (b"DEBUG vmm ", Level::Debug, "vmm", ""),
            (b"a plain line", Level::Warn, TARGET, "a plain line"),
            (b"ERROR \x1b[2J text", Level::Warn, TARGET, "ERROR \\u{1b}[2J text"),
            (b"INFO vmm a\x1b[2J\x07", Level::Info, "vmm", "a\\u{1b}[2J\\u{7}"),
            (b"\xff\x80", Level::Warn, TARGET, "\u{fffd}\u{fffd}"),
        ];
        for (line, level, target, text) in table {
            assert_eq!(parse(line), (level, target.to_owned(), text.to_owned()));
        }
    }
}
