//! Ring memory as host pointers: resolved and checked once, then used without translation.
//!
//! The guest writes to this memory at any time, so every access is volatile or atomic, and whatever
//! is read is a copy that is checked after it was taken.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::crash::crash_point;
use super::error::{QueueError, RingPart};
use crate::memory::{GuestAddress, GuestMemory, prefetch, prefetch_for_write};

// Virtio 1.x fields are little-endian; so is every host this runs on.
const _: () = assert!(cfg!(target_endian = "little"));

/// A descriptor of a split ring and of an indirect table of it (virtio 1.3 section 2.7.5).
#[derive(Debug, Clone, Copy, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct RawDescriptor {
    pub(super) address: u64,
    pub(super) length: u32,
    pub(super) flags: u16,
    pub(super) next: u16,
}

/// A descriptor of a packed ring and of an indirect table of it (virtio 1.3 section 2.8.13).
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct PackedDescriptor {
    pub(super) address: u64,
    pub(super) length: u32,
    pub(super) id: u16,
    pub(super) flags: u16,
}

/// The chain goes on: split, at `next`; packed, with the next descriptor of the ring.
pub(super) const DESCRIPTOR_NEXT: u16 = 1;
/// The device writes to the buffer.
pub(super) const DESCRIPTOR_WRITE: u16 = 2;
/// The buffer is a table of descriptors.
pub(super) const DESCRIPTOR_INDIRECT: u16 = 4;

/// An element of the used ring (virtio 1.3 section 2.7.8).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct UsedElement {
    pub(super) id: u32,
    pub(super) length: u32,
}

/// An array of `T` in guest memory.
#[derive(Debug)]
pub(super) struct HostArray<T> {
    base: NonNull<T>,
    length: usize,
}

impl<T: FromBytes + IntoBytes + Copy> HostArray<T> {
    /// The array of `length` elements at `address`; checks its place, not its alignment.
    ///
    /// # Safety
    ///
    /// The array must not outlive `memory` or a clone of it.
    pub(super) unsafe fn resolve(
        memory: &GuestMemory,
        address: u64,
        length: usize,
    ) -> Option<Self> {
        let bytes = length.checked_mul(size_of::<T>())?;
        let range = memory.host_range(GuestAddress(address), bytes)?;
        Some(Self { base: NonNull::new(range.as_ptr().cast())?, length })
    }

    /// The array of a ring, aligned to `alignment` bytes.
    ///
    /// # Safety
    ///
    /// As for [`HostArray::resolve`].
    pub(super) unsafe fn resolve_ring(
        memory: &GuestMemory,
        part: RingPart,
        address: u64,
        length: usize,
        alignment: usize,
    ) -> Result<Self, QueueError> {
        // SAFETY: the caller's promise is the one that is asked for.
        let array = unsafe { Self::resolve(memory, address, length) };
        let array = array.ok_or(QueueError::RingOutsideMemory {
            part,
            address,
            length: length * size_of::<T>(),
        })?;
        if array.base.addr().get() % alignment.max(align_of::<T>()) != 0 {
            return Err(QueueError::RingMisaligned { part, address, alignment });
        }
        Ok(array)
    }

    pub(super) fn length(&self) -> usize {
        self.length
    }

    fn at(&self, index: usize) -> NonNull<T> {
        assert!(index < self.length, "ring access out of bounds");
        // SAFETY: the index was just checked against the length of the mapped array.
        unsafe { self.base.add(index) }
    }

    /// A copy of an element, whatever its alignment.
    pub(super) fn read(&self, index: usize) -> T {
        let element = self.at(index);
        if element.is_aligned() {
            // SAFETY: in bounds, aligned, mapped for as long as the array lives; any bytes are a T.
            unsafe { element.read_volatile() }
        } else {
            // SAFETY: in bounds and mapped; any bytes are a T. A torn copy is checked like another.
            unsafe { element.read_unaligned() }
        }
    }

    /// Write an element of an aligned array.
    pub(super) fn write(&self, index: usize, value: T) {
        let element = self.at(index);
        assert!(element.is_aligned(), "ring is aligned");
        crash_point();
        // SAFETY: in bounds, aligned, mapped writable for as long as the array lives.
        unsafe { element.write_volatile(value) }
    }
}

impl<T> HostArray<T> {
    /// Have an element brought near that will be read.
    #[inline]
    pub(super) fn prefetch(&self, index: usize) {
        if index < self.length {
            prefetch(self.base.as_ptr().wrapping_add(index).cast());
        }
    }

    /// Have an element brought near that will be written.
    #[inline]
    pub(super) fn prefetch_for_write(&self, index: usize) {
        if index < self.length {
            prefetch_for_write(self.base.as_ptr().wrapping_add(index).cast());
        }
    }
}

impl HostArray<u16> {
    /// An element as an atomic, for the fields that order the others.
    pub(super) fn atomic(&self, index: usize) -> &AtomicU16 {
        let element = self.at(index);
        // SAFETY: in bounds, mapped for as long as the array lives, aligned (checked when the ring
        // was resolved), and only accessed atomically here; the guest's accesses are outside the
        // program.
        unsafe { AtomicU16::from_ptr(element.as_ptr()) }
    }

    /// Write a field that the driver reads at any time.
    #[inline]
    pub(super) fn store(&self, index: usize, value: u16, ordering: Ordering) {
        crash_point();
        self.atomic(index).store(value, ordering);
    }
}

impl HostArray<u64> {
    /// Read half a descriptor of a packed ring.
    #[inline]
    pub(super) fn load(&self, index: usize, ordering: Ordering) -> u64 {
        self.atomic(index).load(ordering)
    }

    /// Write half a descriptor of a packed ring, at once.
    #[inline]
    pub(super) fn store(&self, index: usize, value: u64, ordering: Ordering) {
        crash_point();
        self.atomic(index).store(value, ordering);
    }

    fn atomic(&self, index: usize) -> &AtomicU64 {
        let element = self.at(index);
        // SAFETY: as for 16-bit fields.
        unsafe { AtomicU64::from_ptr(element.as_ptr()) }
    }
}
