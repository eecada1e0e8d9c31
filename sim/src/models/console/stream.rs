//! A stream of bytes of which each says where it is from, as whoever reads it knows it.

use std::collections::{BTreeSet, VecDeque};

/// The next bytes may come from elsewhere once so many more buffers have arrived.
struct Jump {
    buffers: u16,
    to: u64,
}

/// One direction of a port.
pub(super) struct Stream {
    id: u64,
    /// How many bytes were sent.
    pub(super) sent: u64,
    /// Where in the stream the reader may be. Nearly always in one place.
    at: BTreeSet<u64>,
    jumps: VecDeque<Jump>,
}

impl Stream {
    pub(super) fn new(id: u64) -> Self {
        Self { id, sent: 0, at: BTreeSet::from([0]), jumps: VecDeque::new() }
    }

    fn byte(&self, index: u64) -> u8 {
        let mixed = (index + (self.id << 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 37) as u8
    }

    /// The next bytes to send.
    pub(super) fn bytes(&self, count: u64) -> Vec<u8> {
        (self.sent..self.sent + count).map(|index| self.byte(index)).collect()
    }

    /// These bytes have arrived.
    ///
    /// # Panics
    ///
    /// If they are not the next ones.
    pub(super) fn arrived(&mut self, bytes: &[u8]) {
        for byte in bytes {
            let places = std::mem::take(&mut self.at);
            let fits = |place: &u64| *place < self.sent && self.byte(*place) == *byte;
            self.at = places.iter().filter(|place| fits(place)).map(|place| place + 1).collect();
            assert!(!self.at.is_empty(), "the stream is broken at byte {places:?}");
        }
    }

    /// The same, in a buffer, behind which there may be another process.
    pub(super) fn arrived_in_buffer(&mut self, bytes: &[u8]) {
        self.jump();
        self.arrived(bytes);
        if let Some(jump) = self.jumps.front_mut() {
            jump.buffers -= 1;
        }
    }

    fn jump(&mut self) {
        while let Some(Jump { buffers: 0, to }) = self.jumps.front() {
            let to = *to;
            self.jumps.pop_front();
            self.may_be_up_to(to);
        }
    }

    /// The writer may go on from where it was, or from any place between that and an earlier one.
    pub(super) fn may_be_from(&mut self, from: u64) {
        let last = self.at.last().copied().unwrap_or(from);
        self.at.extend(from..=last);
    }

    /// The reader may be anywhere between where it was and a later place.
    fn may_be_up_to(&mut self, to: u64) {
        let first = self.at.first().copied().unwrap_or(to);
        self.at.extend(first..=to);
    }

    /// Who reads for us has died: what it had taken of the stream is lost behind what lies in this
    /// many buffers.
    pub(super) fn may_be_lost_behind(&mut self, buffers: u16) {
        let before: u16 = self.jumps.iter().map(|jump| jump.buffers).sum();
        self.jumps.push_back(Jump { buffers: buffers - before, to: self.sent });
    }

    /// What has not arrived by now never will, nor what is in any buffer.
    pub(super) fn begin_anew(&mut self) {
        self.at = BTreeSet::from([self.sent]);
        self.jumps.clear();
    }

    /// Nobody knows what of all this has arrived, and nothing is in any buffer.
    pub(super) fn may_be_anywhere_further(&mut self) {
        self.jumps.clear();
        self.may_be_up_to(self.sent);
    }

    /// All may have arrived.
    pub(super) fn is_complete(&self) -> bool {
        let in_buffers = self.jumps.iter().any(|jump| jump.buffers > 0);
        let lost_to = self.jumps.back().filter(|_| !in_buffers).map(|jump| jump.to);
        self.at.contains(&self.sent) || lost_to == Some(self.sent)
    }
}
