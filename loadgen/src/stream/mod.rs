//! Streams of TCP between a driver and the host's kernel, by way of a tap: bytes in order, counted and
//! compared where they come out.
//!
//! ```text
//!   send:     pattern ─► driver ─► carrier ─► tap ─► kernel's TCP ─► program of the host, compares
//!   receive:  program of the host ─► kernel's TCP ─► tap ─► carrier ─► driver, compares ◄─ pattern
//!                                                      │
//!              rings of a back end, or plain calls ────┘
//! ```
//!
//! The other side is the same for all carriers. What differs is how frames get to the tap, and how long
//! they are: of the MTU, or segments of 64 KiB that the kernel's side takes and gives whole (TSO).

mod driver;
mod host;
mod plain;
mod rings;
mod tcp;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::frames::Direction;
use crate::{Cost, Figures, LoadError, Polling, Processes, SystemCalls};

use self::driver::Driver;
pub use self::rings::StreamNet;

/// Bytes of a stream in a frame of the usual MTU.
pub const SEGMENT: usize = 1460;
/// Segments in a large frame: what fits into an IP packet.
const SEGMENTS: usize = 44;
/// The bytes of a stream repeat after so many: as many as a large frame has.
const PERIOD: usize = SEGMENT * SEGMENTS;
/// Bytes under way at most. In frames of the MTU these are less than a tap holds before it drops any.
const WINDOW: usize = 8 * PERIOD;

/// How long frames are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameSize {
    /// As the MTU has it.
    Mtu,
    /// As large as a segment to be cut up may be.
    Large,
}

/// A stream, and for how long it flows.
#[derive(Debug, Clone, Copy)]
pub struct Stream {
    /// Which way it flows.
    pub direction: Direction,
    /// How long its frames are.
    pub frames: FrameSize,
    /// What the driver does while it waits.
    pub polling: Polling,
    /// How long before figures are taken.
    pub warm_up: Duration,
    /// How long figures are taken.
    pub duration: Duration,
}

/// A stream through a tap of this name by one call for each frame, in this thread.
pub fn plain_stream(interface: &str, stream: &Stream) -> Result<Figures, LoadError> {
    let mut carrier = plain::Plain::open(interface, stream)?;
    let meter = Meter::default();
    let host = host::Host::start(interface, stream.direction, meter.clone())?;
    // What belongs to this thread is read by it.
    let mut costs = (None, Cost::default());
    let mut marks = (0, 0);
    let outcome = Driver::connect(&mut carrier, host.wire(), &meter).and_then(|driver| {
        let run = Run::new(stream);
        driver.drive(stream, run.end, |now| {
            if costs.0.is_none() && now >= run.begin {
                costs.0 = Some(Processes::this_thread());
                marks.0 = meter.bytes();
            }
        })
    });
    marks.1 = meter.bytes();
    if let Some(processes) = costs.0 {
        costs.1 = processes.cost();
    }
    host.finish(outcome)?;
    Ok(figures(marks, stream.duration, costs.1))
}

/// When figures are taken.
#[derive(Debug, Clone, Copy)]
struct Run {
    begin: Instant,
    end: Instant,
}

impl Run {
    fn new(stream: &Stream) -> Self {
        let begin = Instant::now() + stream.warm_up;
        Self { begin, end: begin + stream.duration }
    }

    /// Figures of a process and its family, taken from beside while others work.
    fn watch(self, process: u32, meter: &Meter) -> Result<Figures, LoadError> {
        let sleep = |until: Instant| {
            std::thread::sleep(until.saturating_duration_since(Instant::now()));
        };
        sleep(self.begin);
        let before = meter.bytes();
        let processes = Processes::watch(process, SystemCalls::Counted);
        let begin = Instant::now();
        sleep(self.end);
        let marks = (before, meter.bytes());
        let cost =
            processes.map(Processes::cost).map_err(LoadError::system("look at processes"))?;
        Ok(figures(marks, begin.elapsed(), cost))
    }
}

/// Figures of a stream: its operations are segments of the MTU's size.
fn figures((before, after): (u64, u64), elapsed: Duration, cost: Cost) -> Figures {
    let operations = (after - before) / SEGMENT as u64;
    Figures { operations, elapsed, cost, ..Figures::default() }
}

/// Bytes that came out right, whoever asks.
#[derive(Debug, Clone, Default)]
struct Meter(Arc<AtomicU64>);

impl Meter {
    fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Bytes of [`pattern`].
fn pattern_bytes() -> usize {
    3 * PERIOD
}

/// All that a stream has to say, three times: whatever a packet has of it is there in one piece.
fn pattern() -> Vec<u8> {
    let period: Vec<u8> = (0..PERIOD).map(|at| (at ^ (at >> 8) ^ (at / SEGMENT)) as u8).collect();
    period.repeat(pattern_bytes() / PERIOD)
}

/// Where in the pattern a byte of the stream is.
fn place(bytes: u64) -> usize {
    (bytes % PERIOD as u64) as usize
}
