//! The descriptor ring in guest memory.
//!
//! ```text
//!   word 2n      address
//!   word 2n + 1  length | id << 32 | flags << 48
//! ```
//!
//! All but the address is one word, so that a used descriptor is written, and an available one read,
//! at once.

use std::sync::atomic::Ordering;

use super::super::error::{QueueError, RingPart};
use super::super::host::{DESCRIPTOR_WRITE, HostArray, PackedDescriptor};
use super::Cursor;
use crate::memory::GuestMemory;

const ID_SHIFT: u32 = 32;
const FLAGS_SHIFT: u32 = 48;

/// What the device writes for a buffer that it gives back.
#[derive(Debug, Clone, Copy)]
pub(super) struct UsedDescriptor {
    pub(super) at: Cursor,
    pub(super) id: u16,
    /// Bytes in the writable part.
    pub(super) written: u32,
}

/// A ring; positions are below its size.
#[derive(Debug)]
pub(in super::super) struct DescriptorRing {
    words: HostArray<u64>,
}

impl DescriptorRing {
    /// The ring of `size` descriptors at `address`.
    ///
    /// # Safety
    ///
    /// It must not outlive `memory` or a clone of it.
    pub(in super::super) unsafe fn resolve(
        memory: &GuestMemory,
        address: u64,
        size: u16,
    ) -> Result<Self, QueueError> {
        let words = 2 * usize::from(size);
        // SAFETY: the caller's promise is the one that is asked for.
        let words =
            unsafe { HostArray::resolve_ring(memory, RingPart::Descriptors, address, words, 16)? };
        Ok(Self { words })
    }

    /// The flags of a descriptor. What was written before them is there to be read.
    #[inline]
    pub(in super::super) fn flags(&self, at: Cursor) -> u16 {
        (self.words.load(second(at), Ordering::Acquire) >> FLAGS_SHIFT) as u16
    }

    /// A copy of a descriptor.
    #[inline]
    pub(in super::super) fn read(&self, at: Cursor) -> PackedDescriptor {
        let word = self.words.load(second(at), Ordering::Acquire);
        PackedDescriptor {
            address: self.words.load(second(at) - 1, Ordering::Relaxed),
            length: word as u32,
            id: (word >> ID_SHIFT) as u16,
            flags: (word >> FLAGS_SHIFT) as u16,
        }
    }

    /// Write a descriptor; all that was written before is there before its flags.
    #[inline]
    pub(in super::super) fn write(&self, at: Cursor, descriptor: PackedDescriptor) {
        self.words.store(second(at) - 1, descriptor.address, Ordering::Relaxed);
        let PackedDescriptor { length, id, flags, .. } = descriptor;
        self.write_second(at, length, id, flags);
    }

    /// Give a buffer back; all that was written before is there before it.
    #[inline]
    pub(super) fn write_used(&self, used: UsedDescriptor) {
        // The length counts only with the flag.
        let write = if used.written > 0 { DESCRIPTOR_WRITE } else { 0 };
        self.write_second(used.at, used.written, used.id, used.at.used_flags() | write);
    }

    /// Make a descriptor look available, whatever it was.
    pub(super) fn make_available(&self, at: Cursor) {
        self.write_second(at, 0, 0, at.available_flags());
    }

    #[inline]
    fn write_second(&self, at: Cursor, length: u32, id: u16, flags: u16) {
        let (id, flags) = (u64::from(id) << ID_SHIFT, u64::from(flags) << FLAGS_SHIFT);
        self.words.store(second(at), u64::from(length) | id | flags, Ordering::Release);
    }
}

#[inline]
fn second(at: Cursor) -> usize {
    2 * usize::from(at.position()) + 1
}
