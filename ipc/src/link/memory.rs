//! The memory that both ends of a link map.
//!
//! The other process may write anything here at any moment. So the memory is only ever reached as
//! atomic words, each value is read once and checked afterwards, and the size is sealed: a peer
//! that could shrink the file could make this process die of SIGBUS.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, AtomicU64};

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{Advice, MapFlags, ProtFlags};

/// A shared mapping, seen as words of 64 bits.
pub(crate) struct Memory {
    words: NonNull<AtomicU64>,
    count: usize,
}

// SAFETY: the mapping is owned by this value and only reached through atomics.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

/// What keeps the size of the file what it is.
const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

/// A file of `bytes` zeroes in memory whose size nobody can change any more.
pub(crate) fn create(bytes: usize) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = rustix::fs::memfd_create(c"ipc-link", flags)?;
    rustix::fs::ftruncate(&file, bytes as u64)?;
    rustix::fs::fcntl_add_seals(&file, SEALS)?;
    Ok(file)
}

impl Memory {
    /// Maps a file made by [`create`] in this or another process.
    pub(crate) fn map(file: BorrowedFd<'_>, bytes: usize) -> io::Result<Self> {
        let size = rustix::fs::fstat(file)?.st_size;
        let seals = rustix::fs::fcntl_get_seals(file)?;
        if u64::try_from(size) != Ok(bytes as u64) || !seals.contains(SEALS) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the shared memory of the link has the wrong size or can still change it",
            ));
        }
        // SAFETY: a new mapping at an address the kernel chooses; nothing else refers to it.
        let base = unsafe {
            rustix::mm::mmap(
                ptr::null_mut(),
                bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                file.as_fd(),
                0,
            )
        }?;
        let words = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        let memory = Self { words, count: bytes / size_of::<u64>() };
        // A process forked later must not inherit a way into this link.
        // SAFETY: the range is the mapping made above.
        unsafe { rustix::mm::madvise(base, bytes, Advice::LinuxDontFork) }?;
        Ok(memory)
    }

    /// The words `[start, start + count)`.
    ///
    /// # Panics
    /// When they are not all inside: callers have checked what came from the peer.
    pub(crate) fn words(&self, start: usize, count: usize) -> &[AtomicU64] {
        assert!(start <= self.count && count <= self.count - start, "words outside of the link");
        // SAFETY: the range was checked, the mapping lives as long as `self`, mappings are aligned
        // to pages, and atomics may be shared with another process that writes at any time.
        unsafe { std::slice::from_raw_parts(self.words.as_ptr().add(start), count) }
    }

    /// One word.
    pub(crate) fn word(&self, index: usize) -> &AtomicU64 {
        &self.words(index, 1)[0]
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `map` with this size, and references into it borrow
        // from `self`.
        let unmapped = unsafe {
            rustix::mm::munmap(self.words.as_ptr().cast(), self.count * size_of::<u64>())
        };
        debug_assert!(unmapped.is_ok());
    }
}

/// The half of a word that a futex looks at: it holds the flags and changes with every progress.
pub(crate) fn futex_half(word: &AtomicU64) -> &AtomicU32 {
    const { assert!(cfg!(target_endian = "little"), "the low half comes first") };
    // SAFETY: the low half of an aligned 64-bit atomic is an aligned 32-bit one inside it. It is
    // only handed to the kernel, never read or written from here.
    unsafe { &*ptr::from_ref(word).cast::<AtomicU32>() }
}
