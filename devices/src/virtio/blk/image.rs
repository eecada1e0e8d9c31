//! The file behind a disk: opened, checked and locked before any sandbox is entered.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FallocateFlags, Mode, OFlags, StatxFlags};
use serde::{Deserialize, Serialize};

use super::error::BlkError;
use super::trial;
use crate::dead_holder;
use crate::rate_limit::RateLimits;
use crate::virtio::file_lock::{self, LockError};
use crate::virtio::parts::ExecutorNeeds;
use crate::virtio::syncs::Failed;

/// Bytes of a virtio sector, whatever the block size (virtio 1.3 section 5.2.6).
pub const SECTOR_SIZE: u64 = 512;
/// `GET_ID` returns this many bytes (virtio 1.3 section 5.2.6.4).
pub const ID_LENGTH: usize = 20;
/// Most queues of a disk.
pub const MAX_QUEUES: u16 = 16;
/// Queue size unless asked otherwise: what Linux fills with one large sequential request and enough
/// for a depth of 32 with four segments each.
pub const DEFAULT_QUEUE_SIZE: u16 = 128;

/// Whether the guest may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Access {
    /// It may.
    #[default]
    ReadWrite,
    /// It may not, and other readers may have the file open.
    ReadOnly,
}

/// Whether the host's page cache is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Caching {
    /// It is.
    #[default]
    PageCache,
    /// `O_DIRECT`: it is not.
    Direct,
}

/// The logical block size that the guest sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum BlockSize {
    /// 512 bytes.
    #[default]
    Bytes512,
    /// 4096 bytes.
    Bytes4096,
}

impl BlockSize {
    /// In bytes.
    pub fn bytes(self) -> u32 {
        match self {
            Self::Bytes512 => 512,
            Self::Bytes4096 => 4096,
        }
    }
}

/// What is asked of a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskOptions {
    /// The file.
    pub path: PathBuf,
    /// Whether the guest may write.
    pub access: Access,
    /// Whether the host's page cache is used.
    pub caching: Caching,
    /// How requests get to the kernel, and how it is learned that they are done.
    pub executor: ExecutorNeeds,
    /// The logical block size that the guest sees.
    pub block_size: BlockSize,
    /// Request queues, 1 to 16.
    pub queues: u16,
    /// Threads that serve the queues, 1 to as many as there are queues.
    pub threads: u16,
    /// Descriptors of a queue, a power of two.
    pub queue_size: u16,
    /// What `GET_ID` returns; the first 20 bytes count. None makes one from the file's identity.
    pub id: Option<String>,
    /// Limits of requests and of the bytes that they move.
    pub limits: RateLimits,
}

impl DiskOptions {
    /// A writable disk with the defaults.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            access: Access::default(),
            caching: Caching::default(),
            executor: ExecutorNeeds::default(),
            block_size: BlockSize::default(),
            queues: 1,
            threads: 1,
            queue_size: DEFAULT_QUEUE_SIZE,
            id: None,
            limits: RateLimits::NONE,
        }
    }
}

/// An open, checked and locked disk, ready to travel to the process that serves it. The lock lasts
/// as long as any duplicate of the descriptor.
#[derive(Debug, Serialize, Deserialize)]
pub struct BlockImage {
    pub(super) file: ipc::Fd,
    /// The same once more for each further thread: of a sync that fails the kernel tells each open file.
    pub(super) further: Vec<ipc::Fd>,
    pub(super) geometry: Geometry,
    pub(super) limits: RateLimits,
    pub(super) executor: ExecutorNeeds,
}

/// What there is to know of a disk beside its contents.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Geometry {
    pub(super) size: u64,
    pub(super) access: Access,
    pub(super) block_size: BlockSize,
    pub(super) physical_block_size: u32,
    /// What direct I/O asks of pieces of memory, address and length; 1 without direct I/O.
    pub(super) memory_alignment: u32,
    pub(super) discard: Discard,
    pub(super) queues: u16,
    pub(super) queue_size: u16,
    pub(super) id: [u8; ID_LENGTH],
}

/// Whether ranges of the file can be freed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Discard {
    Supported,
    Unsupported,
}

impl Geometry {
    pub(super) fn failed_syncs(&self) -> Failed {
        if self.memory_alignment <= 1 { Failed::IsForgotten } else { Failed::IsKnown }
    }
}

