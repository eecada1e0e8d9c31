//! Hints that memory will be used soon. A line that another processor has, or none, takes as long to come as some hundred
//! instructions, which can be done meanwhile.

use super::{GuestAddress, GuestMemory};

impl GuestMemory {
    /// Have a header or a table of descriptors brought near, beside which a status often is that will be written.
    #[inline]
    pub(crate) fn prefetch_for_write(&self, address: GuestAddress) {
        if let Some(place) = self.host_range(address, 1) {
            prefetch_for_write(place.as_ptr());
        }
    }
}

/// Have a cache line brought near that will be read.
#[inline]
pub(crate) fn prefetch(place: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint, which does not fault whatever the address.
    unsafe {
        core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(place.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}

/// The same of one that will be written, so that nobody else has it then.
#[inline]
pub(crate) fn prefetch_for_write(place: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint, which does not fault whatever the address, and does nothing on processors without it.
    unsafe {
        core::arch::asm!("prefetchw [{}]", in(reg) place, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}
