//! Memory of words that other processes may share: what the ledger lies in.

use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};

/// A mapping of a file of words.
#[derive(Debug)]
pub(crate) struct SharedWords {
    base: NonNull<AtomicU64>,
    length: usize,
}

// SAFETY: the words are atomics in memory that this value owns; nothing depends on the thread.
unsafe impl Send for SharedWords {}

impl SharedWords {
    /// Maps the first `length` words of a file that is at least as long and cannot shrink.
    pub(crate) fn map(file: BorrowedFd<'_>, length: usize) -> Result<Self, Errno> {
        let bytes = length * size_of::<u64>();
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new shared mapping at an address of the kernel's choice touches no other
        // memory. That the file stays as long is the caller's business.
        let base = unsafe {
            rustix::mm::mmap(std::ptr::null_mut(), bytes, protection, MapFlags::SHARED, file, 0)
        }?;
        Ok(Self { base: NonNull::new(base.cast()).expect("mmap never returns null"), length })
    }

    /// New memory of zeros that no other process has. It counts as shared, so that it is bounded by what
    /// is written to it and not by how long it is.
    pub(crate) fn anonymous(length: usize) -> Result<Self, Errno> {
        let bytes = length * size_of::<u64>();
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::SHARED | MapFlags::NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no other memory.
        let base =
            unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), bytes, protection, flags) }?;
        Ok(Self { base: NonNull::new(base.cast()).expect("mmap never returns null"), length })
    }

    #[inline]
    pub(crate) fn load(&self, index: usize) -> u64 {
        self.get(index).load(Ordering::Acquire)
    }

    /// A store that stays after all stores before it.
    #[inline]
    pub(crate) fn store(&self, index: usize, word: u64) {
        self.get(index).store(word, Ordering::Release);
    }

    /// Bytes, from a word on; as many words as they take.
    pub(crate) fn store_bytes(&self, index: usize, bytes: &[u8]) {
        for (number, chunk) in bytes.chunks(8).enumerate() {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.store(index + number, u64::from_ne_bytes(word));
        }
    }

    /// Bytes, from a word on.
    pub(crate) fn load_bytes(&self, index: usize, bytes: &mut [u8]) {
        for (number, chunk) in bytes.chunks_mut(8).enumerate() {
            let word = self.load(index + number).to_ne_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }

    #[inline]
    fn get(&self, index: usize) -> &AtomicU64 {
        assert!(index < self.length, "word out of bounds");
        // SAFETY: in bounds of the mapping that this value owns, aligned to pages.
        unsafe { self.base.add(index).as_ref() }
    }
}

impl Drop for SharedWords {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `map` with this length and ends with this value.
        // Unmapping can only fail for an invalid range, which this is not.
        unsafe {
            let _ = rustix::mm::munmap(self.base.as_ptr().cast(), self.length * size_of::<u64>());
        }
    }
}
