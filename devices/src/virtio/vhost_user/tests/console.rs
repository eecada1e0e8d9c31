//! Consoles that somebody else serves to one of our machines.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use executor::{Config, Executor};
use ipc::{Deadline, Message, Receiver, Reply, Sender};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

use super::super::remote::{RemoteKind, RemoteOptions, RemoteParts};
use super::remote::{Place, kill};
use super::{Guest, VERSION_1};
use crate::memory::{GuestAddress, GuestMemory};
use crate::virtio::backend::{BackendContext, BackendEvent, BackendRequest, RingLayout};
use crate::virtio::console::{ConsoleParts, PortEnd, PortRole, WindowSize};
use crate::virtio::control::ControlRequest;
use crate::virtio::parts::{DeviceParts, Parts};
use crate::virtio::queue::RingFeatures;
use crate::virtio::queue::driver::{Buffer, DriverQueue};

const FEATURE_SIZE: u64 = 1 << 0;
const FEATURE_MULTIPORT: u64 = 1 << 1;
const QUEUE_SIZE: u16 = 16;
const RINGS_AT: u64 = 0x1000;
/// A page for each queue, of which each buffer has a part.
const BUFFERS_AT: u64 = 0x4_0000;
const BUFFER_BYTES: u32 = 64;
const PATIENCE: Duration = Duration::from_mins(1);

/// The queues of a console with one port, and those for messages beside them.
const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;
const MESSAGES: usize = 2;
const ANSWERS: usize = 3;

/// Events of the messages (virtio 1.3 section 5.3.6.2).
const DEVICE_READY: u16 = 0;
const PORT_ADD: u16 = 1;
const PORT_READY: u16 = 3;
const PORT_OPEN: u16 = 6;
const PORT_NAME: u16 = 7;

/// Both ends of a port: the host's, and the device's.
fn port() -> (UnixStream, OwnedFd) {
    let (host, device) = UnixStream::pair().unwrap();
    device.set_nonblocking(true).unwrap();
    host.set_read_timeout(Some(PATIENCE)).unwrap();
    (host, device.into())
}

/// What a program serves on that end. It knows nothing of what a predecessor was told.
fn program(role: PortRole, end: &OwnedFd) -> DeviceParts {
    let end = PortEnd::Both(end.try_clone().unwrap().into());
    let window = WindowSize { columns: 80, rows: 25 };
    DeviceParts::Console(ConsoleParts::new(vec![(role, end)], window).unwrap())
}

struct Queue {
    driver: DriverQueue,
    kick: OwnedFd,
    call: OwnedFd,
}

/// A machine with a console of another program.
struct Machine {
    memory: GuestMemory,
    features: u64,
    queues: Vec<Queue>,
    requests: Sender<BackendRequest>,
    events: Receiver<BackendEvent>,
    controls: Sender<ControlRequest>,
    thread: JoinHandle<()>,
}

impl Machine {
    fn new(place: &Place, features: u64) -> Self {
        let options = RemoteOptions { kind: RemoteKind::Console, ..place.options() };
        let parts = RemoteParts::open(options).unwrap();
        let profile = parts.profile();
        assert_eq!(profile.device_type, 3);
        assert_eq!(profile.features & (FEATURE_SIZE | FEATURE_MULTIPORT), features);
        assert_eq!(profile.config, [80, 0, 25, 0, 1, 0, 0, 0]);
        let memory = Guest::new().memory;
        let (requests, request_receiver) = ipc::channel(4);
        let (controls, control_receiver) = ipc::channel(4);
        let (event_sender, events) = ipc::channel(4);
        let context = BackendContext {
            memory: memory.clone(),
            requests: request_receiver,
            controls: control_receiver,
            events: event_sender,
            metrics: None,
            trace: None,
        };
        let thread = thread::spawn(move || {
            let mut executor = Executor::new(&Config::default()).unwrap();
            executor.block_on(parts.run(None, context));
        });
        let features = features | VERSION_1;
        let queues = Vec::new();
        let mut machine = Self { memory, features, queues, requests, events, controls, thread };
        machine.begin(profile.queue_sizes.len());
        machine
    }

