//! A guest's driver of any device: one buffer at a time on each queue, and another connection when one ends.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use devices::memory::{GuestAddress, GuestMemory, RegionSpec};
use devices::virtio::backend::RingLayout;
use devices::virtio::queue::RingFeatures;
use devices::virtio::queue::driver::{Buffer, DriverQueue};
use devices::virtio::vhost_user::front_end::{
    FrontEnd, FrontEndError, InflightHandle, SharedRegion,
};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

use crate::support::{PATIENCE, connect};

const MEMORY: u64 = 1 << 20;
const RINGS_AT: u64 = 0x1000;
const QUEUE_SIZE: u16 = 16;
/// A page for each queue.
const BUFFERS_AT: u64 = 0x8_0000;
const BUFFER_BYTES: u32 = 256;
/// Where requests to disks are.
const FREE_AT: u64 = 0xc_0000;

/// Virtio 1.3 section 6.
const VERSION_1: u64 = 1 << 32;

/// Kinds of requests to disks: virtio 1.3 section 5.2.6.
pub(crate) const READ: u32 = 0;
pub(crate) const WRITE: u32 = 1;

/// Where a request to a disk is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) header: u64,
    pub(crate) status: u64,
    pub(crate) data: u64,
}

impl Place {
    /// That of one of several requests for blocks of so many bytes.
    pub(crate) fn of(request: usize, block: usize) -> Self {
        let header = FREE_AT + request as u64 * 32;
        let data = FREE_AT + 0x1000 + (request * block) as u64;
        Self { header, status: header + 16, data }
    }
}

struct Queue {
    driver: DriverQueue,
    kick: OwnedFd,
    call: OwnedFd,
    buffer: u64,
}

/// A guest that uses all queues of a device.
pub(crate) struct Guest {
    pub(crate) front_end: FrontEnd,
    pub(crate) memory: GuestMemory,
    /// How often it had to connect again.
    pub(crate) reconnected: u32,
    socket: PathBuf,
    file: Arc<OwnedFd>,
    features: u64,
    inflight: Option<InflightHandle>,
    queues: Vec<Queue>,
}

impl Guest {
    /// A driver that takes these features.
    pub(crate) fn new(socket: &Path, features: u64) -> Self {
        let mut front_end = FrontEnd::new(connect(socket)).expect("a back end");
        let file = Arc::new(memfd_create("guest", MemfdFlags::CLOEXEC).expect("memory"));
        ftruncate(&*file, MEMORY).expect("memory");
        let region = RegionSpec {
            base: GuestAddress(0),
            length: MEMORY,
            file: Arc::clone(&file),
            file_offset: 0,
        };
        let memory = GuestMemory::new(vec![region]).expect("memory");
        let count = front_end.queue_count().expect("queues");
        let queues = (0..count).map(|index| {
            let ring = RINGS_AT + index * DriverQueue::ring_bytes(QUEUE_SIZE);
            assert!(ring + DriverQueue::ring_bytes(QUEUE_SIZE) <= BUFFERS_AT);
            let features = RingFeatures::from_bits(VERSION_1);
            let driver = DriverQueue::new(&memory, ring, QUEUE_SIZE, RingLayout::Split, features);
            let event = || eventfd(0, EventfdFlags::CLOEXEC).expect("an eventfd");
            Queue { driver, kick: event(), call: event(), buffer: BUFFERS_AT + index * 4096 }
        });
        let queues = queues.collect();
        let (socket, features) = (socket.to_owned(), features | VERSION_1);
        let mut guest = Self {
            front_end,
            memory,
            reconnected: 0,
            socket,
            file,
            features,
            inflight: None,
            queues,
        };
        guest.begin().expect("is served");
        guest
    }

    /// Tells a back end all that it has to know; one that follows another goes on where that stopped.
    fn begin(&mut self) -> Result<(), FrontEndError> {
        let front_end = &mut self.front_end;
        front_end.set_features(self.features)?;
        let region = SharedRegion { guest: 0, size: MEMORY, file: (*self.file).as_fd(), offset: 0 };
        front_end.set_memory(&[region])?;
        match &self.inflight {
            Some(record) => front_end.restore_inflight(record)?,
            None => self.inflight = front_end.inflight(self.queues.len() as u16, QUEUE_SIZE)?,
        }
        for (index, queue) in self.queues.iter().enumerate() {
            let layout = queue.driver.layout();
            // What is not used is in the record, or available.
            let mut used = [0; 2];
            let index_at = GuestAddress(layout.used_ring + 2);
            self.memory.read_slice(index_at, &mut used).expect("is in memory");
            let (base, index) = (u16::from_le_bytes(used), index as u16);
            front_end.start_ring(index, &layout, base, queue.kick.as_fd(), queue.call.as_fd())?;
        }
        Ok(())
    }

