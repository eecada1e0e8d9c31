//! Memory that two processes share, as bytes.

use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// What is no larger is there from the beginning: a page that is touched for the first time keeps who writes for as
/// long as hundreds of records do.
const SMALL_BYTES: usize = 8 << 20;

/// A mapping of a whole file. Another process may read and write it at any time: what is there is only
/// ever copied, and any bytes are valid.
#[derive(Debug)]
pub(crate) struct SharedMemory {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: the mapping belongs to no thread, and all access is by copies and atomic words.
unsafe impl Send for SharedMemory {}
// SAFETY: as above; who writes the same place from two threads gets a mixture of bytes, which are valid.
unsafe impl Sync for SharedMemory {}

impl SharedMemory {
    /// Maps so many bytes of a file that is at least as long and cannot become shorter.
    pub(crate) fn map(file: BorrowedFd<'_>, length: usize) -> io::Result<Self> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let small = if length <= SMALL_BYTES { MapFlags::POPULATE } else { MapFlags::empty() };
        let flags = MapFlags::SHARED | small;
        // SAFETY: a new mapping at a place of the kernel's choice aliases nothing of this process.
        let start = unsafe { mmap(std::ptr::null_mut(), length, protection, flags, file, 0)? };
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, length })
    }

    /// A word near the start.
    ///
    /// # Panics
    ///
    /// If it is not inside.
    pub(crate) fn word(&self, index: usize) -> &AtomicU64 {
        assert!((index + 1) * size_of::<u64>() <= self.length, "a word inside of the mapping");
        #[expect(clippy::cast_ptr_alignment, reason = "pages are aligned to much more")]
        // SAFETY: the word lies inside of the mapping, which is aligned to a page and lives as long as
        // `self`; it is only ever accessed atomically in this process.
        unsafe {
            AtomicU64::from_ptr(self.start.as_ptr().cast::<u64>().add(index))
        }
    }

    /// Stores bytes.
    ///
    /// # Panics
    ///
    /// If they do not fit in there.
    #[inline]
    pub(crate) fn store(&self, at: usize, bytes: &[u8]) {
        assert!(at <= self.length && bytes.len() <= self.length - at, "inside of the mapping");
        // SAFETY: the destination lies inside of the mapping, checked above, and the source is no part
        // of it, because nothing hands out references into it.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.start.as_ptr().add(at), bytes.len());
        }
    }

    /// Copies bytes to the end of `out`.
    ///
    /// # Panics
    ///
    /// If they are not all in there.
    pub(crate) fn load(&self, at: usize, count: usize, out: &mut Vec<u8>) {
        assert!(at <= self.length && count <= self.length - at, "inside of the mapping");
        out.reserve(count);
        // SAFETY: the source lies inside of the mapping, checked above; there is room for `count` bytes
        // behind what `out` holds, and they are initialised when its length grows.
        unsafe {
            let end = out.as_mut_ptr().add(out.len());
            std::ptr::copy_nonoverlapping(self.start.as_ptr().add(at), end, count);
            out.set_len(out.len() + count);
        }
    }

    pub(crate) fn load_word(&self, index: usize) -> u64 {
        self.word(index).load(Ordering::Acquire)
    }

    pub(crate) fn store_word(&self, index: usize, value: u64) {
        self.word(index).store(value, Ordering::Release);
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `map` with this length, and no reference into it is left.
        // A failure would leave it mapped, which harms nobody.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.length) };
    }
}
