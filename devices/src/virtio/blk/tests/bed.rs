//! A back end on an executor, a file behind it and a driver before it.

use std::cell::Cell;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use executor::{Config, DriverChoice, Either, Executor, Fd, Notifications, TaskGroup};
use ipc::{Deadline, Receiver, Sender};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use tempfile::TempDir;

use super::super::{BlockBackend, BlockImage, DiskOptions};
use crate::memory::{GuestAddress, GuestMemory, MapOptions, PageAdvice, RegionSpec};
use crate::virtio::backend::{
    BackendContext, BackendEvent, BackendRequest, QueueSetup, QueueState, RingLayout,
};
use crate::virtio::queue::driver::{Buffer, DriverQueue, Kick};
use crate::virtio::queue::{FEATURE_RING_PACKED, InflightRegion, QueueLayout, RingFeatures};

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

/// Longer than anything here takes, so that a hang becomes a failure.
const PATIENCE: Duration = Duration::from_mins(1);

thread_local! {
    /// The ring format of the beds that a test makes.
    static LAYOUT: Cell<RingLayout> = const { Cell::new(RingLayout::Split) };
}

/// Run a test under both drivers of the executor and over both ring formats.
pub(super) fn on_both<F: Future<Output = ()>>(test: impl Fn() -> F) {
    for driver in [DriverChoice::Uring, DriverChoice::Epoll] {
        for layout in [RingLayout::Split, RingLayout::Packed] {
            LAYOUT.set(layout);
            let config = Config { driver, ..Config::default() };
            let mut executor = Executor::new(&config).unwrap();
            executor.block_on(async {
                executor::timeout(PATIENCE, test())
                    .await
                    .unwrap_or_else(|_| panic!("the test hangs under {driver:?}, {layout:?}"));
            });
        }
    }
}

/// Run a part of a test over one ring format.
pub(super) fn over<T>(layout: RingLayout, part: impl FnOnce() -> T) -> T {
    LAYOUT.set(layout);
    part()
}

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

/// The eventfds and rings of one queue.
struct Port {
    driver: DriverQueue,
    kick: OwnedFd,
    call: OwnedFd,
    calls: Notifications,
}

/// A machine with one disk.
pub(super) struct Bed {
    pub(super) memory: GuestMemory,
    pub(super) requests: Sender<BackendRequest>,
    pub(super) events: Receiver<BackendEvent>,
    ports: Vec<Port>,
    actor: Option<TaskGroup>,
}

impl Bed {
    /// A back end that runs and is not active.
    pub(super) fn start(backend: BlockBackend, queues: u16, size: u16) -> Self {
        Self::start_with(backend, queues, size, true)
    }

    pub(super) fn start_with(
        backend: BlockBackend,
        queues: u16,
        size: u16,
        event_idx: bool,
    ) -> Self {
        let file = memfd_create("guest", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&file, MEMORY).unwrap();
        let region = RegionSpec {
            base: GuestAddress(0),
            length: MEMORY,
            file: Arc::new(file),
            file_offset: 0,
        };
        let options = MapOptions { pages: PageAdvice::Unspecified, ..MapOptions::default() };
        let memory = GuestMemory::with_options(vec![region], options).unwrap();
        let features = RingFeatures { indirect: true, event_idx };
        let layout = LAYOUT.get();
        let port = |index: u16| {
            let base = 0x1_0000 * (u64::from(index) + 1);
            let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
            let call = eventfd(0, flags).unwrap();
            let watched = Fd::new(call.try_clone().unwrap()).unwrap();
            Port {
                driver: DriverQueue::new(&memory, base, size, layout, features),
                kick: eventfd(0, flags).unwrap(),
                calls: watched.notifications(),
                call,
            }
        };
        let ports = (0..queues).map(port).collect();
        let (requests, _) = ipc::channel(1);
        let (_, events) = ipc::channel(1);
        let mut bed = Self { memory, requests, events, ports, actor: None };
        bed.replace(backend);
        bed
    }

    /// Another back end takes the place of the one that runs, which dies on the spot if it still
    /// does.
    pub(super) fn replace(&mut self, backend: BlockBackend) {
        self.actor = None;
        let (requests, receiver) = ipc::channel(8);
        let (sender, events) = ipc::channel(8);
        let context = BackendContext {
            memory: self.memory.clone(),
            requests: receiver,
            controls: ipc::channel(1).1,
            events: sender,
        };
        let actor = TaskGroup::new();
        actor.spawn(backend.run(context));
        self.requests = requests;
        self.events = events;
        self.actor = Some(actor);
    }

