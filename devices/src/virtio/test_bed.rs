//! What tests of back ends share: the executors and ring formats they run under, and a bed that has
//! a back end on one side and model drivers on the other.

use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use executor::sim::{Sim, Slice};
use executor::{Config, DriverChoice, Either, Executor, Fd, Notifications, TaskGroup};
use ipc::{Deadline, Receiver, Reply, Sender};
use rustix::event::{EventfdFlags, eventfd};

use super::backend::{
    BackendContext, BackendEvent, BackendRequest, DeviceProfile, QueueSetup, QueueState, RingLayout,
};
use super::control::{Change, ControlRequest, Statistics};
use super::metrics::{MetricsRegion, QueueCounts};
use super::queue::driver::{Buffer, DriverQueue, Kick, Used};
use super::queue::{FEATURE_RING_PACKED, QueueLayout, RingFeatures};
use crate::memory::{GuestAddress, GuestMemory};

/// Longer than anything here takes, so that a hang becomes a failure.
const PATIENCE: Duration = Duration::from_mins(1);

/// Where the rings of each queue are; the first are behind nothing that a test uses.
const RINGS: u64 = 0x1_0000;
const RING_BYTES: u64 = 0x8000;

const VERSION_1: u64 = 1 << 32;

thread_local! {
    /// The ring format of the beds that a test makes.
    static LAYOUT: Cell<RingLayout> = const { Cell::new(RingLayout::Split) };
}

/// Run a test in a simulated world until it has ended.
pub(crate) fn in_world(sim: &Sim, test: impl Future<Output = ()> + 'static) {
    let done = Rc::new(Cell::new(false));
    let tell = done.clone();
    let mut executor = sim.executor();
    let test = async move {
        test.await;
        tell.set(true);
    };
    executor.block_on(async { executor::spawn(test).detach() });
    while !done.get() {
        if sim.run(&mut executor) == Slice::Waiting {
            sim.advance();
        }
    }
    sim.kill(executor);
}

/// Run a test under both drivers of the executor and over both ring formats.
pub(crate) fn on_both<F: Future<Output = ()>>(test: impl Fn() -> F) {
    for driver in [DriverChoice::Uring, DriverChoice::Epoll] {
        on(driver, &test);
    }
}