impl BlockImage {
    /// Open, check and lock the file.
    pub fn open(options: &DiskOptions) -> Result<Self, BlkError> {
        let path = &options.path;
        let queue_size = options.queue_size;
        if !(1..=MAX_QUEUES).contains(&options.queues) {
            let (path, queues) = (path.clone(), options.queues);
            return Err(BlkError::Queues { path, queues });
        }
        if !(1..=options.queues).contains(&options.threads) {
            let (path, threads, queues) = (path.clone(), options.threads, options.queues);
            return Err(BlkError::Threads { path, threads, queues });
        }
        if !queue_size.is_power_of_two() || !(4..=1024).contains(&queue_size) {
            let (path, size) = (path.clone(), queue_size);
            return Err(BlkError::QueueSize { path, size });
        }
        // Only look before the kind is known: opening a pipe for real could wait for ever.
        let metadata = std::fs::metadata(path)
            .map_err(|source| BlkError::Open { path: path.clone(), source })?;
        let kind = Kind::of(path, &metadata)?;
        let mut file = open(options, kind)?;
        lock(path, &file, options.access)?;
        let size = file.seek(SeekFrom::End(0)).map_err(system(path, "find the size of"))?;
        check_size(path, size, options.block_size)?;
        let alignment = Alignment::of(path, &file, kind, options)?;
        let geometry = Geometry {
            size,
            access: options.access,
            block_size: options.block_size,
            physical_block_size: alignment.physical,
            memory_alignment: alignment.memory,
            discard: probe_discard(&file, kind, size, options.access),
            queues: options.queues,
            queue_size,
            id: identity(options, &metadata),
        };
        trial::run(&file, &metadata, options)?;
        let further = (1..options.threads).map(|_| open_again(&file, options).map(ipc::Fd::new));
        let further = further.collect::<Result<_, _>>()?;
        let (file, limits, executor) = (ipc::Fd::new(file), options.limits, options.executor);
        Ok(Self { file, further, geometry, limits, executor })
    }

    /// An image over a descriptor that somebody else opened, checked and locked: of `size` bytes, with
    /// a page cache, and able to free ranges.
    pub fn over(file: OwnedFd, size: u64, options: &DiskOptions) -> Self {
        let mut id = [0; ID_LENGTH];
        for (to, from) in id.iter_mut().zip(options.id.iter().flat_map(|id| id.bytes())) {
            *to = from;
        }
        let geometry = Geometry {
            size,
            access: options.access,
            block_size: options.block_size,
            physical_block_size: 4096,
            memory_alignment: 1,
            discard: match options.access {
                Access::ReadOnly => Discard::Unsupported,
                Access::ReadWrite => Discard::Supported,
            },
            queues: options.queues,
            queue_size: options.queue_size,
            id,
        };
        let (file, limits, executor) = (ipc::Fd::new(file), options.limits, options.executor);
        Self { file, further: Vec::new(), geometry, limits, executor }
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.geometry.size
    }

    /// Whether the guest may write.
    pub fn access(&self) -> Access {
        self.geometry.access
    }

    /// The logical block size.
    pub fn block_size(&self) -> BlockSize {
        self.geometry.block_size
    }

    /// The open file, for example to hand it to another process.
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Regular,
    BlockDevice,
}

impl Kind {
    fn of(path: &Path, metadata: &Metadata) -> Result<Self, BlkError> {
        let kind = metadata.file_type();
        let other = if kind.is_file() {
            return Ok(Self::Regular);
        } else if kind.is_block_device() {
            return Ok(Self::BlockDevice);
        } else if kind.is_dir() {
            "a directory"
        } else if kind.is_char_device() {
            "a character device"
        } else if kind.is_fifo() {
            "a pipe"
        } else {
            "a socket"
        };
        Err(BlkError::Kind { path: path.to_path_buf(), kind: other })
    }
}

fn system<'a>(path: &'a Path, action: &'static str) -> impl FnOnce(io::Error) -> BlkError + 'a {
    move |source| BlkError::System { path: path.to_path_buf(), action, source }
}

fn open(options: &DiskOptions, kind: Kind) -> Result<File, BlkError> {
    let mut flags = OFlags::empty();
    if options.caching == Caching::Direct {
        flags |= OFlags::DIRECT;
    }
    let writable = options.access == Access::ReadWrite;
    if writable && kind == Kind::BlockDevice {
        // On a block device this fails if it is mounted, and keeps it from being mounted.
        flags |= OFlags::EXCL;
    }
    let open = |flags: OFlags| {
        let mut open = OpenOptions::new();
        open.read(true).write(writable).custom_flags(flags.bits() as i32).open(&options.path)
    };
    // Nobody asks when an image was read last, and each read would look whether to write that down. Owners may
    // leave it away.
    let opened = outlast_claims(|| {
        open(flags | OFlags::NOATIME).or_else(|error| match error.raw_os_error() {
            Some(libc::EPERM) => open(flags),
            _ => Err(error),
        })
    });
    opened.map_err(|source| {
        let path = options.path.clone();
        match source.kind() {
            io::ErrorKind::InvalidInput if options.caching == Caching::Direct => {
                BlkError::NoDirectIo { path, source }
            }
            io::ErrorKind::ResourceBusy => BlkError::Busy { path, source },
            _ => BlkError::Open { path, source },
        }
    })
}

