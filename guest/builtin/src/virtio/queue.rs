//! A virtqueue as the driver sees it, split or packed. A request is known by its slot: a small number
//! that the caller chooses, with descriptors of its own, so that nothing is allocated on the way.

use alloc::{format, string::String};

use super::{feature, packed::PackedQueue, split::SplitQueue};

/// No more entries than this, whatever the device has: the deepest load fits.
const SIZE_LIMIT: u16 = 4096;

/// Who writes a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Buffer {
    DeviceReads,
    DeviceWrites,
}

/// A piece of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    pub(crate) address: u64,
    pub(crate) length: u32,
    pub(crate) buffer: Buffer,
}

/// A request that the device has finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Used {
    pub(crate) slot: u16,
    /// Bytes that the device says it wrote.
    pub(crate) written: u32,
}

/// What the device needs to know of a queue.
pub(crate) struct QueueAddresses {
    pub(crate) size: u16,
    pub(crate) descriptors: u64,
    pub(crate) driver: u64,
    pub(crate) device: u64,
}

/// The shape of a queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) features: u64,
    /// Entries.
    pub(crate) size: u16,
    /// Requests that can be in flight.
    pub(crate) slots: u16,
    /// The most segments of a request.
    pub(crate) segments: u16,
}

impl Shape {
    /// The shape for a device whose queue has `most` entries, as large as the device allows.
    pub(crate) fn new(features: u64, most: u16, slots: u16, segments: u16) -> Result<Self, String> {
        let shape = Self { features, size: most.min(SIZE_LIMIT), slots, segments };
        if !shape.has(feature::RING_PACKED) && !most.is_power_of_two() {
            return Err(format!("queue size {most} is not a power of two"));
        }
        let needed = u32::from(slots) * u32::from(shape.stride());
        if needed > u32::from(shape.size) {
            return Err(format!("depth {slots} needs {needed} of {most} descriptors"));
        }
        Ok(shape)
    }

    pub(crate) fn has(&self, feature: u64) -> bool {
        self.features & feature != 0
    }

    /// Descriptors of a request in the ring.
    pub(crate) fn stride(&self) -> u16 {
        if self.has(feature::INDIRECT_DESC) { 1 } else { self.segments }
    }
}

pub(crate) enum Queue {
    Split(SplitQueue),
    Packed(PackedQueue),
}

impl Queue {
    pub(crate) fn new(shape: Shape) -> Self {
        if shape.has(feature::RING_PACKED) {
            Self::Packed(PackedQueue::new(shape))
        } else {
            Self::Split(SplitQueue::new(shape))
        }
    }

    pub(crate) fn addresses(&self) -> QueueAddresses {
        match self {
            Self::Split(queue) => queue.addresses(),
            Self::Packed(queue) => queue.addresses(),
        }
    }

    /// Makes a request available. Its slot is not in flight.
    #[inline]
    pub(crate) fn add(&mut self, slot: u16, segments: &[Segment]) {
        match self {
            Self::Split(queue) => queue.add(slot, segments),
            Self::Packed(queue) => queue.add(slot, segments),
        }
    }

    /// The next finished request. The error says how the device broke the ring.
    #[inline]
    pub(crate) fn pop(&mut self) -> Result<Option<Used>, String> {
        match self {
            Self::Split(queue) => queue.pop(),
            Self::Packed(queue) => queue.pop(),
        }
    }

    /// Whether the device wants to be told of what was added since the last time this was asked.
    #[inline]
    pub(crate) fn needs_kick(&mut self) -> bool {
        match self {
            Self::Split(queue) => queue.needs_kick(),
            Self::Packed(queue) => queue.needs_kick(),
        }
    }
}

/// Whether an index that the other side waits for lies among those passed since `old` (section 2.7.10).
#[inline]
pub(crate) fn passed(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_passed_once_also_across_the_wrap() {
        assert!(passed(5, 6, 5));
        assert!(!passed(5, 5, 4));
        assert!(!passed(4, 6, 5));
        assert!(passed(0xffff, 2, 0xfffe));
        assert!(!passed(3, 2, 0xfffe));
    }

    #[test]
    fn a_shape_must_fit_the_device() {
        assert!(Shape::new(0, 256, 64, 3).is_ok());
        assert!(Shape::new(0, 128, 64, 3).unwrap_err().contains("192 of 128"));
        assert!(Shape::new(feature::INDIRECT_DESC, 64, 64, 3).is_ok());
        assert!(Shape::new(0, 100, 1, 3).unwrap_err().contains("power of two"));
        assert!(Shape::new(feature::RING_PACKED, 100, 1, 3).is_ok());
        assert!(Shape::new(feature::RING_PACKED, 0, 1, 3).is_err());
    }
}
