//! The words of a network load.

use super::{Refusal, Wish, number};

/// What the network load does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NetOperation {
    Send,
    Receive,
    /// Sends back what comes, with the addresses swapped.
    Echo,
    /// Sends and receives, each by itself.
    Both,
}

impl NetOperation {
    pub(super) fn named(name: &str) -> Result<Self, Refusal> {
        match name {
            "send" => Ok(Self::Send),
            "receive" => Ok(Self::Receive),
            "echo" => Ok(Self::Echo),
            "both" => Ok(Self::Both),
            _ => Err(Refusal::UnknownValue),
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Send => "send",
            Self::Receive => "receive",
            Self::Echo => "echo",
            Self::Both => "both",
        }
    }

    /// Whether it makes frames of its own.
    pub(crate) fn sends(self) -> bool {
        matches!(self, Self::Send | Self::Both)
    }

    /// Whether it is about frames that come.
    pub(crate) fn receives(self) -> bool {
        self != Self::Send
    }
}

/// The network load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NetLoad {
    pub(crate) operation: NetOperation,
    /// Frames each way; 0 for as many as there is time for.
    pub(crate) frames: u64,
    /// Bytes of a frame that is sent, and of the largest one that is taken whole.
    pub(crate) frame_bytes: u32,
    /// Frames in flight for each transmit queue.
    pub(crate) depth: u16,
    pub(crate) seconds: u64,
    /// Queue pairs.
    pub(crate) pairs: u16,
    /// Bytes of a receive buffer, headers included.
    pub(crate) buffer_bytes: u32,
    pub(crate) mergeable: Wish,
    pub(crate) resets: u64,
    pub(crate) nic: usize,
    /// How many of the longest pauses are reported.
    pub(crate) pauses: usize,
}

impl NetLoad {
    pub(super) const DEFAULT: Self = Self {
        operation: NetOperation::Send,
        frames: 0,
        frame_bytes: 1514,
        depth: 32,
        seconds: 1,
        pairs: 1,
        buffer_bytes: 2048,
        mergeable: Wish::IfOffered,
        resets: 0,
        nic: 0,
        pauses: 0,
    };

    pub(super) fn apply(&mut self, name: &str, value: &str) -> Result<(), Refusal> {
        match (name, value) {
            ("frames", _) => self.frames = number(value, 0, u64::MAX)?,
            // The shortest of Ethernet, and the longest that a tap takes.
            ("bytes", _) => self.frame_bytes = number(value, 60, 65_535)? as u32,
            ("depth", _) => self.depth = number(value, 1, 1024)? as u16,
            ("seconds", _) => self.seconds = number(value, 1, 1_000_000)?,
            ("queues", _) => self.pairs = number(value, 1, 16)? as u16,
            ("buffer", _) => self.buffer_bytes = number(value, 64, 131_072)? as u32,
            ("mergeable", "off") => self.mergeable = Wish::Off,
            ("mergeable", _) => return Err(Refusal::UnknownValue),
            ("resets", _) => self.resets = number(value, 0, 100)?,
            ("nic", _) => self.nic = number(value, 0, 255)? as usize,
            ("pauses", _) => self.pauses = number(value, 0, 1024)? as usize,
            _ => return Err(Refusal::UnknownWord),
        }
        Ok(())
    }
}