/// Run a test under one driver of the executor and over both ring formats.
pub(crate) fn on<F: Future<Output = ()>>(driver: DriverChoice, test: impl Fn() -> F) {
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

/// Run a part of a test over one ring format.
pub(crate) fn over<T>(layout: RingLayout, part: impl FnOnce() -> T) -> T {
    LAYOUT.set(layout);
    part()
}

pub(crate) fn deadline() -> Deadline {
    Deadline::after(PATIENCE)
}

/// The eventfds and rings of one queue.
struct Port {
    driver: DriverQueue,
    kick: OwnedFd,
    call: OwnedFd,
    calls: Notifications,
}

/// A machine with one device.
pub(crate) struct TestBed {
    pub(crate) memory: GuestMemory,
    pub(crate) requests: Sender<BackendRequest>,
    pub(crate) events: Receiver<BackendEvent>,
    pub(crate) controls: Sender<ControlRequest>,
    /// What the driver negotiates: all that is offered, for now.
    pub(crate) features: u64,
    /// Where the back end counts.
    pub(crate) metrics: Option<MetricsRegion>,
    ports: Vec<Port>,
    actor: Option<TaskGroup>,
}

impl TestBed {
    /// A machine for such a device, with so much memory. No back end runs yet.
    pub(crate) fn new(memory_bytes: u64, profile: &DeviceProfile) -> Self {
        let memory = GuestMemory::sparse(memory_bytes).unwrap();
        let layout = LAYOUT.get();
        let mut features = profile.features | VERSION_1;
        if layout == RingLayout::Split {
            features &= !FEATURE_RING_PACKED;
        }
        let port = |(index, size): (usize, &u16)| {
            let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
            let call = eventfd(0, flags).unwrap();
            let watched = Fd::new(call.try_clone().unwrap()).unwrap();
            Port {
                driver: rings(&memory, index, *size, layout, features),
                kick: eventfd(0, flags).unwrap(),
                calls: watched.notifications(),
                call,
            }
        };
        let ports = profile.queue_sizes.iter().enumerate().map(port).collect();
        let metrics = MetricsRegion::create(profile.queue_sizes.len() as u16).unwrap();
        let metrics = Some(metrics);
        let (requests, _) = ipc::channel(1);
        let (_, events) = ipc::channel(1);
        let (controls, _) = ipc::channel(1);
        Self { memory, requests, events, controls, features, metrics, ports, actor: None }
    }

    /// What a queue has counted; each of its requests has taken some time.
    pub(crate) fn counts(&self, queue: usize) -> QueueCounts {
        let counts = self.metrics.as_ref().unwrap().read()[queue];
        assert_eq!(counts.latencies.iter().sum::<u64>(), counts.requests);
        counts
    }

    /// A back end takes the place of the one that runs, which dies on the spot if it still does.
    pub(crate) fn run<F: Future<Output = ()> + 'static>(
        &mut self,
        serve: impl FnOnce(BackendContext) -> F,
    ) {
        self.actor = None;
        let (requests, receiver) = ipc::channel(8);
        let (sender, events) = ipc::channel(8);
        let (controls, control) = ipc::channel(8);
        let context = BackendContext {
            memory: self.memory.clone(),
            requests: receiver,
            controls: control,
            events: sender,
            metrics: self.metrics.clone(),
            trace: None,
            helpers: Vec::new(),
        };
        let actor = TaskGroup::new();
        actor.spawn(serve(context));
        self.requests = requests;
        self.events = events;
        self.controls = controls;
        self.actor = Some(actor);
    }

    /// End the actor at once, wherever it is, and wait until the kernel has let go of its memory.
    pub(crate) async fn kill(&mut self) {
        if let Some(actor) = self.actor.take() {
            actor.cancel_all().await;
        }
    }

    /// Close the request channel and wait for the actor's end.
    pub(crate) async fn finish(mut self) {
        let (requests, _) = ipc::channel(1);
        self.requests = requests;
        self.actor.take().unwrap().wait().await;
    }

    /// All queues, each where it stands if that is given.
    pub(crate) fn setups(&self, states: &[QueueState]) -> Vec<QueueSetup> {
        let setup = |(index, port): (usize, &Port)| {
            let (kick, call) = (port.kick.try_clone().unwrap(), port.call.try_clone().unwrap());
            let setup = port.driver.layout().setup(index as u16, kick, call);
            QueueSetup { state: states.get(index).copied(), ..setup }
        };
        self.ports.iter().enumerate().map(setup).collect()
    }

    pub(crate) async fn activate_with(
        &self,
        features: u64,
        queues: Vec<QueueSetup>,
    ) -> Result<(), String> {
        self.call(|reply| BackendRequest::Activate { features, queues, reply }).await
    }

    pub(crate) async fn call<R: ipc::Message>(
        &self,
        make: impl FnOnce(Reply<R>) -> BackendRequest,
    ) -> R {
        self.requests.call(make, deadline()).await.unwrap()
    }

    pub(crate) async fn change(&self, change: Change) {
        self.try_change(change).await.unwrap();
    }

    pub(crate) async fn try_change(&self, change: Change) -> Result<(), String> {
        let make = |reply| ControlRequest::Change { change, reply };
        self.controls.call(make, deadline()).await.unwrap()
    }

    pub(crate) async fn statistics(&self) -> Statistics {
        let make = |reply| ControlRequest::Statistics { reply };
        self.controls.call(make, deadline()).await.unwrap()
    }

    pub(crate) async fn reset(&self) {
        self.call(|reply| BackendRequest::Reset { reply }).await;
    }

    pub(crate) async fn pause(&self) -> Vec<QueueState> {
        self.call(|reply| BackendRequest::Pause { reply }).await
    }

    pub(crate) async fn resume(&self) {
        self.call(|reply| BackendRequest::Resume { reply }).await;
    }

    pub(crate) async fn config(&self) -> Vec<u8> {
        self.call(|reply| BackendRequest::ReadConfig { offset: 0, length: 64, reply }).await
    }

    /// Rings as after a reset by the driver.
    pub(crate) fn new_rings(&mut self) {
        for (index, port) in self.ports.iter_mut().enumerate() {
            let QueueLayout { size, format, .. } = port.driver.layout();
            port.driver = rings(&self.memory, index, size, format, self.features);
        }
    }

    pub(crate) fn driver(&mut self, queue: usize) -> &mut DriverQueue {
        &mut self.ports[queue].driver
    }

    /// Show the device what was added; kick if it wants that, and say so.
    pub(crate) fn publish(&mut self, queue: usize) -> bool {
        let wanted = self.ports[queue].driver.publish() == Kick::Wanted;
        if wanted {
            self.kick(queue);
        }
        wanted
    }

    /// Kick whether it is wanted or not.
    pub(crate) fn kick(&self, queue: usize) {
        rustix::io::write(&self.ports[queue].kick, &1u64.to_ne_bytes()).unwrap();
    }

    /// Sleep until the device has given something back.
    pub(crate) async fn wait(&mut self, queue: usize) {
        let port = &mut self.ports[queue];
        while !port.driver.enable_interrupts() {
            port.calls.next().await.unwrap();
        }
    }

    /// Sleep until the device has given something back or says something.
    pub(crate) async fn wait_or_event(&mut self, queue: usize) -> Either<(), BackendEvent> {
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
    pub(crate) async fn used(&mut self, queue: usize) -> Used {
        loop {
            if let Some(used) = self.driver(queue).take_used() {
                return used;
            }
            self.wait(queue).await;
        }
    }

    pub(crate) fn write(&self, address: u64, bytes: &[u8]) {
        self.memory.write_slice(GuestAddress(address), bytes).unwrap();
    }

    pub(crate) fn read(&self, address: u64, bytes: usize) -> Vec<u8> {
        let mut data = vec![0; bytes];
        self.memory.read_slice(GuestAddress(address), &mut data).unwrap();
        data
    }
}

fn rings(
    memory: &GuestMemory,
    index: usize,
    size: u16,
    layout: RingLayout,
    features: u64,
) -> DriverQueue {
    let features = RingFeatures::from_bits(features);
    DriverQueue::new(memory, RINGS + index as u64 * RING_BYTES, size, layout, features)
}

pub(crate) fn readable(address: u64, length: u32) -> Buffer {
    Buffer::Readable { address, length }
}

pub(crate) fn writable(address: u64, length: u32) -> Buffer {
    Buffer::Writable { address, length }
}
