//! The same disk, served by somebody else to one of our machines.

use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use executor::{Config, Executor};
use ipc::{Deadline, Message, Reply, Sender};
use tempfile::TempDir;

use super::super::remote::{RemoteError, RemoteKind, RemoteOptions, RemoteParts};
use super::{DATA_AT, Guest, QUEUE_SIZE, SECTORS, VERSION_1, disk, serve_on};
use crate::memory::GuestAddress;
use crate::virtio::backend::{
    BackendContext, BackendRequest, QueueSetup, QueueState, RingLayout, RingPosition,
};
use crate::virtio::control::ControlRequest;
use crate::virtio::parts::{DeviceParts, Parts};

/// A socket where back ends come and go.
pub(super) struct Place {
    _folder: TempDir,
    path: PathBuf,
    listener: UnixListener,
}

impl Place {
    pub(super) fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        Self { _folder: folder, path, listener }
    }

    /// Serves whoever connects next; gives a handle by which the connection can be cut.
    pub(super) fn serve(&self, device: &DeviceParts) -> Served {
        let device = device.try_clone().unwrap();
        let listener = self.listener.try_clone().unwrap();
        thread::spawn(move || {
            let (connection, _) = listener.accept().unwrap();
            let handle = connection.try_clone().unwrap();
            (handle, serve_on(&device, connection))
        })
    }

    pub(super) fn options(&self) -> RemoteOptions {
        let (kind, socket) = (RemoteKind::Blk, self.path.clone());
        RemoteOptions { kind, socket, queues: 2, tag: None, mac: None }
    }
}

pub(super) type Served = JoinHandle<(UnixStream, JoinHandle<Result<(), String>>)>;

/// Ends a back end as its death would, but for what it has under way.
pub(super) fn kill(served: Served) {
    let (connection, thread) = served.join().unwrap();
    connection.shutdown(std::net::Shutdown::Both).unwrap();
    // It may have been about to answer: a guest sees what a ring does before whoever started it.
    let _ = thread.join().unwrap();
}

/// A machine's transport, as far as the device sees it.
struct Transport {
    requests: Sender<BackendRequest>,
    controls: Sender<ControlRequest>,
    thread: JoinHandle<()>,
}

impl Transport {
    fn new(parts: RemoteParts, guest: &Guest) -> Self {
        let (requests, request_receiver) = ipc::channel(4);
        let (controls, control_receiver) = ipc::channel(4);
        let (events, _) = ipc::channel(4);
        let context = BackendContext {
            memory: guest.memory.clone(),
            requests: request_receiver,
            controls: control_receiver,
            events,
            metrics: None,
            trace: None,
            helpers: Vec::new(),
        };
        let thread = thread::spawn(move || {
            let mut executor = Executor::new(&Config::default()).unwrap();
            executor.block_on(parts.run(None, context));
        });
        Self { requests, controls, thread }
    }

    fn call<R: Message>(&self, make: impl FnOnce(Reply<R>) -> BackendRequest) -> R {
        self.requests.call_blocking(make, Deadline::after(Duration::from_mins(1))).unwrap()
    }

    fn activate(&self, guest: &Guest, state: Option<QueueState>) -> Result<(), String> {
        let layout = guest.queue.layout();
        let duplicate = |file: &OwnedFd| file.try_clone().unwrap().into();
        let queue = QueueSetup {
            index: 0,
            size: QUEUE_SIZE,
            descriptor_table: layout.descriptor_table,
            available_ring: layout.available_ring,
            used_ring: layout.used_ring,
            kick: duplicate(&guest.kick),
            call: Some(duplicate(&guest.call)),
            layout: RingLayout::Split,
            state,
        };
        self.call(|reply| BackendRequest::Activate {
            features: VERSION_1,
            queues: vec![queue],
            reply,
        })
    }

    fn end(self) {
        drop((self.requests, self.controls));
        self.thread.join().unwrap();
    }
}

