//! Virtqueues: how a driver hands buffers to a device and gets them back.
//!
//! ```text
//!   driver ──available──► pop ──► Chain (host segments) ──► the device's I/O
//!          ◄────used───── publish ◄── push_used ◄─────────────────┘
//! ```
//!
//! [`Queue`] is one interface over the ring formats. Its host pointers are resolved and checked once
//! at activation; every index, length and flag that the driver writes later is checked when it is
//! read. A ring that breaks the rules gives a [`QueueError`] and is of no use until a reset.
//!
//! Buffers are given back in batches: any number of [`Queue::push_used`], then one
//! [`Queue::publish`], which decides once whether the driver wants an interrupt.
//!
//! While the device looks at the queue by itself, kicks are off ([`Queue::disable_kicks`]). Before
//! it sleeps it calls [`Queue::enable_kicks`] and looks once more if that says so.
//!
//! What is in flight is recorded ([`InflightRecord`]), so that another process can go on.

mod buffers;
mod chain;
mod crash;
pub mod driver;
mod error;
mod host;
mod inflight;
mod packed;
mod random;
mod split;
mod transfer;
pub(super) mod words;

use std::os::fd::OwnedFd;
use std::rc::Rc;

pub use buffers::{GuestBuffers, Side, StatusByte};
pub use chain::{Chain, Segment};
pub use error::{QueueError, RingPart};
pub use inflight::{InflightError, InflightRecord, InflightRegion};
pub use packed::PackedQueue;
pub use split::SplitQueue;
pub use transfer::{Completed, GuestOps, Moved, NoRoom, Pages, Tag, Wait, receive_now, send_now};

use super::backend::{QueueSetup, RingLayout, RingPosition};
use crate::memory::GuestMemory;

/// `VIRTIO_F_INDIRECT_DESC` (virtio 1.3 section 6).
pub const FEATURE_INDIRECT_DESC: u64 = 1 << 28;
/// `VIRTIO_F_EVENT_IDX`.
pub const FEATURE_EVENT_IDX: u64 = 1 << 29;
/// `VIRTIO_F_RING_PACKED`.
pub const FEATURE_RING_PACKED: u64 = 1 << 34;

/// What a back end that serves its queues with [`Queue`] can offer of the ring formats.
pub const RING_FEATURES: u64 = FEATURE_INDIRECT_DESC | FEATURE_EVENT_IDX | FEATURE_RING_PACKED;

/// The ring format that the negotiated feature bits ask for.
pub fn ring_layout(features: u64) -> RingLayout {
    if features & FEATURE_RING_PACKED == 0 { RingLayout::Split } else { RingLayout::Packed }
}

/// Which optional parts of the ring formats were negotiated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingFeatures {
    /// Indirect descriptor tables.
    pub indirect: bool,
    /// Notifications by index.
    pub event_idx: bool,
}

impl RingFeatures {
    /// From the negotiated feature bits.
    pub fn from_bits(features: u64) -> Self {
        Self {
            indirect: features & FEATURE_INDIRECT_DESC != 0,
            event_idx: features & FEATURE_EVENT_IDX != 0,
        }
    }
}

/// How a queue lies in guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueLayout {
    /// Number of descriptors.
    pub size: u16,
    /// Guest address of the descriptor table.
    pub descriptor_table: u64,
    /// Guest address of the available ring.
    pub available_ring: u64,
    /// Guest address of the used ring.
    pub used_ring: u64,
    /// Format.
    pub format: RingLayout,
}

impl QueueLayout {
    /// The queue with this index, to be served from its beginning.
    pub fn setup(&self, index: u16, kick: OwnedFd, call: OwnedFd) -> QueueSetup {
        let Self { size, descriptor_table, available_ring, used_ring, format } = *self;
        QueueSetup {
            index,
            size,
            descriptor_table,
            available_ring,
            used_ring,
            kick: kick.into(),
            call: Some(call.into()),
            layout: format,
            state: None,
        }
    }
}

impl From<&QueueSetup> for QueueLayout {
    fn from(setup: &QueueSetup) -> Self {
        Self {
            size: setup.size,
            descriptor_table: setup.descriptor_table,
            available_ring: setup.available_ring,
            used_ring: setup.used_ring,
            format: setup.layout,
        }
    }
}

/// Whether the driver wants an interrupt for what was just published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Interrupt {
    /// Signal the queue's vector.
    Wanted,
    /// Stay quiet.
    NotWanted,
}

/// Whether buffers wait although kicks were just enabled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Availability {
    /// Nothing: the next buffer comes with a kick.
    Empty,
    /// Buffers came in between, perhaps without a kick: look again.
    More,
}

/// The device side of a virtqueue of either format.
#[derive(Debug)]
pub enum Queue {
    /// Virtio 1.3 section 2.7.
    Split(SplitQueue),
    /// Virtio 1.3 section 2.8.
    Packed(PackedQueue),
}

impl Queue {
    /// Resolve and check the rings of a queue.
    ///
    /// A live `record` means that a back end died while it served the queue: its buffers come out
    /// of [`Queue::pop`] once more, first. Otherwise the queue starts at `position`, or at the
    /// beginning.
    pub fn new(
        memory: &Rc<GuestMemory>,
        layout: &QueueLayout,
        features: RingFeatures,
        record: InflightRecord,
        position: Option<RingPosition>,
    ) -> Result<Self, QueueError> {
        match layout.format {
            RingLayout::Split => {
                SplitQueue::new(memory, layout, features, record, position).map(Self::Split)
            }
            RingLayout::Packed => {
                PackedQueue::new(memory, layout, features, record, position).map(Self::Packed)
            }
        }
    }

