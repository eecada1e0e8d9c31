//! A disk behind the protocol, and front ends good and bad before it.

mod console;
mod net;
mod remote;
mod settings;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use executor::{Config, Executor};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use tempfile::NamedTempFile;
use zerocopy::IntoBytes;

use super::VhostUserStart;
use super::front_end::{FrontEnd, FrontEndError, SharedRegion};
use super::message::{Header, RegionCount, RegionMessage, Request, RingAddresses, RingNumber};
use crate::memory::{GuestAddress, GuestMemory, RegionSpec};
use crate::virtio::backend::RingLayout;
use crate::virtio::blk::{BlockImage, DiskOptions};
use crate::virtio::parts::{DeviceParts, Parts};
use crate::virtio::queue::driver::{Buffer, DriverQueue};
use crate::virtio::queue::{InflightRegion, QueueLayout, RingFeatures};

const MEMORY: u64 = 1 << 20;
const RING_AT: u64 = 0x1000;
const QUEUE_SIZE: u16 = 16;
const HEADER_AT: u64 = 0x1_0000;
const DATA_AT: u64 = 0x2_0000;
const STATUS_AT: u64 = 0x1_1000;
const SECTORS: u64 = 64;
const VERSION_1: u64 = 1 << 32;

/// A disk whose sectors are full of their own numbers.
fn disk() -> (NamedTempFile, DeviceParts) {
    let test = std::env::current_exe().unwrap();
    let mut file = NamedTempFile::new_in(test.parent().unwrap()).unwrap();
    for sector in 0..SECTORS {
        file.write_all(&[sector as u8; 512]).unwrap();
    }
    let image = BlockImage::open(&DiskOptions::new(file.path())).unwrap();
    (file, DeviceParts::Blk(image))
}

/// Serves one front end on a thread of its own.
fn serve(device: &DeviceParts) -> (UnixStream, JoinHandle<Result<(), String>>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (ours, serve_on(device, theirs))
}

fn serve_on(device: &DeviceParts, connection: UnixStream) -> JoinHandle<Result<(), String>> {
    let (queues, size) = device.profile().inflight_size();
    let inflight = InflightRegion::create(queues, size).unwrap();
    let start = VhostUserStart {
        device: device.try_clone().unwrap(),
        inflight: inflight.file().try_clone_to_owned().unwrap().into(),
        connection: OwnedFd::from(connection).into(),
    };
    thread::spawn(|| {
        let mut executor = Executor::new(&Config::default()).unwrap();
        executor.block_on(start.run())
    })
}

/// A guest with one queue.
struct Guest {
    file: Arc<OwnedFd>,
    memory: GuestMemory,
    queue: DriverQueue,
    kick: OwnedFd,
    call: OwnedFd,
}

impl Guest {
    fn new() -> Self {
        let file = memfd_create("guest", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&file, MEMORY).unwrap();
        let file = Arc::new(file);
        let region = RegionSpec {
            base: GuestAddress(0),
            length: MEMORY,
            file: Arc::clone(&file),
            file_offset: 0,
        };
        let memory = GuestMemory::new(vec![region]).unwrap();
        let features = RingFeatures::from_bits(VERSION_1);
        let queue = DriverQueue::new(&memory, RING_AT, QUEUE_SIZE, RingLayout::Split, features);
        let event = || eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        Self { file, memory, queue, kick: event(), call: event() }
    }

