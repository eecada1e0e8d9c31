//! The heap: from the end of the image upwards, never freed. A run allocates a few MiB at most.

use core::{
    alloc::{GlobalAlloc, Layout},
    sync::atomic::{AtomicUsize, Ordering},
};

#[global_allocator]
static HEAP: Heap = Heap { next: AtomicUsize::new(0), end: AtomicUsize::new(0) };

struct Heap {
    next: AtomicUsize,
    end: AtomicUsize,
}

/// Where the image and its zeroed data end.
pub(crate) fn image_end() -> u64 {
    unsafe extern "C" {
        static image_end: u8;
    }
    (&raw const image_end).expose_provenance() as u64
}

/// Gives the heap its memory. Called once, before anything is allocated.
///
/// # Safety
/// The range is mapped RAM that nothing else uses.
pub(crate) unsafe fn set_up(start: u64, end: u64) {
    HEAP.next.store(start as usize, Ordering::Relaxed);
    HEAP.end.store(end as usize, Ordering::Release);
}

/// The end of what was allocated so far.
pub(crate) fn used_end() -> u64 {
    HEAP.next.load(Ordering::Relaxed) as u64
}

/// The end of what can be allocated.
pub(crate) fn end() -> u64 {
    HEAP.end.load(Ordering::Relaxed) as u64
}

// SAFETY: every allocation is a range of its own of memory that `set_up` was promised.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let end = self.end.load(Ordering::Acquire);
        let mut start = 0;
        let taken = self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| {
            start = next.checked_next_multiple_of(layout.align())?;
            start.checked_add(layout.size()).filter(|after| *after <= end)
        });
        match taken {
            Ok(_) => core::ptr::with_exposed_provenance_mut(start),
            Err(_) => core::ptr::null_mut(),
        }
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}