    /// Goes on with the next back end, however often it takes.
    fn reconnect(&mut self) {
        loop {
            self.reconnected += 1;
            let Ok(front_end) = FrontEnd::new(connect(&self.socket)) else { continue };
            self.front_end = front_end;
            if self.begin().is_ok() {
                return;
            }
        }
    }

    /// Makes buffers available, without a word to the device.
    pub(crate) fn add(&mut self, queue: usize, buffers: &[Buffer]) -> u16 {
        self.queues[queue].driver.add(buffers).expect("there is room")
    }

    /// Makes a request to a disk available, for a block of so many bytes that begins at a sector.
    pub(crate) fn add_request(
        &mut self,
        queue: usize,
        kind: u32,
        sector: u64,
        place: Place,
        length: u32,
    ) {
        let Place { header, status, data } = place;
        let mut bytes = [kind.to_le_bytes(), [0; 4]].concat();
        bytes.extend(sector.to_le_bytes());
        self.memory.write_slice(GuestAddress(header), &bytes).expect("is in memory");
        self.memory.write_slice(GuestAddress(status), &[0xff]).expect("is in memory");
        let data = match kind {
            WRITE => Buffer::Readable { address: data, length },
            _ => Buffer::Writable { address: data, length },
        };
        let header = Buffer::Readable { address: header, length: 16 };
        self.add(queue, &[header, data, Buffer::Writable { address: status, length: 1 }]);
    }

    /// What the disk said of a request.
    pub(crate) fn status(&self, place: Place) -> u8 {
        let mut status = [0xff];
        self.memory.read_slice(GuestAddress(place.status), &mut status).expect("is in memory");
        status[0]
    }

    /// Tells the device of what was added.
    pub(crate) fn kick(&mut self, queue: usize) {
        let Queue { driver, kick, .. } = &mut self.queues[queue];
        let _ = driver.publish();
        rustix::io::write(&*kick, &1_u64.to_ne_bytes()).expect("a kick");
    }

    /// Waits for a buffer to come back; gives the bytes that were written into it.
    pub(crate) fn taken(&mut self, queue: usize) -> u32 {
        loop {
            let Queue { driver, call, .. } = &mut self.queues[queue];
            if let Some(used) = driver.take_used() {
                return used.written;
            }
            let mut waiting = [
                PollFd::new(&*call, PollFlags::IN),
                PollFd::new(self.front_end.socket(), PollFlags::RDHUP),
            ];
            let patience = PATIENCE.try_into().expect("a time");
            assert_ne!(poll(&mut waiting, Some(&patience)).expect("waits"), 0, "no interrupt");
            let [interrupt, end] = waiting.map(|polled| !polled.revents().is_empty());
            if interrupt {
                rustix::io::read(&*call, &mut [0; 8]).expect("an interrupt");
            } else if end {
                self.reconnect();
            }
        }
    }

    pub(crate) fn listen(&mut self, queue: usize) {
        let address = self.queues[queue].buffer;
        self.add(queue, &[Buffer::Writable { address, length: BUFFER_BYTES }]);
        self.kick(queue);
    }

    pub(crate) fn heard(&mut self, queue: usize) -> Vec<u8> {
        let mut bytes = vec![0; self.taken(queue) as usize];
        let address = GuestAddress(self.queues[queue].buffer);
        self.memory.read_slice(address, &mut bytes).expect("is in memory");
        bytes
    }

    pub(crate) fn say(&mut self, queue: usize, bytes: &[u8]) {
        let address = self.queues[queue].buffer;
        self.memory.write_slice(GuestAddress(address), bytes).expect("is in memory");
        self.add(queue, &[Buffer::Readable { address, length: bytes.len() as u32 }]);
        self.kick(queue);
        self.taken(queue);
    }
}
