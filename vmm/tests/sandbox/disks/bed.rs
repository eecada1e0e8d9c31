//! A file, a sandboxed back end for it, and a driver.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use devices::memory::{GuestAddress, GuestMemory, RegionSpec};
use devices::virtio::backend::{BackendEvent, BackendRequest, QueueSetup, RingLayout};
use devices::virtio::blk::{BlockImage, DiskOptions};
use devices::virtio::metrics::MetricsRegion;
use devices::virtio::parts::{
    DeviceParts, DirectIo, ExecutorNeeds, Parts as _, Submission, VirtioStart,
};
use devices::virtio::queue::driver::{Buffer, DriverQueue};
use devices::virtio::queue::{InflightRegion, RingFeatures};
use executor::{DriverKind, PollFlags};
use ipc::{Receiver, Sender};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use vmm::warden::{Actor, ActorId, ActorKind, ActorLink, Start};

use crate::world::{World, deadline};

pub(crate) const SECTOR: usize = 512;
pub(crate) const STATUS_OK: u8 = 0;
pub(crate) const IN: u32 = 0;
pub(crate) const OUT: u32 = 1;
pub(crate) const FLUSH: u32 = 4;
pub(crate) const WRITE_ZEROES: u32 = 13;

/// Flush, discard, write zeroes, indirect descriptors, event indices, version 1.
const FEATURES: u64 = 1 << 9 | 1 << 13 | 1 << 14 | 1 << 28 | 1 << 29 | 1 << 32;

const DISK_SECTORS: u64 = 64;
const QUEUE_SIZE: u16 = 128;
const MEMORY_BYTES: u64 = 4 << 20;
const RINGS_AT: u64 = 0x1_0000;
const HEADER_AT: u64 = 0x10_0000;
const STATUS_AT: u64 = 0x10_1000;
const DATA_AT: u64 = 0x10_2000;
/// What no device writes into a status byte.
const NO_STATUS: u8 = 0xff;

/// The lasting parts of a machine with one disk.
pub(crate) struct Parts {
    memory: GuestMemory,
    image: BlockImage,
    inflight: InflightRegion,
    metrics: MetricsRegion,
    file: File,
    _path: tempfile::TempPath,
}

/// The transport's ends of the channels to a back end.
pub(crate) struct Ends {
    requests: Sender<BackendRequest>,
    _events: Receiver<BackendEvent>,
}

pub(crate) struct Bed {
    parts: Parts,
    driver: DriverQueue,
    kick: OwnedFd,
    call: OwnedFd,
    pub(crate) id: ActorId,
    pub(crate) pid: i32,
    link: ActorLink,
    ends: Ends,
}

/// What a disk is served by.
#[derive(Clone, Copy)]
pub(crate) struct Needs {
    executor: ExecutorNeeds,
    threads: u16,
}

impl Needs {
    const PLAIN: Self = Self {
        executor: ExecutorNeeds {
            submission: Submission::BySystemCall,
            direct_io: DirectIo::Interrupts,
        },
        threads: 1,
    };
}

impl Parts {
    fn new(Needs { executor, threads }: Needs) -> Self {
        let file = memfd_create("guest", MemfdFlags::CLOEXEC).expect("memory");
        ftruncate(&file, MEMORY_BYTES).expect("grows");
        let region = RegionSpec {
            base: GuestAddress(0),
            length: MEMORY_BYTES,
            file: Arc::new(file),
            file_offset: 0,
        };
        let memory = GuestMemory::new(vec![region]).expect("maps");
        let (file, path) = tempfile::NamedTempFile::new().expect("a file").into_parts();
        file.set_len(DISK_SECTORS * SECTOR as u64).expect("grows");
        let image = BlockImage::open(&DiskOptions {
            executor,
            threads,
            queues: threads,
            ..DiskOptions::new(&path)
        });
        let image = image.expect("opens");
        let inflight = InflightRegion::create(threads, QUEUE_SIZE).expect("a record");
        let metrics = MetricsRegion::create(threads).expect("metrics");
        Self { memory, image, inflight, metrics, file, _path: path }
    }

    fn start(&self) -> (VirtioStart, Ends) {
        let (requests, receiver) = ipc::channel(4);
        let (sender, events) = ipc::channel(4);
        let file = self.inflight.file().try_clone_to_owned().expect("duplicates");
        let metrics = self.metrics.file().try_clone_to_owned().expect("duplicates");
        let start = VirtioStart {
            trace: None,
            device: DeviceParts::Blk(self.image.try_clone().expect("duplicates")),
            memory: self.memory.layout().expect("duplicates"),
            inflight: file.into(),
            metrics: metrics.into(),
            requests: receiver,
            controls: ipc::channel(1).1,
            events: sender,
        };
        (start, Ends { requests, _events: events })
    }
}

impl Bed {
    /// A start message for a disk of its own.
    pub(crate) fn start() -> (VirtioStart, Ends) {
        Parts::new(Needs::PLAIN).start()
    }

    /// What disks may ask for here: nothing, a thread that helps, and threads of the kernel where there are rings.
    pub(crate) fn needs(world: &World) -> Vec<Needs> {
        let thread = Submission::ByKernelThread { processor: None };
        let executor = ExecutorNeeds { submission: thread, ..ExecutorNeeds::default() };
        let mut needs = vec![Needs::PLAIN, Needs { threads: 2, ..Needs::PLAIN }];
        if world.executor.driver() == DriverKind::Uring {
            needs.push(Needs { executor, ..Needs::PLAIN });
            needs.push(Needs { executor, threads: 2 });
        }
        needs
    }

