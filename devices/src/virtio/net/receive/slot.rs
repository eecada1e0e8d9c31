//! The buffers of one read.

use std::rc::Rc;

use super::Buffering;
use crate::memory::GuestMemory;
use crate::virtio::net::protocol::NUM_BUFFERS_AT;
use crate::virtio::queue::{Chain, GuestBuffers, Side};

/// Most pieces of memory of a read (`UIO_MAXIOV`).
const MAX_PIECES: usize = 1024;
/// Most bytes of several buffers together: far more than a frame has, far less than overflows.
const MAX_BYTES: u32 = 1 << 30;

/// One of the driver's buffers.
#[derive(Debug, Clone, Copy)]
struct Held {
    head: u16,
    bytes: u32,
}

/// Buffers of the driver, one after the other.
#[derive(Debug)]
pub(super) struct Slot {
    buffers: GuestBuffers,
    held: Vec<Held>,
}

impl Slot {
    pub(super) fn new(memory: &Rc<GuestMemory>) -> Self {
        Self { buffers: GuestBuffers::new(memory.clone()), held: Vec::new() }
    }

    pub(super) fn buffers(&self) -> &GuestBuffers {
        &self.buffers
    }

    pub(super) fn bytes(&self) -> u32 {
        self.buffers.bytes()
    }

    pub(super) fn pieces(&self) -> usize {
        self.buffers.segments().len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    pub(super) fn has_room(&self, wanted: u32, buffering: Buffering) -> bool {
        match buffering {
            Buffering::Single => !self.is_empty(),
            Buffering::Mergeable => self.bytes() >= wanted,
        }
    }

    /// Whether so much more stays within what one read may have. A single buffer may have any size.
    pub(super) fn could_take(&self, pieces: usize, bytes: u32) -> bool {
        self.pieces() + pieces <= MAX_PIECES && self.bytes().saturating_add(bytes) <= MAX_BYTES
    }

    /// Add the buffer that was just taken.
    pub(super) fn add(&mut self, chain: &Chain) {
        self.buffers.append(chain, Side::Writable);
        self.held.push(Held { head: chain.head(), bytes: chain.writable_bytes() });
    }

    /// Move all buffers of `other` behind those of this one.
    pub(super) fn absorb(&mut self, other: &mut Self) {
        self.buffers.absorb(&mut other.buffers);
        self.held.append(&mut other.held);
    }

    /// Give all buffers away.
    pub(super) fn take_heads(&mut self) -> impl Iterator<Item = u16> {
        self.buffers.clear();
        self.held.drain(..).map(|held| held.head)
    }

    /// The first `bytes` bytes are a frame: write how many buffers it takes, give them away with
    /// what each has of it, and keep the others.
    pub(super) fn deliver(&mut self, bytes: u32, mut give: impl FnMut(u16, u32)) {
        let bytes = bytes.min(self.bytes());
        let mut room = 0;
        let enough = |held: &Held| {
            room += held.bytes;
            room >= bytes
        };
        let count = self.held.iter().position(enough).map_or(self.held.len(), |last| last + 1);
        self.buffers.copy_from_at(NUM_BUFFERS_AT, &(count as u16).to_le_bytes());
        let mut left = bytes;
        for held in self.held.drain(..count) {
            let part = left.min(held.bytes);
            left -= part;
            give(held.head, part);
        }
        self.buffers.advance(room);
    }
}