    fn call<R: Message>(&self, make: impl FnOnce(Reply<R>) -> BackendRequest) -> R {
        self.requests.call_blocking(make, Deadline::after(PATIENCE)).unwrap()
    }

    /// A driver sets up so many queues.
    fn begin(&mut self, count: usize) {
        let ring = |index| {
            let base = RINGS_AT + index as u64 * DriverQueue::ring_bytes(QUEUE_SIZE);
            let features = RingFeatures::from_bits(self.features);
            let event = || eventfd(0, EventfdFlags::CLOEXEC).unwrap();
            let layout = RingLayout::Split;
            let driver = DriverQueue::new(&self.memory, base, QUEUE_SIZE, layout, features);
            Queue { driver, kick: event(), call: event() }
        };
        self.queues = (0..count).map(ring).collect();
        let setup = |(index, queue): (usize, &Queue)| {
            let (kick, call) = (queue.kick.try_clone().unwrap(), queue.call.try_clone().unwrap());
            queue.driver.layout().setup(index as u16, kick, call)
        };
        let (features, queues) = (self.features, self.queues.iter().enumerate().map(setup));
        let queues = queues.collect();
        self.call(|reply| BackendRequest::Activate { features, queues, reply }).unwrap();
    }

    fn give(&mut self, queue: usize, buffer: Buffer) {
        let Queue { driver, kick, .. } = &mut self.queues[queue];
        driver.add(&[buffer]).unwrap();
        let _ = driver.publish();
        rustix::io::write(&*kick, &1_u64.to_ne_bytes()).unwrap();
    }

    /// Has something written into the next buffer of a queue.
    fn listen(&mut self, queue: usize) {
        let address = BUFFERS_AT + queue as u64 * 4096;
        self.give(queue, Buffer::Writable { address, length: BUFFER_BYTES });
    }

    /// What was written there.
    fn heard(&mut self, queue: usize) -> Vec<u8> {
        let written = self.taken(queue);
        let mut bytes = vec![0; written as usize];
        let address = GuestAddress(BUFFERS_AT + queue as u64 * 4096);
        self.memory.read_slice(address, &mut bytes).unwrap();
        bytes
    }

    fn say(&mut self, queue: usize, bytes: &[u8]) {
        let address = BUFFERS_AT + queue as u64 * 4096;
        self.memory.write_slice(GuestAddress(address), bytes).unwrap();
        self.give(queue, Buffer::Readable { address, length: bytes.len() as u32 });
    }

    /// Bytes written into the next buffer that comes back.
    fn taken(&mut self, queue: usize) -> u32 {
        let Queue { driver, call, .. } = &mut self.queues[queue];
        loop {
            if let Some(used) = driver.take_used() {
                return used.written;
            }
            let mut waiting = [PollFd::new(&*call, PollFlags::IN)];
            let patience = PATIENCE.try_into().unwrap();
            assert_eq!(poll(&mut waiting, Some(&patience)).unwrap(), 1, "no interrupt");
            rustix::io::read(&*call, &mut [0; 8]).unwrap();
        }
    }

    /// Says something of the only port, and waits until it was heard.
    fn tell(&mut self, event: u16, value: u16) {
        let event = [event.to_le_bytes(), value.to_le_bytes()].concat();
        self.say(ANSWERS, &[[0; 4].to_vec(), event].concat());
        self.taken(ANSWERS);
    }

    /// The event of the next message.
    fn told(&mut self) -> u16 {
        self.listen(MESSAGES);
        let message = self.heard(MESSAGES);
        u16::from_le_bytes([message[4], message[5]])
    }

    fn end(self) {
        drop((self.requests, self.controls));
        self.thread.join().unwrap();
    }
}

