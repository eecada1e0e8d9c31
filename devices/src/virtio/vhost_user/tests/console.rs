//! Consoles that somebody else serves to one of our machines.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use executor::{Config, Executor};
use ipc::{Deadline, Message, Receiver, Reply, Sender};

use super::super::remote::{RemoteKind, RemoteOptions, RemoteParts};
use super::VERSION_1;
use super::remote::{Place, kill};
use crate::virtio::backend::{BackendContext, BackendEvent, BackendRequest};
use crate::virtio::console::driver::{
    DEVICE_READY, PORT_ADD, PORT_NAME, PORT_OPEN, PORT_READY, tell, told,
};
use crate::virtio::console::{ConsoleParts, PortEnd, PortRole, WindowSize};
use crate::virtio::control::ControlRequest;
use crate::virtio::parts::{DeviceParts, Parts};
use crate::virtio::queue::driver::BlockingDriver;

const FEATURE_SIZE: u64 = 1 << 0;
const FEATURE_MULTIPORT: u64 = 1 << 1;
const PATIENCE: Duration = Duration::from_mins(1);

/// The queues of a console with one port.
const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;

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

/// A machine with a console of another program.
struct Machine {
    driver: BlockingDriver,
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
        let driver = BlockingDriver::new(features | VERSION_1);
        let (requests, request_receiver) = ipc::channel(4);
        let (controls, control_receiver) = ipc::channel(4);
        let (event_sender, events) = ipc::channel(4);
        let context = BackendContext {
            memory: driver.memory().clone(),
            requests: request_receiver,
            controls: control_receiver,
            events: event_sender,
            metrics: None,
            trace: None,
            helpers: Vec::new(),
        };
        let thread = thread::spawn(move || {
            let mut executor = Executor::new(&Config::default()).unwrap();
            executor.block_on(parts.run(None, context));
        });
        let mut machine = Self { driver, requests, events, controls, thread };
        machine.begin(profile.queue_sizes.len());
        machine
    }

    fn call<R: Message>(&self, make: impl FnOnce(Reply<R>) -> BackendRequest) -> R {
        self.requests.call_blocking(make, Deadline::after(PATIENCE)).unwrap()
    }

    /// A driver sets up so many queues.
    fn begin(&mut self, count: usize) {
        self.driver.set_up(count);
        let features = self.driver.features();
        let queues = (0..count).map(|queue| self.driver.setup(queue)).collect();
        self.call(|reply| BackendRequest::Activate { features, queues, reply }).unwrap();
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
    machine.driver.listen(RECEIVE);
    host.write_all(b"typed").unwrap();
    assert_eq!(machine.driver.heard(RECEIVE), b"typed");
    machine.driver.say(TRANSMIT, b"shown");
    reads(&mut host, b"shown");
    machine.driver.taken(TRANSMIT);
    machine.driver.listen(RECEIVE);
    kill(first);

    machine.driver.say(TRANSMIT, b"nobody is there");
    let second = place.serve(&program(PortRole::Console, &end));
    reads(&mut host, b"nobody is there");
    host.write_all(b"again").unwrap();
    assert_eq!(machine.driver.heard(RECEIVE), b"again");
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
        tell(&mut machine.driver, 0, DEVICE_READY);
        assert_eq!(told(&mut machine.driver).event, PORT_ADD);
        tell(&mut machine.driver, 0, PORT_READY);
        assert_eq!([(); 2].map(|()| told(&mut machine.driver).event), [PORT_NAME, PORT_OPEN]);
    };
    greet(&mut machine);
    tell(&mut machine.driver, 0, PORT_OPEN);
    machine.driver.listen(RECEIVE);
    host.write_all(b"one").unwrap();
    assert_eq!(machine.driver.heard(RECEIVE), b"one");
    machine.driver.listen(RECEIVE);
    kill(first);

    let second = place.serve(&program(role(), &end));
    host.write_all(b"two").unwrap();
    assert_eq!(machine.driver.heard(RECEIVE), b"two");
    assert_eq!(told(&mut machine.driver).event, PORT_ADD, "who knows nothing says it once more");

    machine.call(|reply| BackendRequest::Reset { reply });
    machine.begin(4);
    machine.driver.listen(RECEIVE);
    host.write_all(b"three").unwrap();
    greet(&mut machine);
    machine.call(|reply| BackendRequest::Pause { reply });
    machine.call(|reply| BackendRequest::Resume { reply });
    assert!(!machine.driver.has_used(RECEIVE), "nobody has it open");
    tell(&mut machine.driver, 0, PORT_OPEN);
    assert_eq!(machine.driver.heard(RECEIVE), b"three");
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
    machine.driver.say(TRANSMIT, b"to the second");
    reads(&mut host, b"to the second");
    machine.end();
    second.join().unwrap().1.join().unwrap().unwrap();
}
