//! A driver of several queues that does one thing at a time and waits for it, where a test has no guest.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

use super::{Buffer, DriverQueue, Used};
use crate::memory::{GuestAddress, GuestMemory, RegionSpec};
use crate::virtio::backend::{QueueSetup, RingLayout};
use crate::virtio::queue::RingFeatures;

/// A device that does nothing for so long hangs.
const PATIENCE: Duration = Duration::from_mins(1);

const RINGS_AT: u64 = 0x1000;
const QUEUE_SIZE: u16 = 16;
/// Each queue has some places for buffers, which it uses in turn.
const PLACES_AT: u64 = 0x8_0000;
const PLACES: u64 = 8;
const PLACE_BYTES: u32 = 1024;

/// The guest's memory: room for 64 queues.
const MEMORY_BYTES: u64 = 1 << 20;

/// A driver with split rings, and its memory. All that cannot be done is a panic.
#[derive(Debug)]
pub struct BlockingDriver {
    memory: GuestMemory,
    file: Arc<OwnedFd>,
    features: u64,
    queues: Vec<Queue>,
}

#[derive(Debug)]
struct Queue {
    driver: DriverQueue,
    kick: OwnedFd,
    call: OwnedFd,
    /// Buffers that were given.
    given: u64,
    /// Where those are that did not come back, by their heads.
    places: [u64; QUEUE_SIZE as usize],
}

impl BlockingDriver {
    /// A driver with these features, and no queues yet.
    ///
    /// # Panics
    ///
    /// If the host has no memory.
    pub fn new(features: u64) -> Self {
        let file = memfd_create("guest", MemfdFlags::CLOEXEC).expect("a file in memory");
        ftruncate(&file, MEMORY_BYTES).expect("has this length");
        let file = Arc::new(file);
        let (base, length) = (GuestAddress(0), MEMORY_BYTES);
        let region = RegionSpec { base, length, file: Arc::clone(&file), file_offset: 0 };
        let memory = GuestMemory::new(vec![region]).expect("is mapped");
        Self { memory, file, features, queues: Vec::new() }
    }

    /// The guest's memory.
    pub fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    /// The file of which it is, from its beginning at the address 0, and its length.
    pub fn memory_file(&self) -> (BorrowedFd<'_>, u64) {
        (self.file.as_fd(), MEMORY_BYTES)
    }

    /// What the driver negotiates.
    pub fn features(&self) -> u64 {
        self.features
    }

    /// Lays so many queues out, of which nobody has used any: as after a reset.
    ///
    /// # Panics
    ///
    /// If there are more than 64, or the host has no descriptors.
    pub fn set_up(&mut self, queues: usize) {
        assert!(queues <= 64, "there is no room for {queues} queues");
        let ring = |index| {
            let base = RINGS_AT + index as u64 * DriverQueue::ring_bytes(QUEUE_SIZE);
            let features = RingFeatures::from_bits(self.features);
            let layout = RingLayout::Split;
            let driver = DriverQueue::new(&self.memory, base, QUEUE_SIZE, layout, features);
            let event = || eventfd(0, EventfdFlags::CLOEXEC).expect("an eventfd");
            let places = [0; QUEUE_SIZE as usize];
            Queue { driver, kick: event(), call: event(), given: 0, places }
        };
        self.queues = (0..queues).map(ring).collect();
    }

    /// How many queues there are.
    pub fn queues(&self) -> usize {
        self.queues.len()
    }

    /// What a back end has to know of a queue that begins.
    ///
    /// # Panics
    ///
    /// If the host has no descriptors.
    pub fn setup(&self, queue: usize) -> QueueSetup {
        let Queue { driver, kick, call, .. } = &self.queues[queue];
        let again = |event: &OwnedFd| event.try_clone().expect("a descriptor");
        driver.layout().setup(queue as u16, again(kick), again(call))
    }

    /// Has something written into the next buffer of a queue.
    pub fn listen(&mut self, queue: usize) {
        let address = self.next_place(queue);
        self.give(queue, &[Buffer::Writable { address, length: PLACE_BYTES }]);
    }

    /// What was written into the next of them that comes back.
    pub fn heard(&mut self, queue: usize) -> Vec<u8> {
        let used = self.used(queue);
        let address = self.queues[queue].places[usize::from(used.head)];
        let mut bytes = vec![0; used.written as usize];
        self.memory.read_slice(GuestAddress(address), &mut bytes).expect("is in memory");
        bytes
    }

    /// Gives some bytes to read.
    pub fn say(&mut self, queue: usize, bytes: &[u8]) {
        let address = self.write(queue, bytes);
        self.give(queue, &[Buffer::Readable { address, length: bytes.len() as u32 }]);
    }

    /// Gives some bytes to read, and waits for a byte.
    pub fn ask(&mut self, queue: usize, bytes: &[u8]) -> u8 {
        let (address, length) = (self.write(queue, bytes), bytes.len() as u32);
        let answer = address + u64::from(length);
        let writable = Buffer::Writable { address: answer, length: 1 };
        self.give(queue, &[Buffer::Readable { address, length }, writable]);
        assert_eq!(self.taken(queue), 1);
        self.memory.read_obj(GuestAddress(answer)).expect("is in memory")
    }

    /// Waits for a buffer to come back; gives the bytes that were written into it.
    pub fn taken(&mut self, queue: usize) -> u32 {
        self.used(queue).written
    }

    /// Whether a buffer came back.
    pub fn has_used(&self, queue: usize) -> bool {
        self.queues[queue].driver.has_used()
    }

    fn next_place(&self, queue: usize) -> u64 {
        let number = queue as u64 * PLACES + self.queues[queue].given % PLACES;
        PLACES_AT + number * u64::from(PLACE_BYTES)
    }

    fn write(&mut self, queue: usize, bytes: &[u8]) -> u64 {
        assert!(bytes.len() < PLACE_BYTES as usize, "there is no room for so many bytes");
        let address = self.next_place(queue);
        self.memory.write_slice(GuestAddress(address), bytes).expect("is in memory");
        address
    }

    fn give(&mut self, queue: usize, buffers: &[Buffer]) {
        let address = self.next_place(queue);
        let Queue { driver, kick, given, places, .. } = &mut self.queues[queue];
        let head = driver.add(buffers).expect("there is room");
        places[usize::from(head)] = address;
        let _ = driver.publish();
        rustix::io::write(&*kick, &1_u64.to_ne_bytes()).expect("a kick");
        *given += 1;
    }

    fn used(&mut self, queue: usize) -> Used {
        let Queue { driver, call, .. } = &mut self.queues[queue];
        loop {
            if let Some(used) = driver.take_used() {
                return used;
            }
            let mut waiting = [PollFd::new(&*call, PollFlags::IN)];
            let patience = PATIENCE.try_into().expect("a time");
            assert_eq!(poll(&mut waiting, Some(&patience)).expect("waits"), 1, "no interrupt");
            rustix::io::read(&*call, &mut [0; 8]).expect("an interrupt");
        }
    }
}
