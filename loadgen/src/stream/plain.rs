//! A tap by plain calls: `writev` and `read`, one for each frame.

use std::io::IoSlice;
use std::time::{Duration, Instant};

use devices::virtio::net::{Offloads, Tap, TapOptions, TapSource};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::driver::Carrier;
use super::tcp::{Head, START};
use super::{FrameSize, Stream};
use crate::LoadError;
use crate::ring::system;

/// Room for the largest frame.
const LARGEST: usize = 66 << 10;

pub(super) struct Plain {
    tap: Tap,
    pattern: Vec<u8>,
    frame: Vec<u8>,
    spin: Duration,
}

impl Plain {
    pub(super) fn open(interface: &str, stream: &Stream) -> Result<Self, LoadError> {
        let tap = Tap::open(TapOptions::new(TapSource::Name(interface.into())));
        let tap = tap.map_err(|error| LoadError::Unfit(error.to_string()))?;
        let (offloads, room) = match stream.frames {
            FrameSize::Mtu => (Offloads::CHECKSUM, 2048),
            FrameSize::Large => (Offloads::CHECKSUM | Offloads::TSO4, LARGEST),
        };
        tap.set_offloads(offloads).map_err(LoadError::system("set the offloads of a tap"))?;
        let frame = vec![0; room];
        Ok(Self { tap, pattern: super::pattern(), frame, spin: stream.polling.spin() })
    }

    fn queue(&self) -> std::os::fd::BorrowedFd<'_> {
        self.tap.queue(0).expect("a tap has a queue")
    }
}

impl Carrier for Plain {
    fn has_room(&mut self) -> bool {
        true
    }

    fn send(&mut self, head: &Head, at: usize, bytes: usize) -> Result<(), LoadError> {
        let parts = [IoSlice::new(head.bytes()), IoSlice::new(&self.pattern[at..at + bytes])];
        match rustix::io::writev(self.queue(), &parts) {
            // An interface that is not up yet loses frames.
            Ok(_) | Err(Errno::AGAIN | Errno::INTR | Errno::IO) => Ok(()),
            Err(errno) => Err(system("write a frame", errno)),
        }
    }

    fn flush(&mut self) -> Result<(), LoadError> {
        Ok(())
    }

    fn receive(&mut self, start: &mut [u8; START]) -> Result<Option<usize>, LoadError> {
        let queue = self.tap.queue(0).expect("a tap has a queue");
        let bytes = match rustix::io::read(queue, &mut self.frame) {
            Ok(bytes) => bytes,
            Err(Errno::AGAIN | Errno::INTR | Errno::IO) => return Ok(None),
            Err(errno) => return Err(system("read a frame", errno)),
        };
        let first = bytes.min(START);
        start[..first].copy_from_slice(&self.frame[..first]);
        Ok(Some(bytes))
    }

    fn continues(&mut self, at: usize, with: &[u8]) -> Result<bool, LoadError> {
        Ok(self.frame.get(at..at + with.len()) == Some(with))
    }

    fn wait(&mut self, until: Instant) -> Result<(), LoadError> {
        let begin = Instant::now();
        let queue = self.queue();
        loop {
            let now = Instant::now();
            let is_late = now - begin >= self.spin;
            let patience =
                if is_late { until.saturating_duration_since(now) } else { Duration::ZERO };
            let patience = patience.try_into().expect("it is a short time");
            let mut waiting = [PollFd::new(&queue, PollFlags::IN)];
            match poll(&mut waiting, Some(&patience)) {
                Ok(0) if !is_late && now < until => {}
                Ok(_) | Err(Errno::INTR) => return Ok(()),
                Err(errno) => return Err(system("wait for a frame", errno)),
            }
        }
    }
}
