//! The file behind persistent memory: opened, checked and locked before any sandbox is entered.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::Access;
use crate::virtio::file_lock::{self, Holder, LockError};

/// Linux takes persistent memory in pieces of this size, and so do huge pages.
pub(super) const ALIGNMENT: u64 = 2 << 20;

/// What keeps a file from being persistent memory.
#[derive(Debug, Error)]
pub enum PmemError {
    /// The file could not be opened.
    #[error("cannot open {}{}", path.display(), hint(source))]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Not a regular file.
    #[error("{} is no regular file; a block device is for --disk", path.display())]
    Kind {
        /// What it is not.
        path: PathBuf,
    },
    /// A system call on the open file failed.
    #[error("cannot {action} {}", path.display())]
    System {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another process uses the file.
    #[error("{} is locked by {holder}; stop it, or use `ro` on both sides", path.display())]
    Locked {
        /// The file.
        path: PathBuf,
        /// Who holds the lock.
        holder: Holder,
    },
    /// What the guest writes behind the file's end would be lost.
    #[error(
        "{length} bytes of {} are no multiple of 2 MiB; make it {} bytes long with `size=`, or use `ro`",
        path.display(),
        (*length).max(1).next_multiple_of(ALIGNMENT)
    )]
    Length {
        /// The file.
        path: PathBuf,
        /// Its length.
        length: u64,
    },
    /// Asked to make a file longer that is only read.
    #[error("{} cannot be made longer with `size=` and be read only with `ro`", path.display())]
    SizeOfReadOnly {
        /// The file.
        path: PathBuf,
    },
    /// The file is longer than it shall be.
    #[error("{} has {length} bytes, more than the {size} of `size=`", path.display())]
    Longer {
        /// The file.
        path: PathBuf,
        /// Its length.
        length: u64,
        /// What was asked for.
        size: u64,
    },
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "; create it, for example with `truncate -s 1G`",
        io::ErrorKind::PermissionDenied => "; the owner or mode does not allow it, or use `ro`",
        _ => "",
    }
}

/// An open, checked and locked file. The lock lasts as long as any duplicate of the descriptor.
#[derive(Debug)]
pub struct PmemFile {
    file: File,
    access: Access,
    length: u64,
}

impl PmemFile {
    /// Open, check and lock the file; with a `size` it becomes so long if it is shorter.
    pub fn open(path: &Path, access: Access, size: Option<u64>) -> Result<Self, PmemError> {
        let owned = || path.to_path_buf();
        let opening = |source| PmemError::Open { path: owned(), source };
        let system = |action| move |source| PmemError::System { path: owned(), action, source };
        let writable = access == Access::ReadWrite;
        if size.is_some() && !writable {
            return Err(PmemError::SizeOfReadOnly { path: owned() });
        }
        // Only look before the kind is known: opening a pipe for real could wait for ever.
        if !std::fs::metadata(path).map_err(opening)?.is_file() {
            return Err(PmemError::Kind { path: owned() });
        }
        let file = OpenOptions::new().read(true).write(writable).open(path).map_err(opening)?;
        file_lock::lock(path, &file, access).map_err(|error| match error {
            LockError::Held(holder) => PmemError::Locked { path: owned(), holder },
            LockError::System(source) => system("lock")(source),
        })?;
        let mut length = file.metadata().map_err(system("find the length of"))?.len();
        if let Some(size) = size {
            if length > size {
                return Err(PmemError::Longer { path: owned(), length, size });
            }
            if length < size && size.is_multiple_of(ALIGNMENT) {
                file.set_len(size).map_err(system("make longer"))?;
            }
            length = size;
        }
        // What is only read may end in zeros that the file does not have.
        if length == 0 || (writable && !length.is_multiple_of(ALIGNMENT)) {
            return Err(PmemError::Length { path: owned(), length });
        }
        Ok(Self { file, access, length })
    }

    /// A file that somebody else opened, checked and locked, of so many bytes.
    pub fn over(file: OwnedFd, access: Access, length: u64) -> Self {
        Self { file: file.into(), access, length }
    }

    /// Bytes in the file.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Whether the guest may write.
    pub fn access(&self) -> Access {
        self.access
    }

    pub(super) fn duplicate(&self) -> io::Result<ipc::Fd> {
        Ok(ipc::Fd::new(self.file.try_clone()?))
    }
}

impl AsFd for PmemFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
