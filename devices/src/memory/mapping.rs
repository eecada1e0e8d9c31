//! One region of guest memory mapped into this process.

use std::io;
use std::ptr::{self, NonNull};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous, munmap};

use super::{CoreDump, HostRange, MapOptions, MemoryError, PageAdvice, RegionSpec};

/// A huge page of `x86_64` and of aarch64 with 4 KiB granules. The host address and the guest address
/// of a region must agree modulo this, or the nested page tables hold no huge entries.
const HUGE_PAGE: usize = 2 << 20;

/// The smallest page of all hosts; regions are multiples of it, the kernel insists on its own.
pub(super) const PAGE: u64 = 4096;

/// A mapping that is unmapped when dropped.
#[derive(Debug)]
pub(super) struct Mapping {
    base: NonNull<u8>,
    length: usize,
}

// SAFETY: The mapping is plain shared memory; nothing about it belongs to a thread.
unsafe impl Send for Mapping {}
// SAFETY: As above; all access goes through raw pointers and is volatile.
unsafe impl Sync for Mapping {}

/// Whether a region can be mapped at all, before any of them is.
pub(super) fn check(spec: &RegionSpec) -> Result<(), MemoryError> {
    let bad = || MemoryError::BadRegion { base: spec.base, length: spec.length };
    let whole_pages =
        [spec.base.0, spec.length, spec.file_offset].iter().all(|value| value.is_multiple_of(PAGE));
    // Room for the alignment must fit into the address space, too.
    let mappable = isize::try_from(spec.length).is_ok_and(|length| length < isize::MAX / 2);
    if !whole_pages || !mappable || spec.length == 0 {
        return Err(bad());
    }
    spec.base.0.checked_add(spec.length).ok_or_else(bad)?;
    let needed = spec.file_offset.checked_add(spec.length).ok_or_else(bad)?;
    let status = rustix::fs::fstat(&spec.file).map_err(|error| map_error(spec, error.into()))?;
    let file_length = u64::try_from(status.st_size).unwrap_or(0);
    // An access beyond the end of the file would be a SIGBUS.
    if file_length < needed {
        return Err(MemoryError::FileTooShort { base: spec.base, file_length, needed });
    }
    Ok(())
}

fn map_error(spec: &RegionSpec, source: io::Error) -> MemoryError {
    MemoryError::Map { base: spec.base, length: spec.length, source }
}

impl Mapping {
    /// Maps a region that passed [`check`].
    pub(super) fn new(spec: &RegionSpec, options: MapOptions) -> Result<Mapping, MemoryError> {
        let length = spec.length as usize;
        let mapping = Mapping::reserve(length, spec.base.0 as usize % HUGE_PAGE)
            .map_err(|error| map_error(spec, error))?;
        // SAFETY: The reservation is ours and of this length, so MAP_FIXED replaces nothing else.
        unsafe {
            mmap(
                mapping.base.as_ptr().cast(),
                length,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | MapFlags::NORESERVE | MapFlags::FIXED,
                &spec.file,
                spec.file_offset,
            )
        }
        .map_err(|error| map_error(spec, error.into()))?;
        mapping.advise(options);
        Ok(mapping)
    }

    /// Reserves `length` bytes of address space, `skew` bytes after a huge page boundary.
    pub(super) fn reserve(length: usize, skew: usize) -> io::Result<Mapping> {
        let reserved = length + HUGE_PAGE;
        // SAFETY: A fresh mapping at an address that the kernel chooses.
        let start = unsafe {
            mmap_anonymous(ptr::null_mut(), reserved, ProtFlags::empty(), MapFlags::PRIVATE)
        }?
        .cast::<u8>();
        let head = (skew + HUGE_PAGE - start as usize % HUGE_PAGE) % HUGE_PAGE;
        let base = start.wrapping_add(head);
        for (slack, bytes) in [(start, head), (base.wrapping_add(length), HUGE_PAGE - head)] {
            if bytes > 0 {
                // SAFETY: The slack is part of the reservation above and nobody knows of it.
                unsafe { munmap(slack.cast(), bytes) }?;
            }
        }
        let base = NonNull::new(base).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Mapping { base, length })
    }

    /// Advice only: a kernel without the feature costs speed or dump size, nothing else.
    fn advise(&self, options: MapOptions) {
        let huge = (options.pages == PageAdvice::Huge).then_some(Advice::LinuxHugepage);
        let dump =
            (options.core_dump == CoreDump::WithoutGuestMemory).then_some(Advice::LinuxDontDump);
        for advice in [huge, dump].into_iter().flatten() {
            // SAFETY: Neither advice changes what the memory holds.
            let result = unsafe { madvise(self.base.as_ptr().cast(), self.length, advice) };
            if let Err(error) = result {
                log::debug!("guest memory: madvise {advice:?}: {error}");
            }
        }
    }

    /// Address of the first byte.
    pub(super) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// A part of the mapping, which the caller has checked to be one.
    #[inline]
    pub(super) fn range(&self, offset: usize, length: usize) -> HostRange {
        debug_assert!(offset <= self.length && length <= self.length - offset);
        // SAFETY: The offset is within the mapping, as the caller checked.
        let pointer = unsafe { self.base.add(offset) };
        HostRange { pointer, length }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: The mapping is ours; whoever holds a `HostRange` keeps a clone of the memory, so
        // nobody uses it any more.
        if let Err(error) = unsafe { munmap(self.base.as_ptr().cast(), self.length) } {
            log::error!("unmapping guest memory: {error}");
        }
    }
}
