//! Frames of a network, and plain loops that send and receive them by one call each.

use std::time::{Duration, Instant};

use devices::virtio::net::{Tap, TapOptions, TapSource};
use rustix::io::Errno;

use crate::{Figures, LoadError, Polling, Processes};

/// Bytes of the header before each frame (virtio 1.3 section 5.1.6).
pub const HEADER: usize = 12;
/// An `EtherType` for experiments: no network stack does anything with it.
const ETHER_TYPE: [u8; 2] = [0x88, 0xb5];
/// Frames between two looks at the clock.
const CLOCK: u64 = 64;

/// Which way frames go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the driver to the interface.
    Send,
    /// From the interface to the driver.
    Receive,
}

/// Frames, and for how long to move them.
#[derive(Debug, Clone, Copy)]
pub struct Frames {
    /// Which way they go.
    pub direction: Direction,
    /// Bytes of each, 64 to 1514.
    pub bytes: u16,
    /// Buffers with the device at a time.
    pub depth: u16,
    /// What the driver does while it waits.
    pub polling: Polling,
    /// How long before figures are taken.
    pub warm_up: Duration,
    /// How long figures are taken.
    pub duration: Duration,
}

impl Frames {
    /// The bytes of a frame.
    pub fn frame(&self) -> Vec<u8> {
        // To everybody, from an address that nobody was given.
        let mut frame = [[0xff; 6], [2, 0, 0, 0, 0, 1]].concat();
        frame.extend(ETHER_TYPE);
        frame.resize(self.bytes.into(), 0);
        frame
    }

    pub(crate) fn with_header(&self) -> Vec<u8> {
        [vec![0; HEADER], self.frame()].concat()
    }
}

/// Moves frames through a tap of this name by one call each, in this thread.
pub fn plain_loop(interface: &str, frames: &Frames) -> Result<Figures, LoadError> {
    let tap = Tap::open(TapOptions::new(TapSource::Name(interface.into())));
    let tap = tap.map_err(|error| LoadError::Unfit(error.to_string()))?;
    let queue = tap.queue(0).ok_or_else(|| LoadError::Unfit("has no queue".into()))?;
    let mut frame = frames.with_header();
    let mut one = || match frames.direction {
        Direction::Send => rustix::io::write(queue, &frame),
        Direction::Receive => {
            frame.resize(2048, 0);
            rustix::io::read(queue, &mut frame)
        }
    };
    let mut figures = Figures::default();
    let begin = Instant::now() + frames.warm_up;
    let end = begin + frames.duration;
    let mut now = Instant::now();
    let mut processes = None;
    while now < end {
        if processes.is_none() && now >= begin {
            processes = Some(Processes::this_thread());
        }
        let mut moved = 0;
        for _ in 0..CLOCK {
            match one() {
                Ok(_) => moved += 1,
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(errno) => {
                    let doing = "move a frame by a call of its own";
                    return Err(LoadError::System { doing, source: errno.into() });
                }
            }
        }
        let done = Instant::now();
        if now >= begin && moved > 0 {
            let each = (done - now) / moved;
            (0..moved).for_each(|_| figures.count(each));
        }
        now = done;
    }
    figures.elapsed = frames.duration;
    figures.cost = processes.map(Processes::cost).unwrap_or_default();
    Ok(figures)
}
