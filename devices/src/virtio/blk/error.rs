//! Why a disk cannot be used.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::virtio::file_lock::Holder;

/// What keeps a file from being a disk. Each message names the file and says what to do.
#[derive(Debug, Error)]
pub enum BlkError {
    /// The file could not be opened.
    #[error("cannot open disk {}{}", path.display(), hint(source))]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file system or the device cannot do direct I/O.
    #[error("cannot open disk {} for direct I/O: its file system has none; leave `direct` out", path.display())]
    NoDirectIo {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The block device is mounted or held by somebody else.
    #[error("disk {} is in use by this host, perhaps mounted; unmount it or use it with `ro`", path.display())]
    Busy {
        /// The block device.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Neither a regular file nor a block device.
    #[error("disk {} is {kind}; it takes a regular file or a block device", path.display())]
    Kind {
        /// The file.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// A system call on the open file failed.
    #[error("cannot {action} disk {}", path.display())]
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
    #[error("disk {} is locked by {holder}; stop it, or use the disk with `ro` on both sides", path.display())]
    Locked {
        /// The file.
        path: PathBuf,
        /// Who holds the lock.
        holder: Holder,
    },
    /// The file is empty.
    #[error("disk {} is empty; give it a size, for example with `truncate -s 1G`", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The size is not a whole number of blocks.
    #[error(
        "disk {} has {size} bytes, which is not a multiple of its block size of {block_size}; \
         cut or extend it to {}",
        path.display(),
        size.next_multiple_of(u64::from(*block_size))
    )]
    Size {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
        /// The logical block size.
        block_size: u32,
    },
    /// The device underneath has larger blocks.
    #[error("disk {} needs blocks of {needed} bytes; use `block-size={needed}`", path.display())]
    BlockSize {
        /// The file.
        path: PathBuf,
        /// What the device or its file system asks for.
        needed: u32,
    },
    /// This host has no such rings.
    #[error("disk {} cannot be served with `sqpoll` or `iopoll` here; leave it out", path.display())]
    Executor {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: executor::Error,
    },
    /// Nothing that is in the page cache is polled for.
    #[error("disk {} has `iopoll`, which polls for direct I/O; it takes `direct` as well", path.display())]
    PollingIsDirect {
        /// The file.
        path: PathBuf,
    },
    /// The file system or the device cannot do it.
    #[error("disk {} cannot be polled; leave `iopoll` out", path.display())]
    NoPolling {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The number of queues is out of range.
    #[error("disk {} cannot have {queues} queues; it takes 1 to 16", path.display())]
    Queues {
        /// The file.
        path: PathBuf,
        /// What was asked for.
        queues: u16,
    },
    /// The number of threads is out of range.
    #[error(
        "disk {} cannot be served by {threads} threads; each serves at least one queue, and it has {queues}",
        path.display()
    )]
    Threads {
        /// The file.
        path: PathBuf,
        /// What was asked for.
        threads: u16,
        /// Its queues.
        queues: u16,
    },
    /// The queue size is not one that a virtqueue can have here.
    #[error("disk {} cannot have queues of {size}; the size is a power of two from 4 to 1024", path.display())]
    QueueSize {
        /// The file.
        path: PathBuf,
        /// What was asked for.
        size: u16,
    },
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "; create it, for example with `truncate -s 1G`",
        io::ErrorKind::PermissionDenied => "; check its permissions, or use it with `ro`",
        io::ErrorKind::ReadOnlyFilesystem => "; use it with `ro`",
        io::ErrorKind::IsADirectory => "; it is a directory, and a disk is a file",
        _ => "",
    }
}
