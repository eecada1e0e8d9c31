//! What driver and device say to each other (virtio 1.3 section 5.2).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::image::{Access, Discard, Geometry, SECTOR_SIZE};
use crate::virtio::queue::RING_FEATURES;

/// Virtio device type of a block device.
pub(super) const DEVICE_TYPE: u16 = 2;

/// `VIRTIO_BLK_F_SEG_MAX`.
pub(super) const FEATURE_SEG_MAX: u64 = 1 << 2;
/// `VIRTIO_BLK_F_RO`.
pub(super) const FEATURE_RO: u64 = 1 << 5;
/// `VIRTIO_BLK_F_BLK_SIZE`.
pub(super) const FEATURE_BLK_SIZE: u64 = 1 << 6;
/// `VIRTIO_BLK_F_FLUSH`.
pub(super) const FEATURE_FLUSH: u64 = 1 << 9;
/// `VIRTIO_BLK_F_TOPOLOGY`.
pub(super) const FEATURE_TOPOLOGY: u64 = 1 << 10;
/// `VIRTIO_BLK_F_CONFIG_WCE`.
pub(super) const FEATURE_CONFIG_WCE: u64 = 1 << 11;
/// `VIRTIO_BLK_F_MQ`.
pub(super) const FEATURE_MQ: u64 = 1 << 12;
/// `VIRTIO_BLK_F_DISCARD`.
pub(super) const FEATURE_DISCARD: u64 = 1 << 13;
/// `VIRTIO_BLK_F_WRITE_ZEROES`.
pub(super) const FEATURE_WRITE_ZEROES: u64 = 1 << 14;

/// The request is done.
pub(super) const STATUS_OK: u8 = 0;
/// It failed.
pub(super) const STATUS_IOERR: u8 = 1;
/// The device does not know such a request.
pub(super) const STATUS_UNSUPP: u8 = 2;

/// Header and status take a descriptor each; the rest of the queue may be data.
const DESCRIPTORS_BESIDE_DATA: u16 = 2;

/// Most segments of one discard or write-zeroes request: as many as Linux merges into one at most
/// are 256; 16 keep the request small.
pub(super) const MAX_RANGES: u32 = 16;
/// Most sectors of one discard segment, 1 GiB: freeing that many extents takes milliseconds.
pub(super) const MAX_DISCARD_SECTORS: u32 = (1 << 30) / SECTOR_SIZE as u32;
/// Most sectors of one write-zeroes segment, 64 MiB: where the file system cannot zero by itself,
/// that much is written.
pub(super) const MAX_WRITE_ZEROES_SECTORS: u32 = (64 << 20) / SECTOR_SIZE as u32;

/// Offset of `writeback` in the configuration space.
pub(super) const CONFIG_WRITEBACK: u32 = 32;

/// The header of a request.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Header {
    pub(super) kind: u32,
    pub(super) reserved: u32,
    pub(super) sector: u64,
}

/// A segment of a discard or write-zeroes request.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct RangeSegment {
    pub(super) sector: u64,
    pub(super) sectors: u32,
    pub(super) flags: u32,
}

/// `flags` of a [`RangeSegment`]: the range may be freed.
pub(super) const RANGE_UNMAP: u32 = 1;

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    In,
    Out,
    Flush,
    GetId,
    Discard,
    WriteZeroes,
    Unknown,
}

impl From<u32> for Kind {
    fn from(kind: u32) -> Self {
        match kind {
            0 => Self::In,
            1 => Self::Out,
            4 => Self::Flush,
            8 => Self::GetId,
            11 => Self::Discard,
            13 => Self::WriteZeroes,
            _ => Self::Unknown,
        }
    }
}

/// The configuration space (virtio 1.3 section 5.2.4).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Config {
    capacity: u64,
    size_max: u32,
    seg_max: u32,
    geometry: u32,
    blk_size: u32,
    physical_block_exp: u8,
    alignment_offset: u8,
    min_io_size: u16,
    opt_io_size: u32,
    writeback: u8,
    unused0: u8,
    num_queues: u16,
    max_discard_sectors: u32,
    max_discard_seg: u32,
    discard_sector_alignment: u32,
    max_write_zeroes_sectors: u32,
    max_write_zeroes_seg: u32,
    write_zeroes_may_unmap: u8,
    unused1: [u8; 3],
    max_secure_erase_sectors: u32,
}

/// Whether a write is done when it is in the cache or when it is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CacheMode {
    WriteBack,
    WriteThrough,
}

/// The features that a disk can have.
pub(super) fn features(geometry: &Geometry) -> u64 {
    let always = FEATURE_SEG_MAX
        | FEATURE_BLK_SIZE
        | FEATURE_FLUSH
        | FEATURE_TOPOLOGY
        | FEATURE_CONFIG_WCE
        | FEATURE_MQ
        | RING_FEATURES;
    let access = match geometry.access {
        Access::ReadOnly => FEATURE_RO,
        Access::ReadWrite => FEATURE_WRITE_ZEROES,
    };
    let discard = match geometry.discard {
        Discard::Supported => FEATURE_DISCARD,
        Discard::Unsupported => 0,
    };
    always | access | discard
}

/// The configuration space of a disk.
pub(super) fn config(geometry: &Geometry, mode: CacheMode) -> Vec<u8> {
    let block_size = geometry.block_size.bytes();
    let physical = geometry.physical_block_size.max(block_size);
    let ratio = physical / block_size;
    let discards = geometry.discard == Discard::Supported;
    let config = Config {
        capacity: geometry.size / SECTOR_SIZE,
        size_max: 0,
        seg_max: u32::from(geometry.queue_size - DESCRIPTORS_BESIDE_DATA),
        geometry: 0,
        blk_size: block_size,
        physical_block_exp: ratio.ilog2() as u8,
        alignment_offset: 0,
        min_io_size: u16::try_from(ratio).unwrap_or(1),
        opt_io_size: 0,
        writeback: u8::from(mode == CacheMode::WriteBack),
        unused0: 0,
        num_queues: geometry.queues,
        max_discard_sectors: if discards { MAX_DISCARD_SECTORS } else { 0 },
        max_discard_seg: if discards { MAX_RANGES } else { 0 },
        discard_sector_alignment: physical / SECTOR_SIZE as u32,
        max_write_zeroes_sectors: MAX_WRITE_ZEROES_SECTORS,
        max_write_zeroes_seg: MAX_RANGES,
        write_zeroes_may_unmap: u8::from(discards),
        unused1: [0; 3],
        max_secure_erase_sectors: 0,
    };
    config.as_bytes().to_vec()
}

const _: () = assert!(size_of::<Config>() == 64);