    fn region(&self) -> SharedRegion<'_> {
        SharedRegion { guest: 0, size: MEMORY, file: self.file.as_fd(), offset: 0 }
    }

    fn begin(&self, front_end: &mut FrontEnd, base: u16) -> Result<(), FrontEndError> {
        front_end.set_features(VERSION_1)?;
        front_end.set_memory(&[self.region()])?;
        let (kick, call) = (self.kick.as_fd(), self.call.as_fd());
        front_end.start_ring(0, &self.queue.layout(), base, kick, call)
    }

    /// Reads a sector, and gives its first byte.
    fn read(&mut self, sector: u64) -> u8 {
        self.ask(sector);
        self.wait();
        assert_eq!(self.memory.read_obj::<u8>(GuestAddress(STATUS_AT)).unwrap(), 0);
        self.memory.read_obj(GuestAddress(DATA_AT)).unwrap()
    }

    fn ask(&mut self, sector: u64) {
        let header = [0_u32.to_le_bytes(), [0; 4]].concat();
        let header = [header, sector.to_le_bytes().to_vec()].concat();
        self.memory.write_slice(GuestAddress(HEADER_AT), &header).unwrap();
        let buffers = [
            Buffer::Readable { address: HEADER_AT, length: 16 },
            Buffer::Writable { address: DATA_AT, length: 512 },
            Buffer::Writable { address: STATUS_AT, length: 1 },
        ];
        self.queue.add(&buffers).unwrap();
        let _ = self.queue.publish();
        rustix::io::write(&self.kick, &1_u64.to_ne_bytes()).unwrap();
    }

    fn wait(&mut self) {
        while self.queue.take_used().is_none() {
            let mut waiting = [PollFd::new(&self.call, PollFlags::IN)];
            let patience = Duration::from_mins(1).try_into().unwrap();
            assert_eq!(poll(&mut waiting, Some(&patience)).unwrap(), 1, "no interrupt");
            rustix::io::read(&self.call, &mut [0; 8]).unwrap();
        }
    }
}

#[test]
fn a_disk_is_read_and_its_ring_stops_where_it_stands() {
    let (_file, device) = disk();
    let (socket, thread) = serve(&device);
    let mut front_end = FrontEnd::new(socket).unwrap();
    assert_ne!(front_end.features().unwrap() & VERSION_1, 0);
    assert_eq!(front_end.queue_count().unwrap(), 1);
    assert_eq!(front_end.config(8).unwrap(), SECTORS.to_le_bytes());
    let mut guest = Guest::new();
    guest.begin(&mut front_end, 0).unwrap();
    for sector in [0, 7, 63] {
        assert_eq!(guest.read(sector), sector as u8);
    }
    assert_eq!(front_end.stop_ring(0).unwrap(), 3);
    let (kick, call) = (guest.kick.as_fd(), guest.call.as_fd());
    front_end.start_ring(0, &guest.queue.layout(), 3, kick, call).unwrap();
    assert_eq!(guest.read(9), 9);
    drop(front_end);
    assert_eq!(thread.join().unwrap(), Ok(()));
}

#[test]
fn a_later_connection_goes_on_with_the_record_of_the_first() {
    let (_file, device) = disk();
    let mut guest = Guest::new();
    let (socket, thread) = serve(&device);
    let mut front_end = FrontEnd::new(socket).unwrap();
    let handle = front_end.inflight(1, QUEUE_SIZE).unwrap().unwrap();
    guest.begin(&mut front_end, 0).unwrap();
    assert_eq!(guest.read(5), 5);
    drop(front_end);
    thread.join().unwrap().unwrap();

    // What comes while nobody serves the ring waits for the successor.
    guest.ask(6);
    let (socket, thread) = serve(&device);
    let mut front_end = FrontEnd::new(socket).unwrap();
    front_end.restore_inflight(&handle).unwrap();
    guest.begin(&mut front_end, 1).unwrap();
    guest.wait();
    assert_eq!(guest.memory.read_obj::<u8>(GuestAddress(DATA_AT)).unwrap(), 6);
    drop(front_end);
    thread.join().unwrap().unwrap();
}

/// What a front end that asks for no acknowledgement gets for a bad request: the end.
fn is_hung_up_on(send: impl FnOnce(&mut UnixStream)) {
    let (_file, device) = disk();
    let (mut socket, thread) = serve(&device);
    send(&mut socket);
    let mut rest = Vec::new();
    // A reset is an end as well.
    let _ = socket.read_to_end(&mut rest);
    assert!(rest.is_empty(), "an answer to nonsense: {rest:?}");
    thread.join().unwrap().unwrap_err();
}