    pub(crate) fn new(world: &mut World, needs: Needs) -> Self {
        let parts = Parts::new(needs);
        let features = RingFeatures::from_bits(FEATURES);
        let driver =
            DriverQueue::new(&parts.memory, RINGS_AT, QUEUE_SIZE, RingLayout::Split, features);
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let (kick, call) = (eventfd(0, flags).expect("a kick"), eventfd(0, flags).expect("a call"));
        let (id, pid, link, ends) = spawn(world, &parts);
        let bed = Self { parts, driver, kick, call, id, pid, link, ends };
        bed.activate(world);
        bed
    }

    /// Another process takes over what the dead one left.
    pub(crate) fn replace(&mut self, world: &mut World) {
        (self.id, self.pid, self.link, self.ends) = spawn(world, &self.parts);
        self.activate(world);
    }

    /// The transport goes away.
    pub(crate) fn hang_up(&mut self) {
        self.ends.requests = ipc::channel(1).0;
    }

    fn activate(&self, world: &mut World) {
        let layout = self.driver.layout();
        let setup = QueueSetup {
            // The last thread's.
            index: self.parts.image.threads() - 1,
            size: layout.size,
            descriptor_table: layout.descriptor_table,
            available_ring: layout.available_ring,
            used_ring: layout.used_ring,
            kick: self.kick.try_clone().expect("duplicates").into(),
            call: Some(self.call.try_clone().expect("duplicates").into()),
            layout: RingLayout::Split,
            state: None,
        };
        let queues = vec![setup];
        let activate = |reply| BackendRequest::Activate { features: FEATURES, queues, reply };
        let activated = world.executor.block_on(self.ends.requests.call(activate, deadline()));
        match activated {
            Ok(activated) => assert_eq!(activated, Ok(())),
            Err(error) => panic!("{error}: {}", world.death(self.id)),
        }
    }

    /// Carries a request out and gives its status. `data` is read by the device.
    pub(crate) fn request(&mut self, world: &mut World, kind: u32, sector: u64, data: &[u8]) -> u8 {
        let head = self.make_available(kind, sector, data);
        self.complete(world, head)
    }

    pub(crate) fn write(&mut self, world: &mut World, sector: u64, data: &[u8]) -> u8 {
        self.request(world, OUT, sector, data)
    }

    pub(crate) fn read(&mut self, world: &mut World, sector: u64) -> (u8, Vec<u8>) {
        let status = self.request(world, IN, sector, &[0; SECTOR]);
        (status, self.data(SECTOR))
    }

    /// Puts a request into the available ring and kicks.
    pub(crate) fn make_available(&mut self, kind: u32, sector: u64, data: &[u8]) -> u16 {
        let memory = &self.parts.memory;
        let header = [&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat();
        let write = |address, bytes: &[u8]| {
            memory.write_slice(GuestAddress(address), bytes).expect("guest memory");
        };
        write(HEADER_AT, &header);
        write(DATA_AT, data);
        write(STATUS_AT, &[NO_STATUS]);
        let length = data.len() as u32;
        let mut buffers = vec![Buffer::Readable { address: HEADER_AT, length: 16 }];
        match kind {
            _ if data.is_empty() => {}
            IN => buffers.push(Buffer::Writable { address: DATA_AT, length }),
            _ => buffers.push(Buffer::Readable { address: DATA_AT, length }),
        }
        buffers.push(Buffer::Writable { address: STATUS_AT, length: 1 });
        let head = self.driver.add(&buffers).expect("there is room");
        let _ = self.driver.publish();
        rustix::io::write(&self.kick, &1_u64.to_ne_bytes()).expect("kicks");
        head
    }

    /// Waits until the device gives a request back.
    pub(crate) fn complete(&mut self, world: &mut World, head: u16) -> u8 {
        let call = self.call.try_clone().expect("duplicates");
        let driver = &mut self.driver;
        let used = async {
            let call = executor::Fd::new(call).expect("a descriptor");
            loop {
                // Before looking, so that nothing is missed in between.
                let _ = driver.enable_interrupts();
                if let Some(used) = driver.take_used() {
                    return used;
                }
                call.poll(PollFlags::IN).await.expect("polls");
                let _ = rustix::io::read(&self.call, &mut [0_u8; 8]);
            }
        };
        let patience = std::time::Duration::from_secs(30);
        let used = world.executor.block_on(executor::timeout(patience, used));
        assert_eq!(used.expect("it completes").head, head);
        let mut status = [0];
        self.parts.memory.read_slice(GuestAddress(STATUS_AT), &mut status).expect("guest memory");
        status[0]
    }

    /// The data of the last request.
    pub(crate) fn data(&self, bytes: usize) -> Vec<u8> {
        let mut data = vec![0; bytes];
        self.parts.memory.read_slice(GuestAddress(DATA_AT), &mut data).expect("guest memory");
        data
    }

    pub(crate) fn file_sector(&self, sector: u64) -> Vec<u8> {
        let mut data = vec![0; SECTOR];
        self.parts.file.read_exact_at(&mut data, sector * SECTOR as u64).expect("reads");
        data
    }
}

fn spawn(world: &mut World, parts: &Parts) -> (ActorId, i32, ActorLink, Ends) {
    let (executor, threads) = (parts.image.executor_needs(), parts.image.threads());
    let actor = Actor { executor, threads, ..Actor::plain(ActorKind::Blk) };
    let (id, pid, link) = world.spawn_as(actor);
    let (start, ends) = parts.start();
    let started = Start::Virtio(Box::new(start));
    world.executor.block_on(link.sender.send(started)).expect("it takes its start");
    (id, pid, link, ends)
}
