//! How reads and writes reach a file, and why.

use std::io::IoSliceMut;
use std::os::fd::BorrowedFd;

use rustix::fs::{FileType, OFlags};
use rustix::io::{Errno, ReadWriteFlags};

/// How reads and writes reach the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IoStrategy {
    /// Through the executor's ring.
    #[default]
    Ring,
    /// Reads from a mapping as long as that seldom waits for storage, else one at a time by a system call of their
    /// own if that need not wait (`RWF_NOWAIT`), several together, and what has to wait, through the ring. Writes by a
    /// system call of their own unless these have to wait. For files with a page cache.
    Adaptive,
    /// Reads from a mapping, and by a system call of their own where the file has holes; writes by one in any case. For
    /// files in memory: `io_uring` would hand each operation to a worker thread, which takes several times as long as the
    /// copy.
    InMemory,
}

/// What is behind a file, as far as it matters to those who read and write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// The file is in memory and nowhere else.
    Memory,
    /// There is a page cache, and the file system says whether it has to wait.
    PageCache,
    /// It was opened to bypass the page cache.
    Direct,
    /// The file system cannot say whether a read has to wait.
    Silent,
}

impl Storage {
    /// Looks at a file.
    pub fn of(file: BorrowedFd<'_>) -> Self {
        // `TMPFS_MAGIC` of linux/magic.h.
        const TMPFS: u64 = 0x0102_1994;
        // The nodes of devices are in memory as well (devtmpfs), what they stand for is not.
        let is_device = rustix::fs::fstat(file).is_ok_and(|status| {
            let kind = FileType::from_raw_mode(status.st_mode);
            matches!(kind, FileType::BlockDevice | FileType::CharacterDevice)
        });
        let is_tmpfs =
            |file| rustix::fs::fstatfs(file).is_ok_and(|status| status.f_type as u64 == TMPFS);
        if !is_device && is_tmpfs(file) {
            return Self::Memory;
        }
        let direct = rustix::fs::fcntl_getfl(file).map(|flags| flags.contains(OFlags::DIRECT));
        if direct.unwrap_or(true) {
            return Self::Direct;
        }
        let mut byte = [0];
        let mut pieces = [IoSliceMut::new(&mut byte)];
        match rustix::io::preadv2(file, &mut pieces, 0, ReadWriteFlags::NOWAIT) {
            Ok(_) | Err(Errno::AGAIN) => Self::PageCache,
            Err(_) => Self::Silent,
        }
    }

    /// What suits it.
    pub fn strategy(self) -> IoStrategy {
        match self {
            Self::Memory => IoStrategy::InMemory,
            Self::PageCache => IoStrategy::Adaptive,
            Self::Direct | Self::Silent => IoStrategy::Ring,
        }
    }
}

impl IoStrategy {
    /// What suits a file.
    pub fn probe(file: BorrowedFd<'_>) -> Self {
        Storage::of(file).strategy()
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn files_in_memory_are_known_and_what_is_no_file_goes_through_the_ring() {
        let memory = rustix::fs::memfd_create("disk", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        assert_eq!(Storage::of(memory.as_fd()), Storage::Memory);
        // Its node is in memory, as those of block devices are.
        let device = std::fs::File::open("/dev/zero").unwrap();
        assert_eq!(Storage::of(device.as_fd()), Storage::PageCache);
        let folder = std::fs::File::open("/proc/self").unwrap();
        assert_eq!(IoStrategy::probe(folder.as_fd()), IoStrategy::Ring);
    }
}