fn reads(host: &mut UnixStream, bytes: &[u8]) {
    let mut read = vec![0; bytes.len()];
    host.read_exact(&mut read).unwrap();
    assert_eq!(read, bytes);
}

#[test]
fn a_console_outlives_whoever_serves_it() {
    let (mut host, end) = port();
    let place = Place::new();
    let first = place.serve(&program(PortRole::Console, &end));
    let mut machine = Machine::new(&place, FEATURE_SIZE);
    let event = machine.events.recv_blocking(Deadline::after(PATIENCE)).unwrap();
    assert_eq!(event, BackendEvent::LookAtConfig, "there is a window, and the driver is to know");
    machine.listen(RECEIVE);
    host.write_all(b"typed").unwrap();
    assert_eq!(machine.heard(RECEIVE), b"typed");
    machine.say(TRANSMIT, b"shown");
    reads(&mut host, b"shown");
    machine.taken(TRANSMIT);
    machine.listen(RECEIVE);
    kill(first);

    machine.say(TRANSMIT, b"nobody is there");
    let second = place.serve(&program(PortRole::Console, &end));
    reads(&mut host, b"nobody is there");
    host.write_all(b"again").unwrap();
    assert_eq!(machine.heard(RECEIVE), b"again");
    machine.end();
    second.join().unwrap().1.join().unwrap().unwrap();
}

#[test]
fn a_port_with_a_name_is_open_for_a_successor_and_closed_for_a_new_driver() {
    let (mut host, end) = port();
    let role = || PortRole::Named("p".into());
    let place = Place::new();
    let first = place.serve(&program(role(), &end));
    let mut machine = Machine::new(&place, FEATURE_SIZE | FEATURE_MULTIPORT);
    let greet = |machine: &mut Machine| {
        machine.tell(DEVICE_READY, 1);
        assert_eq!(machine.told(), PORT_ADD);
        machine.tell(PORT_READY, 1);
        assert_eq!([machine.told(), machine.told()], [PORT_NAME, PORT_OPEN]);
    };
    greet(&mut machine);
    machine.tell(PORT_OPEN, 1);
    machine.listen(RECEIVE);
    host.write_all(b"one").unwrap();
    assert_eq!(machine.heard(RECEIVE), b"one");
    machine.listen(RECEIVE);
    kill(first);

    let second = place.serve(&program(role(), &end));
    host.write_all(b"two").unwrap();
    assert_eq!(machine.heard(RECEIVE), b"two");
    assert_eq!(machine.told(), PORT_ADD, "who knows nothing says it once more");

    machine.call(|reply| BackendRequest::Reset { reply });
    machine.begin(4);
    machine.listen(RECEIVE);
    host.write_all(b"three").unwrap();
    greet(&mut machine);
    machine.call(|reply| BackendRequest::Pause { reply });
    machine.call(|reply| BackendRequest::Resume { reply });
    assert!(machine.queues[RECEIVE].driver.take_used().is_none(), "nobody has it open");
    machine.tell(PORT_OPEN, 1);
    assert_eq!(machine.heard(RECEIVE), b"three");
    machine.end();
    second.join().unwrap().1.join().unwrap().unwrap();
}

#[test]
fn a_successor_with_fewer_ports_is_none() {
    let (mut host, end) = port();
    let place = Place::new();
    let role = || PortRole::Named("p".into());
    let first = place.serve(&program(role(), &end));
    let mut machine = Machine::new(&place, FEATURE_SIZE | FEATURE_MULTIPORT);
    kill(first);
    // It is asked what it is, and left alone.
    let unfit = place.serve(&program(PortRole::Console, &end));
    unfit.join().unwrap().1.join().unwrap().unwrap();
    let second = place.serve(&program(role(), &end));
    machine.say(TRANSMIT, b"to the second");
    reads(&mut host, b"to the second");
    machine.end();
    second.join().unwrap().1.join().unwrap().unwrap();
}
