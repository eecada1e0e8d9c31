//! The device side of the queue against the model driver, against nonsense, and across crashes.

/// Plain functions of the ring format as tests over both.
macro_rules! over_both_rings {
    ($($name:ident),* $(,)?) => {
        mod split {
            $(#[test] fn $name() { super::$name(super::RingLayout::Split); })*
        }
        mod packed {
            $(#[test] fn $name() { super::$name(super::RingLayout::Packed); })*
        }
    };
}

mod crash;
mod hostile;
mod hostile_packed;
mod notify;
mod put_back;
mod valid;

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

use super::driver::DriverQueue;
use super::*;
use crate::memory::{GuestAddress, MapOptions, PageAdvice, RegionSpec};

const MIB: u64 = 1 << 20;
/// Where the rings are.
const RINGS: u64 = 0x1000;
/// Where buffers are.
const DATA: u64 = 0x10_0000;
const BOTH: [RingLayout; 2] = [RingLayout::Split, RingLayout::Packed];
const PLAIN: RingFeatures = RingFeatures { indirect: false, event_idx: false };
const ALL: RingFeatures = RingFeatures { indirect: true, event_idx: true };

/// Two MiB at 0 and one MiB at 16 MiB.
fn memory() -> Rc<GuestMemory> {
    let file = memfd_create("guest", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, 3 * MIB).unwrap();
    let file: Arc<OwnedFd> = Arc::new(file);
    let region = |base, length, file_offset| RegionSpec {
        base: GuestAddress(base),
        length,
        file: file.clone(),
        file_offset,
    };
    let regions = vec![region(0, 2 * MIB, 0), region(16 * MIB, MIB, 2 * MIB)];
    // Hundreds of these are made and each is barely touched.
    let options = MapOptions { pages: PageAdvice::Unspecified, ..MapOptions::default() };
    Rc::new(GuestMemory::with_options(regions, options).unwrap())
}

/// A driver, a device and a chain over one queue of `size`.
struct Fixture {
    memory: Rc<GuestMemory>,
    driver: DriverQueue,
    device: Queue,
    chain: Chain,
}

impl Fixture {
    fn new(format: RingLayout, size: u16, features: RingFeatures) -> Self {
        let memory = memory();
        let driver = DriverQueue::new(&memory, RINGS, size, format, features);
        let record = InflightRecord::private(size);
        let device = Queue::new(&memory, &driver.layout(), features, record, None).unwrap();
        let chain = Chain::new(memory.clone(), usize::from(size));
        Self { memory, driver, device, chain }
    }

    fn pop(&mut self) -> Result<bool, QueueError> {
        self.device.pop(&mut self.chain)
    }

    fn write<const N: usize>(&self, address: u64, bytes: [u8; N]) {
        let address = GuestAddress(address);
        self.memory.write_slice(address, &bytes).unwrap();
    }

    /// Write a descriptor as a hostile driver may.
    fn descriptor(&self, table: u64, index: u64, address: u64, length: u32, flags: u16, next: u16) {
        let at = table + 16 * index;
        self.write(at, address.to_le_bytes());
        self.write(at + 8, length.to_le_bytes());
        self.write(at + 12, flags.to_le_bytes());
        self.write(at + 14, next.to_le_bytes());
    }

    /// Make `head` available as entry 0.
    fn make_available(&self, head: u16) {
        let ring = self.driver.layout().available_ring;
        self.write(ring + 4, head.to_le_bytes());
        self.write(ring + 2, 1u16.to_le_bytes());
    }

    fn host(&self, address: u64, length: usize) -> *mut u8 {
        let range = self.memory.host_range(GuestAddress(address), length);
        range.unwrap().as_ptr()
    }
}