fn message(request: Request, payload: &[u8]) -> Vec<u8> {
    [Header::request(request, payload.len()).as_bytes(), payload].concat()
}

#[test]
fn nonsense_ends_the_connection_and_nothing_else() {
    let ring = |index, number| RingNumber { index, number }.as_bytes().to_vec();
    let addresses =
        RingAddresses { index: 0, flags: 0, descriptors: 1, used: 2, available: 3, log: 0 };
    let nonsense = [
        ("no request", [0xff; 12].to_vec()),
        ("an unknown request", {
            let header = Header { request: 99, flags: 1, size: 0 };
            header.as_bytes().to_vec()
        }),
        ("an endless payload", {
            let header = Header { request: 1, flags: 1, size: u32::MAX };
            header.as_bytes().to_vec()
        }),
        ("a short payload", message(Request::SetFeatures, &[1, 2, 3])),
        ("no such ring", message(Request::SetVringNum, &ring(1, 16))),
        ("a ring beyond all", message(Request::GetVringBase, &ring(u32::MAX, 0))),
        ("a ring of nothing", message(Request::SetVringNum, &ring(0, 0))),
        ("a ring too large", message(Request::SetVringNum, &ring(0, 1 << 16))),
        ("rings in no memory", message(Request::SetVringAddr, addresses.as_bytes())),
        ("a table without memory", message(Request::SetMemTable, RegionCount::of(1).as_bytes())),
        ("a kick without a descriptor", message(Request::SetVringKick, &[0; 8])),
        ("a record without memory", message(Request::SetInflightFd, &[0; 24])),
        ("memory that never was", message(Request::RemMemReg, &[0; 40])),
    ];
    for (what, bytes) in nonsense {
        println!("{what}");
        is_hung_up_on(|socket| socket.write_all(&bytes).unwrap());
    }
    println!("half a request");
    is_hung_up_on(|socket| {
        socket.write_all(&message(Request::SetFeatures, &[0; 8])[..9]).unwrap();
        socket.shutdown(std::net::Shutdown::Write).unwrap();
    });
}

#[test]
fn what_is_acknowledged_is_refused_and_the_connection_goes_on() {
    let (_file, device) = disk();
    let (socket, thread) = serve(&device);
    let mut front_end = FrontEnd::new(socket).unwrap();
    let mut guest = Guest::new();
    let null = File::open("/dev/null").unwrap();
    let far =
        SharedRegion { guest: u64::MAX - 4095, size: 1 << 20, file: guest.file.as_fd(), offset: 0 };
    let no_memory = SharedRegion { guest: 0, size: MEMORY, file: null.as_fd(), offset: 0 };
    front_end.set_features(VERSION_1).unwrap();
    for region in [far, no_memory] {
        let (kick, call) = (guest.kick.as_fd(), guest.call.as_fd());
        let layout = guest.queue.layout();
        let refused = front_end
            .set_memory(&[region])
            .and_then(|()| front_end.start_ring(0, &layout, 0, kick, call));
        assert!(matches!(refused, Err(FrontEndError::Refused(_))), "{refused:?}");
        let _ = front_end.stop_ring(0).unwrap();
    }
    // A ring that no device can serve is the driver's mistake: it gets no answer from the disk.
    front_end.set_memory(&[guest.region()]).unwrap();
    let odd = QueueLayout { size: 5, ..guest.queue.layout() };
    front_end.start_ring(0, &odd, 0, guest.kick.as_fd(), guest.call.as_fd()).unwrap();
    let _ = front_end.stop_ring(0).unwrap();
    guest.begin(&mut front_end, 0).unwrap();
    assert_eq!(guest.read(3), 3);
    drop(front_end);
    thread.join().unwrap().unwrap();
}

#[test]
fn regions_are_as_the_protocol_has_them() {
    assert_eq!(size_of::<RegionMessage>(), 32);
    assert_eq!(size_of::<RingAddresses>(), 40);
    assert_eq!(size_of::<Header>(), 12);
}
