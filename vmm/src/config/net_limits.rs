//! What a network may do each second.

use super::ByteCount;

/// Limits of one direction, or of each: `limit-bytes`, `limit-ops`, and the same with `-rx-` and
/// `-tx-`, which count for their direction alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TrafficLimits {
    /// Bytes each second.
    pub bytes: Option<ByteCount>,
    /// Frames each second.
    pub ops: Option<u64>,
}

/// What is said about both directions, and about each of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NetLimits {
    /// Where nothing else is said.
    pub each: TrafficLimits,
    /// Of frames to the guest.
    pub receive: TrafficLimits,
    /// Of frames from the guest.
    pub transmit: TrafficLimits,
}

impl NetLimits {
    /// What holds for frames to the guest.
    pub fn receive(&self) -> TrafficLimits {
        self.receive.or(self.each)
    }

    /// What holds for frames from the guest.
    pub fn transmit(&self) -> TrafficLimits {
        self.transmit.or(self.each)
    }
}

impl TrafficLimits {
    fn or(self, other: Self) -> Self {
        Self { bytes: self.bytes.or(other.bytes), ops: self.ops.or(other.ops) }
    }
}
