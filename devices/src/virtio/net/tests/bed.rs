//! A back end on an executor, sockets behind it and a driver before it.

use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use executor::{Config, DriverChoice, Either, Executor, Fd, Notifications, TaskGroup};
use ipc::{Deadline, Receiver, Reply, Sender};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use zerocopy::IntoBytes;

use super::super::protocol::Header;
use super::super::{MacAddress, NetBackend, NetOptions, NetStatistics, Offloads, Tap};
use crate::memory::{GuestAddress, GuestMemory, MapOptions, PageAdvice, RegionSpec};
use crate::virtio::backend::{
    BackendContext, BackendEvent, BackendRequest, QueueSetup, QueueState, RingLayout,
};
use crate::virtio::control::{Change, ControlRequest, Statistics};
use crate::virtio::queue::driver::{Buffer, DriverQueue, Kick, Used};
use crate::virtio::queue::{FEATURE_RING_PACKED, QueueLayout, RingFeatures};

pub(super) const OWN: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
pub(super) const PEER: MacAddress = MacAddress([2, 0, 0, 0, 0, 2]);
pub(super) const RECEIVE: usize = 0;
pub(super) const TRANSMIT: usize = 1;
/// The control queue of a device with one pair.
pub(super) const CONTROL: usize = 2;
pub(super) const MERGEABLE: u64 = 1 << 15;
pub(super) const MULTIPLE: u64 = 1 << 22;
/// What the tests' drivers do not always take.
pub(super) const OPTIONAL: u64 = MULTIPLE;

const MEMORY: u64 = 64 << 20;
const RINGS: u64 = 0x1_0000;
const RING_BYTES: u64 = 0x8000;
/// Places for frames to send, this many bytes each; receive buffers are behind the first 90.
const PLACES: u64 = 4 << 20;
const PLACE: u64 = 128 << 10;

/// Longer than anything here takes, so that a hang becomes a failure.
const PATIENCE: Duration = Duration::from_mins(1);

thread_local! {
    /// The ring format of the beds that a test makes.
    static LAYOUT: Cell<RingLayout> = const { Cell::new(RingLayout::Split) };
}

/// Run a test under both drivers of the executor and over both ring formats.
pub(super) fn on_both<F: Future<Output = ()>>(test: impl Fn() -> F) {
    for driver in [DriverChoice::Uring, DriverChoice::Epoll] {
        on(driver, &test);
    }
}

