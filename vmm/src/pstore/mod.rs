//! The last words of a guest's kernel, in memory that outlasts it (the kernel's Documentation/admin-guide/ramoops.rst).
//!
//! ```text
//!   FILE, a part of the guest's memory       vmm pstore dump FILE
//!     records   what panics and oopses leave, one zone each
//!     console   the end of what the kernel said
//!     ftrace    calls of functions
//!     messages  of programs (/dev/pmsg0)
//!   each zone: signature, start, size, a ring of bytes
//! ```

mod zones;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::config::PstoreConfig;

pub use zones::{Zone, ZoneKind, read};

/// The smallest and the largest that make sense: zones have at least a page.
pub const SIZES: std::ops::RangeInclusive<u64> = 128 << 10..=64 << 20;

/// Where the zones are. Two records fit beside the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Of all of it.
    pub size: u64,
    /// Of each record.
    pub record: u64,
    /// Of the kernel's console.
    pub console: u64,
    /// Of calls of functions, and of programs' messages.
    pub others: u64,
}

impl Layout {
    /// That of a file of this size, a power of two.
    pub fn of(size: u64) -> Self {
        Self { size, record: size / 4, console: size / 4, others: 4 << 10 }
    }

    /// What tells the kernel's driver.
    pub fn kernel_words(&self, address: u64) -> String {
        let Self { size, record, console, others } = self;
        format!(
            "ramoops.mem_address={address:#x} ramoops.mem_size={size:#x} ramoops.record_size={record:#x} \
             ramoops.console_size={console:#x} ramoops.ftrace_size={others:#x} \
             ramoops.pmsg_size={others:#x}"
        )
    }
}

/// What keeps a file from being such memory.
#[derive(Debug, thiserror::Error)]
pub enum PstoreError {
    /// It cannot be opened or made.
    #[error("cannot open `{}`", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something else is in it.
    #[error("`{}` is no file of {size} bytes", path.display())]
    Other {
        /// The file.
        path: PathBuf,
        /// What was asked for.
        size: u64,
    },
    /// Another machine has it.
    #[error("another machine uses `{}`", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
}

/// An open and locked file.
#[derive(Debug)]
pub struct Pstore {
    file: File,
    /// How it is divided.
    pub layout: Layout,
}

impl Pstore {
    /// Opens the file, which is made for its owner alone if it is not there.
    pub fn open(config: &PstoreConfig) -> Result<Self, PstoreError> {
        let path = || config.path.clone();
        let opening = |source| PstoreError::Open { path: path(), source };
        let size = config.size.bytes();
        let file = open_or_make(&config.path).map_err(opening)?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(PstoreError::InUse { path: path() });
        }
        let metadata = file.metadata().map_err(opening)?;
        if !metadata.is_file() || ![0, size].contains(&metadata.len()) {
            return Err(PstoreError::Other { path: path(), size });
        }
        file.set_len(size).map_err(opening)?;
        Ok(Self { file, layout: Layout::of(size) })
    }
}

impl AsFd for Pstore {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// A pipe would be waited for.
fn open_or_make(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.custom_flags(libc::O_NONBLOCK).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::MemorySize;

    #[test]
    fn a_file_is_made_and_only_one_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pstore");
        let config = PstoreConfig { path: path.clone(), size: MemorySize::from_mib(1) };
        let pstore = Pstore::open(&config).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 1 << 20);
        assert!(matches!(Pstore::open(&config), Err(PstoreError::InUse { .. })));
        drop(pstore);
        let other = PstoreConfig { size: MemorySize::from_mib(2), ..config };
        assert!(matches!(Pstore::open(&other), Err(PstoreError::Other { .. })));
    }

    #[test]
    fn the_driver_is_told_where_it_is() {
        let words = Layout::of(1 << 20).kernel_words(0x4000_0000);
        assert!(words.starts_with("ramoops.mem_address=0x40000000 ramoops.mem_size=0x100000 "));
        assert!(words.contains("ramoops.record_size=0x40000 ramoops.console_size=0x40000 "));
    }
}