    /// End the actor at once, wherever it is, and wait until the kernel has let go of its memory.
    pub(super) async fn kill(&mut self) {
        if let Some(actor) = self.actor.take() {
            actor.cancel_all().await;
        }
    }

    /// Close the request channel and wait for the actor's end.
    pub(super) async fn finish(mut self) {
        let (requests, _) = ipc::channel(1);
        self.requests = requests;
        self.actor.take().unwrap().wait().await;
    }

    pub(super) fn setups(&self, states: &[QueueState]) -> Vec<QueueSetup> {
        let setup = |(index, port): (usize, &Port)| {
            let layout = port.driver.layout();
            QueueSetup {
                index: index as u16,
                size: layout.size,
                descriptor_table: layout.descriptor_table,
                available_ring: layout.available_ring,
                used_ring: layout.used_ring,
                kick: port.kick.try_clone().unwrap().into(),
                call: Some(port.call.try_clone().unwrap().into()),
                layout: layout.format,
                state: states.get(index).copied(),
            }
        };
        self.ports.iter().enumerate().map(setup).collect()
    }

    pub(super) async fn activate_with(
        &self,
        features: u64,
        queues: Vec<QueueSetup>,
    ) -> Result<(), String> {
        let features = match self.ports[0].driver.layout().format {
            RingLayout::Split => features,
            RingLayout::Packed => features | FEATURE_RING_PACKED,
        };
        let activate = |reply| BackendRequest::Activate { features, queues, reply };
        self.requests.call(activate, deadline()).await.unwrap()
    }

    pub(super) async fn activate(&self) {
        self.activate_with(FEATURES, self.setups(&[])).await.unwrap();
    }

    pub(super) async fn reset(&self) {
        let reset = |reply| BackendRequest::Reset { reply };
        self.requests.call(reset, deadline()).await.unwrap();
    }

    pub(super) async fn pause(&self) -> Vec<QueueState> {
        let pause = |reply| BackendRequest::Pause { reply };
        self.requests.call(pause, deadline()).await.unwrap()
    }

    pub(super) async fn resume(&self) {
        let resume = |reply| BackendRequest::Resume { reply };
        self.requests.call(resume, deadline()).await.unwrap();
    }

    /// Rings as after a reset by the driver.
    pub(super) fn new_rings(&mut self) {
        for (index, port) in self.ports.iter_mut().enumerate() {
            let QueueLayout { size, format, .. } = port.driver.layout();
            let features = RingFeatures { indirect: true, event_idx: true };
            let base = 0x1_0000 * (index as u64 + 1);
            port.driver = DriverQueue::new(&self.memory, base, size, format, features);
        }
    }

    pub(super) fn driver(&mut self, queue: usize) -> &mut DriverQueue {
        &mut self.ports[queue].driver
    }

    /// Show the device what was added; kick if it wants that, and say so.
    pub(super) fn publish(&mut self, queue: usize) -> bool {
        let wanted = self.ports[queue].driver.publish() == Kick::Wanted;
        if wanted {
            self.kick(queue);
        }
        wanted
    }

    /// Kick whether it is wanted or not.
    pub(super) fn kick(&self, queue: usize) {
        rustix::io::write(&self.ports[queue].kick, &1u64.to_ne_bytes()).unwrap();
    }

    /// Sleep until the device has given something back.
    pub(super) async fn wait(&mut self, queue: usize) {
        let port = &mut self.ports[queue];
        while !port.driver.enable_interrupts() {
            port.calls.next().await.unwrap();
        }
    }

    /// Sleep until the device has given something back or says something.
    pub(super) async fn wait_or_event(&mut self, queue: usize) -> Either<(), BackendEvent> {
        let port = &mut self.ports[queue];
        let used = async {
            while !port.driver.enable_interrupts() {
                port.calls.next().await.unwrap();
            }
        };
        let event = async { self.events.recv().await.unwrap() };
        executor::select(used, event).await
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

    pub(super) fn write(&self, address: u64, bytes: &[u8]) {
        let address = GuestAddress(address);
        self.memory.write_slice(address, bytes).unwrap();
    }

    pub(super) fn read(&self, address: u64, bytes: usize) -> Vec<u8> {
        let mut data = vec![0; bytes];
        let address = GuestAddress(address);
        self.memory.read_slice(address, &mut data).unwrap();
        data
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

pub(super) fn deadline() -> Deadline {
    Deadline::after(PATIENCE)
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

pub(super) fn readable(address: u64, length: u32) -> Buffer {
    Buffer::Readable { address, length }
}

pub(super) fn writable(address: u64, length: u32) -> Buffer {
    Buffer::Writable { address, length }
}
