//! Files that are disks, and files that are not.

use std::error::Error;
use std::fs::File;
use std::io;

use rustix::io::Errno;

use super::super::image::outlast_claims;
use super::super::{Access, BlkError, BlockBackend, BlockImage, BlockSize, DiskOptions, Holder};
use super::bed::Disk;
use crate::virtio::backend::ConfigWrites;
use crate::virtio::parts::Parts as _;

fn refusal(options: &DiskOptions) -> BlkError {
    let error = BlockImage::open(options).unwrap_err();
    let name = options.path.to_str().unwrap();
    assert!(error.to_string().contains(name), "{error} names no file");
    error
}

#[test]
fn files_that_cannot_be_disks_are_refused_by_name() {
    let disk = Disk::new(64 << 10);
    let folder = disk.path.parent().unwrap();
    let missing = refusal(&DiskOptions::new(folder.join("missing")));
    assert!(matches!(missing, BlkError::Open { .. }));
    assert!(missing.source().is_some());
    let kind = |path: &str| match refusal(&DiskOptions::new(path)) {
        BlkError::Kind { kind, .. } => kind,
        other => panic!("{other}"),
    };
    assert_eq!(kind(folder.to_str().unwrap()), "a directory");
    assert_eq!(kind("/dev/null"), "a character device");
    let pipe = folder.join("pipe");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    assert_eq!(kind(pipe.to_str().unwrap()), "a pipe");
    let empty = folder.join("empty");
    File::create(&empty).unwrap();
    assert!(matches!(refusal(&DiskOptions::new(&empty)), BlkError::Empty { .. }));
    for queues in [0, 17] {
        let mut options = disk.options();
        options.queues = queues;
        assert!(matches!(refusal(&options), BlkError::Queues { .. }));
    }
    for size in [0, 2, 3, 100, 2048] {
        let mut options = disk.options();
        options.queue_size = size;
        assert!(matches!(refusal(&options), BlkError::QueueSize { .. }));
    }
}

#[test]
fn the_size_is_a_multiple_of_the_block_size() {
    let disk = Disk::new(64 << 10);
    for (length, block_size, fits) in [
        (1000, BlockSize::Bytes512, false),
        (1024, BlockSize::Bytes512, true),
        (1024, BlockSize::Bytes4096, false),
        (8192, BlockSize::Bytes4096, true),
    ] {
        disk.file.set_len(length).unwrap();
        let mut options = disk.options();
        options.block_size = block_size;
        match BlockImage::open(&options) {
            Ok(image) => assert!(fits && image.size() == length),
            Err(BlkError::Size { size, .. }) => assert!(!fits && size == length),
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn a_disk_has_one_writer_or_many_readers() {
    let disk = Disk::new(64 << 10);
    let mut readers = disk.options();
    readers.access = Access::ReadOnly;
    let writer = BlockImage::open(&disk.options()).unwrap();
    for options in [&disk.options(), &readers] {
        let BlkError::Locked { holder, .. } = refusal(options) else {
            panic!("a second user got in");
        };
        assert_eq!(holder, Holder::Process(std::process::id()));
    }
    let same = writer.try_clone().unwrap();
    drop(writer);
    refusal(&readers);
    drop(same);
    let first = BlockImage::open(&readers).unwrap();
    let second = BlockImage::open(&readers).unwrap();
    assert!(matches!(refusal(&disk.options()), BlkError::Locked { .. }));
    drop((first, second));
    BlockImage::open(&disk.options()).unwrap();
}

/// The claim of a machine on a block device outlives it for a moment.
#[test]
fn a_claim_is_waited_for_and_other_errors_are_told_at_once() {
    let mut answers = [Err(Errno::BUSY), Err(Errno::BUSY), Ok(7), Err(Errno::ACCESS)].into_iter();
    let mut open = || Ok(answers.next().expect("nobody waits for that")?);
    assert_eq!(outlast_claims(&mut open).unwrap(), 7);
    let refused: io::Error = outlast_claims(&mut open).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
}

#[test]
fn the_profile_says_what_the_disk_can() {
    let disk = Disk::new(64 << 10);
    let mut options = disk.options();
    options.queues = 3;
    options.queue_size = 64;
    options.block_size = BlockSize::Bytes4096;
    let profile = BlockBackend::new(BlockImage::open(&options).unwrap()).profile();
    assert_eq!(profile.device_type, 2);
    assert_eq!(profile.queue_sizes, [64; 3]);
    assert_eq!(profile.config_writes, ConfigWrites::Forwarded);
    // Discard and write zeroes, and not read-only.
    assert_eq!(profile.features & (1 << 5 | 1 << 13 | 1 << 14), 1 << 13 | 1 << 14);
    let config = &profile.config;
    let word = |at: usize| u32::from_le_bytes(config[at..at + 4].try_into().unwrap());
    assert_eq!(word(0), 128, "capacity in sectors");
    assert_eq!(word(12), 62, "segments");
    assert_eq!(word(20), 4096, "block size");
    assert_eq!(config[24], 0, "physical blocks are as large");
    assert_eq!(config[32], 1, "write-back");
    assert_eq!(config[34], 3, "queues");
    assert_eq!(config[56], 1, "zeroes may free");

    options.access = Access::ReadOnly;
    options.block_size = BlockSize::Bytes512;
    let profile = BlockBackend::new(BlockImage::open(&options).unwrap()).profile();
    assert_eq!(profile.features & (1 << 5 | 1 << 13 | 1 << 14), 1 << 5);
    assert_eq!(profile.config[24], 3, "eight blocks in a physical one");
}
