//! Whether this host can serve a disk as it was asked to. Tried before there is a machine: who serves the disk finds
//! out too late for a clear word.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;

use executor::{Config, Executor, Fd, IoBuf};

use super::error::BlkError;
use super::image::{Caching, DiskOptions};
use crate::virtio::parts::{DirectIo, ExecutorNeeds};

/// What direct I/O of any device takes: a page, at its own address.
const BLOCK: usize = 4096;

/// What a device has to take at once, by the names that the kernel has for that: all transfers that are polled for, also
/// if each page is somewhere else and the first begins inside of one.
const AT_ONCE: [(&str, usize); 2] = [
    ("max_sectors_kb", executor::DirectIo::MOST_POLLED >> 10),
    ("max_segments", executor::DirectIo::MOST_POLLED / BLOCK + 1),
];

pub(super) fn run(file: &File, metadata: &Metadata, options: &DiskOptions) -> Result<(), BlkError> {
    let path = || options.path.clone();
    let needs = options.executor;
    if needs == ExecutorNeeds::default() {
        return Ok(());
    }
    if needs.direct_io == DirectIo::Polled && options.caching == Caching::PageCache {
        return Err(BlkError::PollingIsDirect { path: path() });
    }
    let config = Config { entries: 1, fixed_files: 0, ..Config::default() };
    let executor = Executor::new(&needs.of_executor(config));
    let mut executor = executor.map_err(|source| BlkError::Executor { path: path(), source })?;
    match needs.direct_io {
        DirectIo::Interrupts => Ok(()),
        DirectIo::Polled => poll_for(file, metadata, &mut executor)
            .map_err(|source| BlkError::NoPolling { path: path(), source }),
    }
}

/// Reads a block, and has it polled for.
fn poll_for(file: &File, metadata: &Metadata, executor: &mut Executor) -> io::Result<()> {
    // Before Linux 6.10 a device without queues for it is not polled in silence. Not every file system
    // has one device under it that could be asked.
    let device = if metadata.file_type().is_file() { metadata.dev() } else { metadata.rdev() };
    if of_queue(device, "io_poll").is_some_and(|polls| polls == "0") {
        let reason = "its device has no queues that are polled (/sys/block/*/queue/io_poll is 0)";
        return Err(io::Error::new(io::ErrorKind::Unsupported, reason));
    }
    check_limits(device)?;
    let file = OwnedFd::from(file.try_clone()?);
    executor.block_on(async {
        let memory = vec![0; 2 * BLOCK];
        let begin = memory.as_ptr().align_offset(BLOCK);
        let (result, _) = Fd::polled(file)?.read_at(memory.slice(begin..begin + BLOCK), 0).await;
        result.map(drop)
    })
}

/// Whether the device takes at once what is polled for, where it says that.
fn check_limits(device: u64) -> io::Result<()> {
    for (attribute, needed) in AT_ONCE {
        let limit = of_queue(device, attribute).and_then(|limit| limit.parse::<usize>().ok());
        if let Some(limit) = limit
            && limit < needed
        {
            let reason = format!(
                "its device takes too little at once (/sys/block/*/queue/{attribute} is {limit}, and not {needed} or more)"
            );
            return Err(io::Error::new(io::ErrorKind::Unsupported, reason));
        }
    }
    Ok(())
}

/// What the kernel says of the queue of a block device, in a word. A partition's queue is that of its disk.
pub(super) fn of_queue(device: u64, attribute: &str) -> Option<String> {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let read = |queue: &&str| {
        let path = format!("/sys/dev/block/{major}:{minor}/{queue}/{attribute}");
        Some(std::fs::read_to_string(path).ok()?.trim().to_owned())
    };
    ["queue", "../queue"].iter().find_map(read)
}
