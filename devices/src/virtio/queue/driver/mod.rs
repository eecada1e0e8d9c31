//! The driver side of a virtqueue, for tests, benches, simulation and fuzzing.
//!
//! It lays the rings out in guest memory, hands out descriptors from a free list and takes used
//! buffers back, as a well-behaved driver does. To misbehave, write to the addresses that
//! [`DriverQueue::layout`] gives.
//!
//! All access goes through checked guest memory; only what tells the other side of something is
//! ordered. It runs in the same process as the device, on the same thread or another.

mod blocking;
mod packed;
mod split;

pub use blocking::BlockingDriver;
pub use packed::PackedDriver;
pub use split::SplitDriver;

use super::{QueueLayout, RingFeatures};
use crate::memory::GuestMemory;
use crate::virtio::backend::RingLayout;

/// A buffer as the driver describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Buffer {
    /// The device reads it.
    Readable {
        /// Guest address.
        address: u64,
        /// Bytes.
        length: u32,
    },
    /// The device writes it.
    Writable {
        /// Guest address.
        address: u64,
        /// Bytes.
        length: u32,
    },
}

/// A buffer that the device gave back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Used {
    /// What [`DriverQueue::add`] returned.
    pub head: u16,
    /// Bytes that the device says it wrote.
    pub written: u32,
}

/// Whether the device has to be notified of what was just made available.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Kick {
    /// Notify it.
    Wanted,
    /// It looks by itself.
    NotWanted,
}

/// The driver side of a queue of either format.
#[derive(Debug)]
pub enum DriverQueue {
    /// Virtio 1.3 section 2.7.
    Split(SplitDriver),
    /// Virtio 1.3 section 2.8.
    Packed(PackedDriver),
}

impl DriverQueue {
    /// Bytes that the rings of a queue of `size` take in either format, with their alignment.
    pub fn ring_bytes(size: u16) -> u64 {
        let size = u64::from(size);
        (16 * size + (6 + 2 * size).next_multiple_of(4) + 6 + 8 * size).next_multiple_of(4096)
    }

    /// Lay the rings out at `base` (16-byte aligned), all zero.
    ///
    /// # Panics
    ///
    /// If the rings do not fit into guest memory there, or are misaligned.
    pub fn new(
        memory: &GuestMemory,
        base: u64,
        size: u16,
        format: RingLayout,
        features: RingFeatures,
    ) -> Self {
        match format {
            RingLayout::Split => Self::Split(SplitDriver::new(memory, base, size, features)),
            RingLayout::Packed => Self::Packed(PackedDriver::new(memory, base, size, features)),
        }
    }

    /// Where the rings are.
    pub fn layout(&self) -> QueueLayout {
        match self {
            Self::Split(queue) => queue.layout(),
            Self::Packed(queue) => queue.layout(),
        }
    }

    /// Descriptors that are free.
    pub fn free_descriptors(&self) -> usize {
        match self {
            Self::Split(queue) => queue.free_descriptors(),
            Self::Packed(queue) => queue.free_descriptors(),
        }
    }

    /// Chain `buffers` and put them into the ring; the device sees them after
    /// [`DriverQueue::publish`]. Gives the name of the chain: its head, or its buffer id. None if
    /// there are not enough free descriptors.
    pub fn add(&mut self, buffers: &[Buffer]) -> Option<u16> {
        match self {
            Self::Split(queue) => queue.add(buffers),
            Self::Packed(queue) => queue.add(buffers),
        }
    }

    /// As [`DriverQueue::add`], but through an indirect table that is written to `table`.
    pub fn add_indirect(&mut self, table: u64, buffers: &[Buffer]) -> Option<u16> {
        match self {
            Self::Split(queue) => queue.add_indirect(table, buffers),
            Self::Packed(queue) => queue.add_indirect(table, buffers),
        }
    }

    /// Let the device see what was added; says whether it wants a kick.
    pub fn publish(&mut self) -> Kick {
        match self {
            Self::Split(queue) => queue.publish(),
            Self::Packed(queue) => queue.publish(),
        }
    }

    /// Whether the device gave something back; one load.
    pub fn has_used(&self) -> bool {
        match self {
            Self::Split(queue) => queue.has_used(),
            Self::Packed(queue) => queue.has_used(),
        }
    }

    /// How many buffers the device gave back that were not taken yet.
    pub fn used_waiting(&self) -> u16 {
        match self {
            Self::Split(queue) => queue.used_waiting(),
            Self::Packed(queue) => queue.used_waiting(),
        }
    }

    /// Take the next buffer that the device gave back.
    ///
    /// # Panics
    ///
    /// If the device gave back what it did not have.
    pub fn take_used(&mut self) -> Option<Used> {
        match self {
            Self::Split(queue) => queue.take_used(),
            Self::Packed(queue) => queue.take_used(),
        }
    }

    /// Ask for an interrupt for the next used buffer. True if there is one already.
    #[must_use]
    pub fn enable_interrupts(&mut self) -> bool {
        match self {
            Self::Split(queue) => queue.enable_interrupts(),
            Self::Packed(queue) => queue.enable_interrupts(),
        }
    }

    /// Ask for no interrupts: the driver polls.
    pub fn disable_interrupts(&mut self) {
        match self {
            Self::Split(queue) => queue.disable_interrupts(),
            Self::Packed(queue) => queue.disable_interrupts(),
        }
    }
}
