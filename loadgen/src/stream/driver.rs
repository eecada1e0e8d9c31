//! The driver's end of a stream, over whatever carries its frames.

use std::time::{Duration, Instant};

use super::tcp::{Connection, Head, Meaning, START, Segment, Wire};
use super::{FrameSize, Meter, PERIOD, SEGMENT, Stream, WINDOW, place};
use crate::LoadError;
use crate::frames::Direction;
use crate::ring::PATIENCE;

/// After how long without a word about what was sent it counts as lost.
const LOST: Duration = Duration::from_millis(50);
/// Bytes that may come before the other side is told, unless nothing else comes.
const TOLD: usize = PERIOD;
/// Frames between two looks for what comes back.
const BATCH: usize = 44;

/// A way for frames to and from a tap. All frames have virtio's header first.
pub(super) trait Carrier {
    /// Whether there is room for another frame.
    fn has_room(&mut self) -> bool;

    /// Hands a frame over: headers and a part of the pattern. It is lost where there is no room.
    fn send(&mut self, head: &Head, at: usize, bytes: usize) -> Result<(), LoadError>;

    /// Lets all of them go.
    fn flush(&mut self) -> Result<(), LoadError>;

    /// The length of the next frame that came, its first bytes in `start`. None if there is none.
    fn receive(&mut self, start: &mut [u8; START]) -> Result<Option<usize>, LoadError>;

    /// Whether the last frame that came goes on with this from there on.
    fn continues(&mut self, at: usize, with: &[u8]) -> Result<bool, LoadError>;

    /// Waits for a frame to come, until then at the latest.
    fn wait(&mut self, until: Instant) -> Result<(), LoadError>;
}

/// The driver's end of a stream that the host has agreed to.
pub(super) struct Driver<'a, C> {
    carrier: &'a mut C,
    connection: Connection,
    meter: &'a Meter,
    pattern: Vec<u8>,
}

impl<'a, C: Carrier> Driver<'a, C> {
    /// Connects to the host.
    pub(super) fn connect(
        carrier: &'a mut C,
        wire: Wire,
        meter: &'a Meter,
    ) -> Result<Self, LoadError> {
        let pattern = super::pattern();
        let mut driver =
            Self { carrier, connection: Connection::new(wire, WINDOW), meter, pattern };
        let end = Instant::now() + PATIENCE;
        loop {
            let head = driver.connection.open();
            driver.say(&head)?;
            let now = Instant::now();
            if now >= end {
                return Err(LoadError::Unfit("carries no answer from the host".into()));
            }
            // The interface may not be up yet.
            let again = end.min(now + LOST);
            while Instant::now() < again {
                while let Some((segment, _)) = driver.next()? {
                    if driver.connection.take(&segment) == Meaning::Connected {
                        let head = driver.connection.acknowledge();
                        driver.say(&head)?;
                        return Ok(driver);
                    }
                }
                driver.carrier.wait(again)?;
            }
        }
    }

    /// Moves bytes until the end; `look` is told the time now and then.
    pub(super) fn drive(
        mut self,
        stream: &Stream,
        end: Instant,
        mut look: impl FnMut(Instant),
    ) -> Result<(), LoadError> {
        let largest = match stream.frames {
            FrameSize::Mtu => SEGMENT,
            FrameSize::Large => PERIOD,
        };
        // When something came, and when to send again what nobody has said a word about.
        let (mut came_at, mut again_at) = (Instant::now(), Instant::now() + LOST);
        loop {
            let now = Instant::now();
            if now >= end {
                break;
            }
            look(now);
            let came = self.receive()?;
            let sent = stream.direction == Direction::Send && self.send(largest)?;
            if came {
                came_at = now;
            }
            if came || sent {
                again_at = now + LOST;
                continue;
            }
            self.tell()?;
            if now - came_at > PATIENCE {
                return Err(LoadError::Stuck);
            }
            if now >= again_at && self.connection.under_way() > 0 {
                self.connection.go_back();
                again_at = now + LOST;
            } else {
                self.carrier.wait(end.min(again_at.max(now + LOST)))?;
            }
        }
        let head = self.connection.reset();
        self.carrier.send(&head, 0, 0)?;
        self.carrier.flush()
    }

    /// Takes some of what has come. False if nothing has.
    fn receive(&mut self) -> Result<bool, LoadError> {
        let mut came = false;
        for _ in 0..BATCH {
            let Some((segment, length)) = self.next()? else { break };
            came = true;
            let from = place(self.connection.expected());
            match self.connection.take(&segment) {
                Meaning::Data => self.compare(&segment, length, from)?,
                // The last word of this side was lost; or the other side lost something, and hears it.
                Meaning::Connected | Meaning::OutOfOrder => {
                    let head = self.connection.acknowledge();
                    self.say(&head)?;
                }
                Meaning::Acknowledged => {}
                Meaning::Over => return Err(LoadError::Wrong("the host hung up".into())),
            }
            if self.connection.unacknowledged() >= TOLD {
                self.tell()?;
            }
        }
        Ok(came)
    }

    fn compare(&mut self, segment: &Segment, length: usize, from: usize) -> Result<(), LoadError> {
        let wrong = |what: &str| Err(LoadError::Wrong(format!("a frame of a stream {what}")));
        if segment.length > usize::from(u16::MAX) || segment.at + segment.length > length {
            return wrong("is longer than it can be");
        }
        let expected = &self.pattern[from..from + segment.length];
        if !self.carrier.continues(segment.at, expected)? {
            return wrong("has other bytes");
        }
        self.meter.add(segment.length);
        Ok(())
    }

    /// Tells the other side how far this one is, if it does not know.
    fn tell(&mut self) -> Result<(), LoadError> {
        if self.connection.unacknowledged() > 0 {
            let head = self.connection.acknowledge();
            self.say(&head)?;
        }
        Ok(())
    }

    /// Sends what the other side takes. False if it takes nothing now.
    fn send(&mut self, largest: usize) -> Result<bool, LoadError> {
        let mut sent = false;
        for _ in 0..BATCH {
            let room = self.connection.room();
            let bytes = match room >= largest {
                true => largest,
                // Whole frames, unless the other side never takes one.
                false if self.connection.under_way() == 0 => room,
                false => 0,
            };
            if bytes == 0 || !self.carrier.has_room() {
                break;
            }
            let at = place(self.connection.position());
            let head = self.connection.send(bytes);
            self.carrier.send(&head, at, bytes)?;
            sent = true;
        }
        if sent {
            self.carrier.flush()?;
        }
        Ok(sent)
    }

    /// A frame without any of the stream; what there is no room for is lost.
    fn say(&mut self, head: &Head) -> Result<(), LoadError> {
        self.carrier.send(head, 0, 0)?;
        self.carrier.flush()
    }

    fn next(&mut self) -> Result<Option<(Segment, usize)>, LoadError> {
        let mut start = [0; START];
        while let Some(length) = self.carrier.receive(&mut start)? {
            if let Some(segment) = self.connection.parse(&start[..length.min(START)]) {
                return Ok(Some((segment, length)));
            }
        }
        Ok(None)
    }
}
