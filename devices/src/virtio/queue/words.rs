//! The memory of in-flight records and metrics: 64-bit words that other processes may share.

use std::io;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::mm::{MapFlags, ProtFlags};

use super::crash::crash_point;

/// Words shared with other processes, or private ones with the same interface.
#[derive(Debug)]
pub(in crate::virtio) struct SharedWords {
    base: NonNull<AtomicU64>,
    length: usize,
    backing: Backing,
}

#[derive(Debug)]
enum Backing {
    Mapped,
    Private,
}

// SAFETY: the words are atomics in memory that this value owns; nothing depends on the thread.
unsafe impl Send for SharedWords {}
// SAFETY: as above.
unsafe impl Sync for SharedWords {}

impl SharedWords {
    pub(in crate::virtio) fn map(file: &OwnedFd, length: usize) -> io::Result<Self> {
        let bytes = length * size_of::<u64>();
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new shared mapping at an address of the kernel's choice touches no other
        // memory. The file is at least as long (checked) and sealed against shrinking.
        let base = unsafe {
            rustix::mm::mmap(std::ptr::null_mut(), bytes, protection, MapFlags::SHARED, file, 0)
        };
        Ok(Self {
            base: NonNull::new(base?.cast()).expect("mmap never returns null"),
            length,
            backing: Backing::Mapped,
        })
    }

    pub(in crate::virtio) fn private(length: usize) -> Self {
        let words: Box<[AtomicU64]> = (0..length).map(|_| AtomicU64::new(0)).collect();
        let base = Box::into_raw(words).cast();
        Self {
            base: NonNull::new(base).expect("a box is never null"),
            length,
            backing: Backing::Private,
        }
    }

    #[inline]
    pub(in crate::virtio) fn load(&self, index: usize) -> u64 {
        self.get(index).load(Ordering::Acquire)
    }

    /// A store that stays after all stores before it.
    #[inline]
    pub(in crate::virtio) fn store(&self, index: usize, word: u64) {
        crash_point();
        self.get(index).store(word, Ordering::Release);
    }

    /// Adds to a word that nobody else writes. Its order to other words does not matter.
    #[inline]
    pub(in crate::virtio) fn add(&self, index: usize, count: u64) {
        let word = self.get(index);
        word.store(word.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
    }

    #[inline]
    fn get(&self, index: usize) -> &AtomicU64 {
        assert!(index < self.length, "shared word out of bounds");
        // SAFETY: in bounds of memory that this value owns, aligned to pages or as boxed.
        unsafe { self.base.add(index).as_ref() }
    }
}

impl Drop for SharedWords {
    fn drop(&mut self) {
        match self.backing {
            // SAFETY: the mapping was made by `map` with this length and ends with this value.
            // Unmapping can only fail for an invalid range, which this is not.
            Backing::Mapped => unsafe {
                let bytes = self.length * size_of::<u64>();
                let _ = rustix::mm::munmap(self.base.as_ptr().cast(), bytes);
            },
            Backing::Private => {
                let words = std::ptr::slice_from_raw_parts_mut(self.base.as_ptr(), self.length);
                // SAFETY: made by `Box::into_raw` in `private` with this length.
                drop(unsafe { Box::from_raw(words) });
            }
        }
    }
}