/// Run a test under one driver of the executor and over both ring formats.
pub(super) fn on<F: Future<Output = ()>>(driver: DriverChoice, test: impl Fn() -> F) {
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

/// The eventfds and rings of one queue.
struct Port {
    driver: DriverQueue,
    kick: OwnedFd,
    call: OwnedFd,
    calls: Notifications,
}

/// A machine with one network.
pub(super) struct Bed {
    pub(super) memory: GuestMemory,
    pub(super) requests: Sender<BackendRequest>,
    pub(super) events: Receiver<BackendEvent>,
    pub(super) controls: Sender<ControlRequest>,
    pub(super) features: u64,
    ports: Vec<Port>,
    /// Other ends of the sockets.
    pub(super) peers: Vec<Fd>,
    actor: Option<TaskGroup>,
}

/// Sockets for the back end, and their other ends.
pub(super) fn sockets(pairs: usize) -> (Vec<OwnedFd>, Vec<Fd>) {
    let pair = |_| {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (own, peer) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
                .unwrap();
        (own, Fd::new(peer).unwrap())
    };
    (0..pairs).map(pair).unzip()
}

pub(super) fn options(size: u16) -> NetOptions {
    NetOptions { queue_size: size, ..NetOptions::new(OWN) }
}

impl Bed {
    /// A back end over sockets that runs and is not active.
    pub(super) fn start(options: NetOptions, pairs: usize) -> Self {
        let (sockets, peers) = sockets(pairs);
        let tap = Tap::from_sockets(sockets, 1500, Offloads::all()).unwrap();
        Self::start_on(NetBackend::new(tap, options).unwrap(), peers)
    }

    /// The same, active, with all features but some.
    pub(super) async fn active(options: NetOptions, pairs: usize, without: u64) -> Self {
        let mut bed = Self::start(options, pairs);
        bed.features &= !without;
        bed.activate().await.unwrap();
        bed
    }

    pub(super) fn start_on(backend: NetBackend, peers: Vec<Fd>) -> Self {
        let file = memfd_create("guest", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&file, MEMORY).unwrap();
        let region = RegionSpec {
            base: GuestAddress(0),
            length: MEMORY,
            file: Arc::new(file),
            file_offset: 0,
        };
        let map = MapOptions { pages: PageAdvice::Unspecified, ..MapOptions::default() };
        let memory = GuestMemory::with_options(vec![region], map).unwrap();
        let profile = backend.profile();
        let layout = LAYOUT.get();
        let port = |(index, size): (usize, &u16)| {
            let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
            let call = eventfd(0, flags).unwrap();
            let watched = Fd::new(call.try_clone().unwrap()).unwrap();
            Port {
                driver: rings(&memory, index, *size, layout),
                kick: eventfd(0, flags).unwrap(),
                calls: watched.notifications(),
                call,
            }
        };
        let ports = profile.queue_sizes.iter().enumerate().map(port).collect();
        let (requests, _) = ipc::channel(1);
        let (_, events) = ipc::channel(1);
        let (controls, _) = ipc::channel(1);
        let mut features = profile.features | 1 << 32;
        if layout == RingLayout::Split {
            features &= !FEATURE_RING_PACKED;
        }
        let mut bed =
            Self { memory, requests, events, controls, features, ports, peers, actor: None };
        bed.replace(backend);
        bed
    }

    /// Another back end takes the place of the one that runs.
    pub(super) fn replace(&mut self, backend: NetBackend) {
        self.actor = None;
        let (requests, receiver) = ipc::channel(8);
        let (sender, events) = ipc::channel(8);
        let (controls, control) = ipc::channel(8);
        let context = BackendContext {
            memory: self.memory.clone(),
            requests: receiver,
            controls: control,
            events: sender,
        };
        let actor = TaskGroup::new();
        actor.spawn(backend.run(context));
        self.requests = requests;
        self.events = events;
        self.controls = controls;
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
        let queues = match self.features & MULTIPLE {
            0 => 3,
            _ => self.ports.len(),
        };
        self.ports.iter().take(queues).enumerate().map(setup).collect()
    }

    pub(super) async fn activate(&self) -> Result<(), String> {
        let (features, queues) = (self.features, self.setups(&[]));
        self.call(|reply| BackendRequest::Activate { features, queues, reply }).await
    }

    pub(super) async fn call<R: ipc::Message>(
        &self,
        make: impl FnOnce(Reply<R>) -> BackendRequest,
    ) -> R {
        self.requests.call(make, Deadline::after(PATIENCE)).await.unwrap()
    }

    pub(super) async fn change(&self, change: Change) {
        let make = |reply| ControlRequest::Change { change, reply };
        self.controls.call(make, Deadline::after(PATIENCE)).await.unwrap().unwrap();
    }

    pub(super) async fn statistics(&self) -> NetStatistics {
        let make = |reply| ControlRequest::Statistics { reply };
        match self.controls.call(make, Deadline::after(PATIENCE)).await.unwrap() {
            Statistics::Net(statistics) => statistics,
            other => panic!("not of a network: {other:?}"),
        }
    }

    pub(super) async fn reset(&self) {
        self.call(|reply| BackendRequest::Reset { reply }).await;
    }

    pub(super) async fn pause(&self) -> Vec<QueueState> {
        self.call(|reply| BackendRequest::Pause { reply }).await
    }

    pub(super) async fn resume(&self) {
        self.call(|reply| BackendRequest::Resume { reply }).await;
    }

    pub(super) async fn config(&self) -> Vec<u8> {
        self.call(|reply| BackendRequest::ReadConfig { offset: 0, length: 64, reply }).await
    }

    /// Rings as after a reset by the driver.
    pub(super) fn new_rings(&mut self) {
        for (index, port) in self.ports.iter_mut().enumerate() {
            let QueueLayout { size, format, .. } = port.driver.layout();
            port.driver = rings(&self.memory, index, size, format);
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

    /// The next buffer that the device gives back.
    pub(super) async fn used(&mut self, queue: usize) -> Used {
        loop {
            if let Some(used) = self.driver(queue).take_used() {
                return used;
            }
            self.wait(queue).await;
        }
    }

    pub(super) fn write(&self, address: u64, bytes: &[u8]) {
        self.memory.write_slice(GuestAddress(address), bytes).unwrap();
    }

    pub(super) fn read(&self, address: u64, bytes: usize) -> Vec<u8> {
        let mut data = vec![0; bytes];
        self.memory.read_slice(GuestAddress(address), &mut data).unwrap();
        data
    }

    /// Queue a frame with its header in a place.
    pub(super) fn add_frame(&mut self, queue: usize, place: u64, bytes: &[u8]) -> u16 {
        self.write(place_at(place), bytes);
        let buffer = readable(place_at(place), bytes.len() as u32);
        self.driver(queue).add(&[buffer]).unwrap()
    }

    /// Give the device `count` receive buffers of `length` bytes from the place on; returns the
    /// address of each by its head.
    pub(super) fn give(&mut self, queue: usize, count: u64, length: u32) -> Vec<(u16, u64)> {
        let base = (16 << 20) + queue as u64 * (6 << 20);
        let give = |index| {
            let address = base + index * u64::from(length);
            (self.driver(queue).add(&[writable(address, length)]).unwrap(), address)
        };
        let given = (0..count).map(give).collect();
        self.publish(queue);
        given
    }

    /// The next frame that the driver gets from its buffers `given`, put together, with its header.
    pub(super) async fn receive(&mut self, queue: usize, given: &[(u16, u64)]) -> Vec<u8> {
        let mut frame = Vec::new();
        let mut left = 1;
        while left > 0 {
            let used = self.used(queue).await;
            let (_, address) = given.iter().find(|(head, _)| *head == used.head).unwrap();
            frame.extend(self.read(*address, used.written as usize));
            if frame.len() == used.written as usize {
                left = u16::from_le_bytes([frame[10], frame[11]]);
            }
            left -= 1;
        }
        frame
    }

    /// Send a frame to the device from outside.
    pub(super) async fn inject(&self, pair: usize, bytes: &[u8]) {
        let (sent, _) = self.peers[pair].send(bytes.to_vec(), SendFlags::empty()).await;
        assert_eq!(sent.unwrap(), bytes.len());
    }

    /// The next frame that the device sends.
    pub(super) async fn sent(&self, pair: usize) -> Vec<u8> {
        let buffer = Vec::with_capacity(128 << 10);
        let (received, buffer) = self.peers[pair].recv(buffer, RecvFlags::empty()).await;
        received.unwrap();
        buffer
    }

    /// One command: the answer.
    pub(super) async fn command(&mut self, queue: usize, bytes: &[u8]) -> u8 {
        let (place, answer) = (place_at(400), place_at(401));
        self.write(place, bytes);
        self.write(answer, &[0xee]);
        let buffers = [readable(place, bytes.len() as u32), writable(answer, 1)];
        let head = self.driver(queue).add(&buffers).unwrap();
        self.publish(queue);
        let used = self.used(queue).await;
        assert_eq!((used.head, used.written), (head, 1));
        self.read(answer, 1)[0]
    }
}

fn rings(memory: &GuestMemory, index: usize, size: u16, layout: RingLayout) -> DriverQueue {
    let features = RingFeatures { indirect: true, event_idx: true };
    DriverQueue::new(memory, RINGS + index as u64 * RING_BYTES, size, layout, features)
}

pub(super) fn place_at(place: u64) -> u64 {
    PLACES + place * PLACE
}

/// A frame from the peer with so many bytes of data, that follow from `seed`; no header.
pub(super) fn frame(to: MacAddress, data: usize, seed: u32) -> Vec<u8> {
    let mut frame = [to.0, PEER.0].concat();
    frame.extend([0x88, 0xb5]);
    frame.extend((0..data).map(|index| (index as u32).wrapping_mul(seed | 1).to_le_bytes()[1]));
    frame
}

/// A header and a frame.
pub(super) fn with(header: Header, frame: &[u8]) -> Vec<u8> {
    [header.as_bytes(), frame].concat()
}

/// A frame that needs nothing.
pub(super) fn plain(to: MacAddress, data: usize, seed: u32) -> Vec<u8> {
    with(Header::default(), &frame(to, data, seed))
}

pub(super) fn readable(address: u64, length: u32) -> Buffer {
    Buffer::Readable { address, length }
}

pub(super) fn writable(address: u64, length: u32) -> Buffer {
    Buffer::Writable { address, length }
}
