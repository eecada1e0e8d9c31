//! A driver of several queues, and the front end that has them served.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

use super::super::front_end::FrontEnd;
use super::{Guest, VERSION_1};
use crate::memory::{GuestAddress, GuestMemory};
use crate::virtio::backend::RingLayout;
use crate::virtio::queue::RingFeatures;
use crate::virtio::queue::driver::{Buffer, DriverQueue, Used};

const RINGS_AT: u64 = 0x1000;
const QUEUE_SIZE: u16 = 16;
/// Pages of a queue, each for a buffer.
const BUFFERS_AT: u64 = 0x4_0000;
const PLACES: u64 = 8;
const PLACE_BYTES: u32 = 4096;
const PATIENCE: Duration = Duration::from_mins(1);

struct Queue {
    driver: DriverQueue,
    kick: OwnedFd,
    call: OwnedFd,
    /// Buffers that were given.
    given: u64,
    /// Where those are that did not come back, by their heads.
    places: [u64; QUEUE_SIZE as usize],
}

/// A driver, and its front end.
pub(super) struct Driver {
    pub(super) front_end: FrontEnd,
    features: u64,
    file: Arc<OwnedFd>,
    memory: GuestMemory,
    queues: Vec<Queue>,
}

impl Driver {
    /// One whose queues are not served yet. A device offers all that it takes.
    pub(super) fn new(socket: UnixStream, features: u64, queues: usize) -> Self {
        let mut front_end = FrontEnd::new(socket).unwrap();
        let features = features | VERSION_1;
        assert_eq!(front_end.features().unwrap() & features, features);
        let Guest { file, memory, .. } = Guest::new();
        let mut driver = Self { front_end, features, file, memory, queues: Vec::new() };
        driver.set_up(queues);
        driver
    }

    /// Another driver in the same memory, with rings of which none was used.
    pub(super) fn set_up(&mut self, queues: usize) {
        let ring = |index| {
            let base = RINGS_AT + index as u64 * DriverQueue::ring_bytes(QUEUE_SIZE);
            let features = RingFeatures::from_bits(self.features);
            let layout = RingLayout::Split;
            let driver = DriverQueue::new(&self.memory, base, QUEUE_SIZE, layout, features);
            let event = || eventfd(0, EventfdFlags::CLOEXEC).unwrap();
            Queue {
                driver,
                kick: event(),
                call: event(),
                given: 0,
                places: [0; QUEUE_SIZE as usize],
            }
        };
        self.queues = (0..queues).map(ring).collect();
    }

    /// Says which memory there is; the device has to map it anew.
    pub(super) fn hand_over_memory(&mut self) {
        let (guest, offset) = (0, 0);
        let file = self.file.as_fd();
        let region = super::SharedRegion { guest, size: super::MEMORY, file, offset };
        self.front_end.set_memory(&[region]).unwrap();
    }

    /// Has the queues served from where they stand, in memory that the device does not know yet.
    pub(super) fn begin(&mut self, bases: &[u32]) {
        self.front_end.set_features(self.features).unwrap();
        self.hand_over_memory();
        self.start(bases);
    }

    /// Has the queues served, one after the other.
    pub(super) fn start(&mut self, bases: &[u32]) {
        for ((index, queue), base) in (0..).zip(&self.queues).zip(bases) {
            let (kick, call) = (queue.kick.as_fd(), queue.call.as_fd());
            let (layout, base) = (queue.driver.layout(), *base as u16);
            self.front_end.start_ring(index, &layout, base, kick, call).unwrap();
        }
    }

    /// Has none served any more; gives where they stand.
    pub(super) fn stop(&mut self) -> Vec<u32> {
        let indices = 0..self.queues.len() as u16;
        indices.map(|index| self.front_end.stop_ring(index).unwrap()).collect()
    }

    /// Whether the device has given something back that was not looked at yet.
    pub(super) fn has_used(&mut self, queue: usize) -> bool {
        self.queues[queue].driver.take_used().is_some()
    }

    fn give(&mut self, queue: usize, buffers: &[Buffer]) {
        let address = place(queue, self.queues[queue].given);
        let Queue { driver, kick, given, places, .. } = &mut self.queues[queue];
        let head = driver.add(buffers).unwrap();
        places[usize::from(head)] = address;
        let _ = driver.publish();
        rustix::io::write(&*kick, &1_u64.to_ne_bytes()).unwrap();
        *given += 1;
    }

    /// Has something written into the next buffer of a queue.
    pub(super) fn listen(&mut self, queue: usize) {
        let address = place(queue, self.queues[queue].given);
        self.give(queue, &[Buffer::Writable { address, length: PLACE_BYTES }]);
    }

    /// What was written into the next of them that comes back.
    pub(super) fn heard(&mut self, queue: usize) -> Vec<u8> {
        let used = self.used(queue);
        let address = GuestAddress(self.queues[queue].places[usize::from(used.head)]);
        let mut bytes = vec![0; used.written as usize];
        self.memory.read_slice(address, &mut bytes).unwrap();
        bytes
    }

    /// Gives some bytes to read.
    pub(super) fn say(&mut self, queue: usize, bytes: &[u8]) {
        let address = place(queue, self.queues[queue].given);
        self.memory.write_slice(GuestAddress(address), bytes).unwrap();
        self.give(queue, &[Buffer::Readable { address, length: bytes.len() as u32 }]);
    }

    /// Gives some bytes to read, and gets one back.
    pub(super) fn ask(&mut self, queue: usize, bytes: &[u8]) -> u8 {
        let address = place(queue, self.queues[queue].given);
        self.memory.write_slice(GuestAddress(address), bytes).unwrap();
        let length = bytes.len() as u32;
        let answer = address + u64::from(length);
        let writable = Buffer::Writable { address: answer, length: 1 };
        self.give(queue, &[Buffer::Readable { address, length }, writable]);
        assert_eq!(self.taken(queue), 1);
        self.memory.read_obj(GuestAddress(answer)).unwrap()
    }

    /// Waits for a buffer to come back; gives the bytes that were written into it.
    pub(super) fn taken(&mut self, queue: usize) -> u32 {
        self.used(queue).written
    }

    fn used(&mut self, queue: usize) -> Used {
        let Queue { driver, call, .. } = &mut self.queues[queue];
        loop {
            if let Some(used) = driver.take_used() {
                return used;
            }
            let mut waiting = [PollFd::new(&*call, PollFlags::IN)];
            let patience = PATIENCE.try_into().unwrap();
            assert_eq!(poll(&mut waiting, Some(&patience)).unwrap(), 1, "no interrupt");
            rustix::io::read(&*call, &mut [0; 8]).unwrap();
        }
    }
}

/// Where the buffers of a queue are.
fn place(queue: usize, number: u64) -> u64 {
    BUFFERS_AT + (queue as u64 * PLACES + number % PLACES) * u64::from(PLACE_BYTES)
}