/// Open, also a block device that a machine has just let go of.
pub(super) fn outlast_claims<T>(open: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    dead_holder::outlast(open, |error| error.kind() == io::ErrorKind::ResourceBusy)
}

/// What is open already, as another open file. It has no lock of its own, and needs none.
fn open_again(file: &File, options: &DiskOptions) -> Result<File, BlkError> {
    let system = |source: rustix::io::Errno| {
        let action = "open once more, for a further thread,";
        BlkError::System { path: options.path.clone(), action, source: source.into() }
    };
    // As it was opened, but not to keep others away: that does the first one.
    let flags = rustix::fs::fcntl_getfl(file).map_err(system)?;
    let kept = OFlags::RWMODE | OFlags::DIRECT | OFlags::NOATIME;
    let name = format!("/proc/self/fd/{}", file.as_raw_fd());
    let again = rustix::fs::open(name, (flags & kept) | OFlags::CLOEXEC, Mode::empty());
    again.map(File::from).map_err(system)
}

fn lock(path: &Path, file: &File, access: Access) -> Result<(), BlkError> {
    file_lock::lock(path, file, access).map_err(|error| match error {
        LockError::Held(holder) => BlkError::Locked { path: path.to_path_buf(), holder },
        LockError::System(source) => system(path, "lock")(source),
    })
}

fn check_size(path: &Path, size: u64, block_size: BlockSize) -> Result<(), BlkError> {
    let path = path.to_path_buf();
    let block_size = block_size.bytes();
    if size == 0 {
        return Err(BlkError::Empty { path });
    }
    if !size.is_multiple_of(block_size.into()) {
        return Err(BlkError::Size { path, size, block_size });
    }
    Ok(())
}

struct Alignment {
    memory: u32,
    physical: u32,
}

impl Alignment {
    /// What the file asks of requests, checked against the block size.
    fn of(path: &Path, file: &File, kind: Kind, options: &DiskOptions) -> Result<Self, BlkError> {
        let (mut memory, mut offset) = (1, 1);
        let mut physical = 4096;
        if kind == Kind::BlockDevice {
            let failed = |error: rustix::io::Errno| system(path, "query")(error.into());
            offset = rustix::fs::ioctl_blksszget(file).map_err(failed)?;
            physical = rustix::fs::ioctl_blkpbszget(file).map_err(failed)?;
        }
        if options.caching == Caching::Direct {
            (memory, offset) = direct_alignment(file, offset);
        }
        if offset > options.block_size.bytes() {
            return Err(BlkError::BlockSize { path: path.to_path_buf(), needed: offset });
        }
        Ok(Self { memory, physical })
    }
}

/// What direct I/O asks of addresses and of offsets.
fn direct_alignment(file: &File, logical: u32) -> (u32, u32) {
    let status = rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN);
    match status {
        Ok(status)
            if status.stx_mask & StatxFlags::DIOALIGN.bits() != 0
                && status.stx_dio_offset_align != 0 =>
        {
            // Lengths of pieces count as well, and those go by the offset's alignment.
            let offset = status.stx_dio_offset_align;
            (status.stx_dio_mem_align.max(offset), offset)
        }
        // An older kernel does not say: a logical block of 512 bytes serves both almost everywhere.
        _ => (logical.max(512), logical.max(512)),
    }
}

/// Whether freeing ranges works, found out without changing anything.
fn probe_discard(file: &File, kind: Kind, size: u64, access: Access) -> Discard {
    let supported = match (access, kind) {
        (Access::ReadOnly, _) => false,
        (Access::ReadWrite, Kind::Regular) => {
            // Behind the end there is nothing to free.
            let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            let behind = size.next_multiple_of(1 << 20);
            rustix::fs::fallocate(file, mode, behind, 4096).is_ok()
        }
        (Access::ReadWrite, Kind::BlockDevice) => file.metadata().is_ok_and(|metadata| {
            let limit = trial::of_queue(metadata.rdev(), "write_zeroes_max_bytes");
            limit.is_some_and(|limit| limit != "0")
        }),
    };
    if supported { Discard::Supported } else { Discard::Unsupported }
}

fn identity(options: &DiskOptions, metadata: &Metadata) -> [u8; ID_LENGTH] {
    let made = || format!("{:x}-{:x}", metadata.dev(), metadata.ino());
    let text = options.id.clone().unwrap_or_else(made);
    let mut id = [0; ID_LENGTH];
    for (to, from) in id.iter_mut().zip(text.bytes()) {
        *to = from;
    }
    id
}
