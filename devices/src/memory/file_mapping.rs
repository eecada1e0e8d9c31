//! A file as memory of a guest that devices do not reach.

use std::os::fd::BorrowedFd;
use std::ptr::NonNull;

use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous};

use super::mapping::{Mapping, PAGE};
use super::{GuestAddress, MemoryError};

/// What may be done with a file's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileAccess {
    /// Writes reach the file.
    ReadWrite,
    /// There are no writes.
    ReadOnly,
}

/// A file that is mapped at a 2 MiB boundary; what is behind its end is zero.
#[derive(Debug)]
pub struct FileMapping {
    mapping: Mapping,
    guest_base: GuestAddress,
    length: u64,
    access: FileAccess,
}

impl FileMapping {
    /// Maps the first `file_length` bytes of a file, which has them, and zeros behind them up to
    /// `length`, whole pages. The guest has it at `guest_base`.
    pub fn new(
        file: BorrowedFd<'_>,
        file_length: u64,
        guest_base: GuestAddress,
        length: u64,
        access: FileAccess,
    ) -> Result<FileMapping, MemoryError> {
        let failed = |source| MemoryError::Map { base: guest_base, length, source };
        let pages = file_length.next_multiple_of(PAGE);
        if file_length == 0 || pages > length || !length.is_multiple_of(PAGE) {
            return Err(MemoryError::BadRegion { base: guest_base, length });
        }
        let mapping = Mapping::reserve(length as usize, 0).map_err(failed)?;
        let (protection, flags) = match access {
            FileAccess::ReadWrite => (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED),
            FileAccess::ReadOnly => (ProtFlags::READ, MapFlags::SHARED),
        };
        let base = mapping.base().as_ptr();
        // SAFETY: The reservation is ours and longer than this, so MAP_FIXED replaces nothing else.
        unsafe { mmap(base.cast(), pages as usize, protection, flags | MapFlags::FIXED, file, 0) }
            .map_err(|error| failed(error.into()))?;
        let rest = (length - pages) as usize;
        if rest > 0 {
            let behind = base.wrapping_add(pages as usize).cast();
            let flags = MapFlags::PRIVATE | MapFlags::FIXED;
            // SAFETY: As above; this is the rest of the reservation.
            unsafe { mmap_anonymous(behind, rest, protection, flags) }
                .map_err(|error| failed(error.into()))?;
        }
        Ok(FileMapping { mapping, guest_base, length, access })
    }

    /// Address of the first byte in this process.
    pub fn host_base(&self) -> NonNull<u8> {
        self.mapping.base()
    }

    /// Guest physical address of the first byte.
    pub fn guest_base(&self) -> GuestAddress {
        self.guest_base
    }

    /// Length in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// What may be done with it.
    pub fn access(&self) -> FileAccess {
        self.access
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Seek, Write};
    use std::os::fd::AsFd;

    use super::*;

    const BASE: GuestAddress = GuestAddress(1 << 32);

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn writes_reach_the_file() {
        let mut file = file(&[7; 8192]);
        let mapping =
            FileMapping::new(file.as_fd(), 8192, BASE, 8192, FileAccess::ReadWrite).unwrap();
        assert_eq!(mapping.host_base().addr().get() % (2 << 20), 0);
        // SAFETY: within the mapping.
        unsafe { mapping.host_base().as_ptr().add(8191).write(9) };
        let mut bytes = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut bytes).unwrap();
        assert_eq!((bytes.len(), bytes[8190], bytes[8191]), (8192, 7, 9));
    }

    #[test]
    fn behind_the_end_is_zero() {
        let file = file(&[7; 5000]);
        let mapping =
            FileMapping::new(file.as_fd(), 5000, BASE, 2 << 20, FileAccess::ReadOnly).unwrap();
        for (offset, byte) in [(0, 7), (4999, 7), (5000, 0), (8192, 0), ((2 << 20) - 1, 0)] {
            // SAFETY: within the mapping.
            assert_eq!(unsafe { mapping.host_base().as_ptr().add(offset).read() }, byte);
        }
    }

    #[test]
    fn lengths_that_make_no_sense_are_refused() {
        let file = file(&[7; 5000]);
        for (file_length, length) in [(0, 4096), (5000, 4096), (5000, 8193)] {
            let access = FileAccess::ReadOnly;
            assert!(FileMapping::new(file.as_fd(), file_length, BASE, length, access).is_err());
        }
    }
}