#[test]
fn a_disk_outlives_whoever_serves_it() {
    let (_file, device) = disk();
    let place = Place::new();
    let first = place.serve(&device);
    let parts = RemoteParts::open(place.options()).unwrap();
    let profile = parts.profile();
    assert_eq!((profile.device_type, profile.queue_sizes.len()), (2, 1));
    assert_eq!(profile.config[..8], SECTORS.to_le_bytes());
    let mut guest = Guest::new();
    let transport = Transport::new(parts, &guest);
    transport.activate(&guest, None).unwrap();
    assert_eq!(guest.read(5), 5);
    kill(first);

    // Nobody is there: the request waits for the second one, and then the third goes on behind it.
    guest.ask(6);
    let second = place.serve(&device);
    guest.wait();
    assert_eq!(guest.memory.read_obj::<u8>(GuestAddress(DATA_AT)).unwrap(), 6);
    kill(second);
    let third = place.serve(&device);
    assert_eq!(guest.read(7), 7);
    transport.end();
    third.join().unwrap().1.join().unwrap().unwrap();
}

#[test]
fn a_disk_is_paused_detached_and_reset_with_and_without_a_back_end() {
    let (_file, device) = disk();
    let place = Place::new();
    let first = place.serve(&device);
    let mut guest = Guest::new();
    let transport = Transport::new(RemoteParts::open(place.options()).unwrap(), &guest);
    let stands = |at| {
        let position = RingPosition::Split { next_available: at, next_used: at };
        vec![QueueState { index: 0, position }]
    };
    transport.activate(&guest, None).unwrap();
    assert!(transport.activate(&guest, None).is_err(), "once is enough");
    assert_eq!(guest.read(1), 1);
    assert_eq!(transport.call(|reply| BackendRequest::Pause { reply }), stands(1));
    guest.ask(2);
    transport.call(|reply| BackendRequest::Resume { reply });
    guest.wait();
    let states = transport.call(|reply| BackendRequest::Detach { reply });
    assert_eq!(states, stands(2));
    transport.activate(&guest, states.first().copied()).unwrap();
    assert_eq!(guest.read(3), 3);
    kill(first);
    assert_eq!(transport.call(|reply| BackendRequest::Pause { reply }), stands(3));
    transport.call(|reply| BackendRequest::Resume { reply });
    transport.call(|reply| BackendRequest::Reset { reply });
    let second = place.serve(&device);
    let (offset, length) = (0, 8);
    let size = transport.call(|reply| BackendRequest::ReadConfig { offset, length, reply });
    assert_eq!(size, SECTORS.to_le_bytes());
    transport.end();
    drop(place);
    // Whether it was found before the end is chance.
    drop(second);
}

#[test]
fn others_than_the_driver_are_sent_to_the_program_that_serves_it() {
    let (_file, device) = disk();
    let place = Place::new();
    let served = place.serve(&device);
    let guest = Guest::new();
    let transport = Transport::new(RemoteParts::open(place.options()).unwrap(), &guest);
    let change = crate::virtio::control::Change::Size { bytes: 1 << 20 };
    let refused = transport.controls.call_blocking(
        |reply| ControlRequest::Change { change, reply },
        Deadline::after(Duration::from_mins(1)),
    );
    assert!(refused.unwrap().unwrap_err().contains("another program"));
    transport.end();
    served.join().unwrap().1.join().unwrap().unwrap();
}

#[test]
fn nobody_and_those_who_hang_up_are_no_back_ends() {
    let place = Place::new();
    let listener = place.listener.try_clone().unwrap();
    let thread = thread::spawn(move || drop(listener.accept().unwrap()));
    let refused = RemoteParts::open(place.options());
    assert!(matches!(refused, Err(RemoteError::FrontEnd { .. })), "{refused:?}");
    thread.join().unwrap();
    let options = RemoteOptions { socket: place.path.with_file_name("other"), ..place.options() };
    let begin = Instant::now();
    let refused = RemoteParts::open(options);
    assert!(matches!(refused, Err(RemoteError::Connect { .. })), "{refused:?}");
    assert!(begin.elapsed() < Duration::from_mins(1));
}