    /// Take the next buffer into `chain`. False if there is none.
    #[inline]
    pub fn pop(&mut self, chain: &mut Chain) -> Result<bool, QueueError> {
        match self {
            Self::Split(queue) => queue.pop(chain),
            Self::Packed(queue) => queue.pop(chain),
        }
    }

    /// Give the buffer `head` (packed: a buffer id) back with `written` bytes in its writable part;
    /// the driver sees it after [`Queue::publish`]. Each buffer that was taken is given back exactly
    /// once.
    #[inline]
    pub fn push_used(&mut self, head: u16, written: u32) {
        match self {
            Self::Split(queue) => queue.push_used(head, written),
            Self::Packed(queue) => queue.push_used(head, written),
        }
    }

    /// Leave the buffer `head`, which was taken and not used, for a later [`Queue::pop`]. It stays
    /// in the record; the position alone does not tell of it.
    pub fn put_back(&mut self, head: u16) {
        match self {
            Self::Split(queue) => queue.put_back(head),
            Self::Packed(queue) => queue.put_back(head),
        }
    }

    /// Show the driver all buffers that were given back; says whether it wants an interrupt.
    #[inline]
    pub fn publish(&mut self) -> Interrupt {
        match self {
            Self::Split(queue) => queue.publish(),
            Self::Packed(queue) => queue.publish(),
        }
    }

    /// How many buffers were given back since the last [`Queue::publish`].
    #[inline]
    pub fn unpublished(&self) -> u16 {
        match self {
            Self::Split(queue) => queue.unpublished(),
            Self::Packed(queue) => queue.unpublished(),
        }
    }

    /// Whether the driver made something available; one load. A broken ring may say yes.
    #[inline]
    pub fn has_available(&self) -> bool {
        match self {
            Self::Split(queue) => queue.has_available(),
            Self::Packed(queue) => queue.has_available(),
        }
    }

    /// How many buffers wait to be taken; few loads. A broken ring may say anything.
    #[inline]
    pub fn available(&mut self) -> u16 {
        match self {
            Self::Split(queue) => queue.available(),
            Self::Packed(queue) => queue.available(),
        }
    }

    /// Nothing is available, and soon there may be: have the place brought near where the driver will say what.
    #[inline]
    pub fn expect(&self) {
        match self {
            Self::Split(queue) => queue.expect(),
            // It is the place that was looked at.
            Self::Packed(_) => {}
        }
    }

    /// Something was just made available: have its beginning brought near, for [`Queue::pop`] soon.
    #[inline]
    pub fn bring_near(&self) {
        match self {
            Self::Split(queue) => queue.bring_near(),
            Self::Packed(queue) => queue.bring_near(),
        }
    }

    /// The driver need not kick: the device looks by itself.
    #[inline]
    pub fn disable_kicks(&mut self) {
        match self {
            Self::Split(queue) => queue.disable_kicks(),
            Self::Packed(queue) => queue.disable_kicks(),
        }
    }

    /// The driver has to kick from now on, unless there is work already.
    #[inline]
    pub fn enable_kicks(&mut self) -> Availability {
        match self {
            Self::Split(queue) => queue.enable_kicks(),
            Self::Packed(queue) => queue.enable_kicks(),
        }
    }

    /// Whether buffers of a predecessor, or ones that were put back, wait to come out of
    /// [`Queue::pop`].
    #[inline]
    pub fn is_recovering(&self) -> bool {
        match self {
            Self::Split(queue) => queue.is_recovering(),
            Self::Packed(queue) => queue.is_recovering(),
        }
    }

    /// Whether the queue was taken over from a predecessor that died. It may have published buffers
    /// without an interrupt and swallowed a kick, so interrupt the driver and look at the queue.
    pub fn was_taken_over(&self) -> bool {
        match self {
            Self::Split(queue) => queue.was_taken_over(),
            Self::Packed(queue) => queue.was_taken_over(),
        }
    }

    /// Buffers that were taken and not yet published.
    pub fn in_flight(&self) -> u16 {
        match self {
            Self::Split(queue) => queue.in_flight(),
            Self::Packed(queue) => queue.in_flight(),
        }
    }

    /// The order in which a buffer was taken that is in flight, the same for a successor; 0 if it is not. No two in
    /// flight have the same.
    pub fn order(&self, head: u16) -> u64 {
        match self {
            Self::Split(queue) => queue.order(head),
            Self::Packed(queue) => queue.order(head),
        }
    }

    /// Where the queue stands. Enough to go on from only while nothing is in flight.
    pub fn position(&self) -> RingPosition {
        match self {
            Self::Split(queue) => queue.position(),
            Self::Packed(queue) => queue.position(),
        }
    }

    /// Number of descriptors.
    pub fn size(&self) -> u16 {
        match self {
            Self::Split(queue) => queue.size(),
            Self::Packed(queue) => queue.size(),
        }
    }

    /// The queue was reset: nobody shall take it over. Gives the record back for the next start.
    pub fn retire(self) -> InflightRecord {
        match self {
            Self::Split(queue) => queue.retire(),
            Self::Packed(queue) => queue.retire(),
        }
    }
}

#[cfg(test)]
mod tests;
