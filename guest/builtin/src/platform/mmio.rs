//! Memory that something else looks at too: registers of devices, and RAM that devices reach by DMA.

use alloc::alloc::{alloc_zeroed, handle_alloc_error};
use core::alloc::Layout;

#[cfg(not(test))]
use super::paging;

/// Integers that any bit pattern is a value of.
pub(crate) trait Plain: Copy {}
impl Plain for u8 {}
impl Plain for u16 {}
impl Plain for u32 {}
impl Plain for u64 {}

/// A window of volatile memory. Accesses outside of it panic, which fails the run with a message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    /// Where this program sees it.
    base: *mut u8,
    /// Where a device sees it.
    physical: u64,
    length: u64,
}

impl Window {
    #[cfg(not(test))]
    /// The registers at a physical address. `None` if the page tables cannot hold that address.
    pub(crate) fn device(physical: u64, length: u64) -> Option<Self> {
        let address = paging::map_device(physical, length)?;
        Some(Self {
            base: core::ptr::with_exposed_provenance_mut(address as usize),
            physical,
            length,
        })
    }

    /// RAM of its own, zeroed, for as long as the program runs.
    pub(crate) fn dma(length: usize, align: usize) -> Self {
        let layout = Layout::from_size_align(length.max(1), align).expect("DMA memory has a size");
        // SAFETY: the size is not 0.
        let base = unsafe { alloc_zeroed(layout) };
        if base.is_null() {
            handle_alloc_error(layout);
        }
        Self { base, physical: base.expose_provenance() as u64, length: length as u64 }
    }

    /// A part of it.
    pub(crate) fn part(&self, offset: u64, length: u64) -> Self {
        assert!(
            offset <= self.length && length <= self.length - offset,
            "window {offset:#x}+{length:#x} of {:#x}",
            self.length
        );
        Self {
            base: self.base.wrapping_add(offset as usize),
            physical: self.physical + offset,
            length,
        }
    }

    /// The address that devices use for it.
    pub(crate) fn physical(&self) -> u64 {
        self.physical
    }

    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Reads a little-endian integer.
    #[inline]
    pub(crate) fn read<T: Plain>(&self, offset: u64) -> T {
        let pointer = self.pointer::<T>(offset);
        // SAFETY: mapped as long as the program runs, checked for bounds and alignment; any bit
        // pattern will do, and nothing has references into it.
        unsafe { pointer.read_volatile() }
    }

    /// Writes a little-endian integer.
    #[inline]
    pub(crate) fn write<T: Plain>(&self, offset: u64, value: T) {
        let pointer = self.pointer::<T>(offset);
        // SAFETY: as in `read`.
        unsafe { pointer.write_volatile(value) };
    }

    #[inline]
    fn pointer<T: Plain>(&self, offset: u64) -> *mut T {
        let size = size_of::<T>() as u64;
        assert!(
            size <= self.length && offset <= self.length - size,
            "access {offset:#x}+{size:#x} of {:#x}",
            self.length
        );
        let pointer = self.base.wrapping_add(offset as usize).cast::<T>();
        assert!(pointer.is_aligned(), "unaligned access at {offset:#x}");
        pointer
    }
}
