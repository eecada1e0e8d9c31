//! A back end on an executor, a file behind it and a driver before it.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::ops::{Deref, DerefMut};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use tempfile::TempDir;

use super::super::{BlockBackend, BlockImage, DiskOptions};
use crate::virtio::backend::{DeviceProfile, QueueSetup};
use crate::virtio::queue::driver::Buffer;
use crate::virtio::queue::{FEATURE_RING_PACKED, InflightRegion};
pub(super) use crate::virtio::test_bed::{TestBed, deadline, on_both, over, readable, writable};

pub(super) const SECTOR: u64 = 512;
pub(super) const STATUS_OK: u8 = 0;
pub(super) const STATUS_IOERR: u8 = 1;
pub(super) const STATUS_UNSUPP: u8 = 2;
pub(super) const IN: u32 = 0;
pub(super) const OUT: u32 = 1;
pub(super) const FLUSH: u32 = 4;
pub(super) const GET_ID: u32 = 8;
pub(super) const DISCARD: u32 = 11;
pub(super) const WRITE_ZEROES: u32 = 13;

/// Flush, `CONFIG_WCE`, MQ, discard, write zeroes, indirect, event indices, version 1.
pub(super) const FEATURES: u64 =
    1 << 9 | 1 << 11 | 1 << 12 | 1 << 13 | 1 << 14 | 1 << 28 | 1 << 29 | 1 << 32;

const MEMORY: u64 = 16 << 20;
/// Each request has a place of this many bytes: header, status, data.
const PLACE: u64 = 128 << 10;
const PLACES: u64 = 1 << 20;
const HEADER_AT: u64 = 0;
const STATUS_AT: u64 = 0x100;
const TABLE_AT: u64 = 0x200;
/// Where the data of a place begins.
const DATA_AT: u64 = 0x1000;

/// A file of so many bytes, each sector filled with its own number.
pub(super) struct Disk {
    pub(super) file: File,
    pub(super) path: PathBuf,
    _folder: TempDir,
}

impl Disk {
    pub(super) fn new(bytes: u64) -> Self {
        // Beside the test, not in /tmp, which may be a tmpfs: that has no ranges to zero.
        let test = std::env::current_exe().unwrap();
        let folder = TempDir::new_in(test.parent().unwrap()).unwrap();
        let path = folder.path().join("disk");
        let mut file = File::create_new(&path).unwrap();
        for sector in 0..bytes / SECTOR {
            file.write_all(&pattern(sector)).unwrap();
        }
        file.seek(SeekFrom::Start(0)).unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        Self { file, path, _folder: folder }
    }

    pub(super) fn options(&self) -> DiskOptions {
        DiskOptions::new(&self.path)
    }

    pub(super) fn read(&self, sector: u64, bytes: usize) -> Vec<u8> {
        let mut data = vec![0; bytes];
        self.file.read_exact_at(&mut data, sector * SECTOR).unwrap();
        data
    }
}

/// What a new disk holds in a sector.
pub(super) fn pattern(sector: u64) -> Vec<u8> {
    let word = sector.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    word.to_le_bytes().repeat(SECTOR as usize / 8)
}

/// A machine with one disk.
pub(super) struct Bed(TestBed);

impl Deref for Bed {
    type Target = TestBed;

    fn deref(&self) -> &TestBed {
        &self.0
    }
}

impl DerefMut for Bed {
    fn deref_mut(&mut self) -> &mut TestBed {
        &mut self.0
    }
}

impl Bed {
    /// A back end that runs and is not active.
    pub(super) fn start(backend: BlockBackend, queues: u16, size: u16) -> Self {
        Self::start_with(backend, queues, size, FEATURES)
    }

    pub(super) fn start_with(backend: BlockBackend, queues: u16, size: u16, features: u64) -> Self {
        // Not always what the disk offers.
        let profile = DeviceProfile {
            features: features | FEATURE_RING_PACKED,
            queue_sizes: vec![size; queues.into()],
            ..backend.profile()
        };
        crate::memory::survive_bus_errors().unwrap();
        let mut bed = Self(TestBed::new(MEMORY, &profile));
        bed.replace(backend);
        bed
    }

    /// Another back end takes the place of the one that runs, which dies on the spot if it still
    /// does.
    pub(super) fn replace(&mut self, backend: BlockBackend) {
        self.0.run(|context| backend.run(context));
    }

    pub(super) async fn finish(self) {
        self.0.finish().await;
    }

    /// As the shared one, with the ring format of the bed.
    pub(super) async fn activate_with(
        &self,
        features: u64,
        queues: Vec<QueueSetup>,
    ) -> Result<(), String> {
        let format = self.features & FEATURE_RING_PACKED;
        self.0.activate_with(features | format, queues).await
    }

    pub(super) async fn activate(&self) {
        self.activate_with(FEATURES, self.setups(&[])).await.unwrap();
    }

    /// Guest address of the data of a place.
    pub(super) fn data(place: u64) -> u64 {
        PLACES + place * PLACE + DATA_AT
    }

    /// Write the header of a place; returns header and status buffers around `data`.
    pub(super) fn frame(&self, place: u64, kind: u32, sector: u64, data: &[Buffer]) -> Vec<Buffer> {
        let base = PLACES + place * PLACE;
        let mut header = [0; 16];
        header[..4].copy_from_slice(&kind.to_le_bytes());
        header[8..].copy_from_slice(&sector.to_le_bytes());
        self.write(base + HEADER_AT, &header);
        self.write(base + STATUS_AT, &[0xff]);
        let header = Buffer::Readable { address: base + HEADER_AT, length: 16 };
        let status = Buffer::Writable { address: base + STATUS_AT, length: 1 };
        [&[header], data, &[status]].concat()
    }

    /// Where a place may have an indirect table.
    pub(super) fn table(place: u64) -> u64 {
        PLACES + place * PLACE + TABLE_AT
    }

    pub(super) fn status(&self, place: u64) -> u8 {
        self.read(PLACES + place * PLACE + STATUS_AT, 1)[0]
    }

    /// Send buffers as they are and wait for them: what the device says it wrote.
    pub(super) async fn send(&mut self, buffers: &[Buffer]) -> u32 {
        let head = self.driver(0).add(buffers).unwrap();
        self.publish(0);
        self.wait(0).await;
        let used = self.driver(0).take_used().unwrap();
        assert_eq!(used.head, head);
        used.written
    }

    /// One request in place 0: its status, and what the device says it wrote.
    pub(super) async fn request(&mut self, kind: u32, sector: u64, data: &[Buffer]) -> (u8, u32) {
        let frame = self.frame(0, kind, sector, data);
        let written = self.send(&frame).await;
        (self.status(0), written)
    }
}

/// An image and the bed on it, active.
pub(super) async fn running(options: &DiskOptions) -> Bed {
    let image = BlockImage::open(options).unwrap();
    let bed = Bed::start(BlockBackend::new(image), options.queues, options.queue_size);
    bed.activate().await;
    bed
}

/// A record for a disk.
pub(super) fn region(options: &DiskOptions) -> InflightRegion {
    InflightRegion::create(options.queues, options.queue_size).unwrap()
}
