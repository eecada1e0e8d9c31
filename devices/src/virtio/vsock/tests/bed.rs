//! A back end on an executor, programs of the host on one side and a driver on the other.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::io::{Read, Write};
use std::ops::{Deref, DerefMut};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;

use executor::{Fd, RecvFlags, SendFlags, TaskGroup};
use ipc::Sender;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use zerocopy::{FromBytes, IntoBytes};

use super::super::connection::SocketKind;
use super::super::parts::{ConnectRequest, Refused};
use super::super::protocol::{HEADER_BYTES, HOST_CID, Header, Op};
use super::super::{VsockBackend, VsockOptions};
use crate::virtio::queue::InflightRegion;
pub(super) use crate::virtio::test_bed::{TestBed, on_both, readable, writable};

pub(super) const RX: usize = 0;
pub(super) const TX: usize = 1;
pub(super) const EVENT: usize = 2;
pub(super) const CID: u64 = 7;

const MEMORY: u64 = 32 << 20;
/// Places for packets of the guest, this many bytes each.
const PLACES: u64 = 4 << 20;
const PLACE: u64 = 80 << 10;
const PLACE_COUNT: u64 = 64;
/// Receive buffers.
const BUFFERS: u64 = 16 << 20;
pub(super) const BUFFER: u32 = 4096;
/// Event buffers.
const EVENTS: u64 = 2 << 20;

/// What a driver got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) header: Header,
    pub(super) data: Vec<u8>,
}

impl Packet {
    pub(super) fn op(&self) -> Op {
        Op::from_number(self.header.op.get()).unwrap()
    }
}

/// The VMM: it connects to what the test listens with.
type Ports = Rc<RefCell<HashMap<(u32, SocketKind), VecDeque<OwnedFd>>>>;

/// A machine with one device.
pub(super) struct Bed {
    machine: TestBed,
    folder: tempfile::TempDir,
    options: VsockOptions,
    listeners: Vec<OwnedFd>,
    connects: Sender<ConnectRequest>,
    ports: Ports,
    pub(super) region: Option<InflightRegion>,
    given: HashMap<u16, u64>,
    place: u64,
    _vmm: TaskGroup,
}

impl Deref for Bed {
    type Target = TestBed;

    fn deref(&self) -> &TestBed {
        &self.machine
    }
}

impl DerefMut for Bed {
    fn deref_mut(&mut self) -> &mut TestBed {
        &mut self.machine
    }
}

impl Bed {
    pub(super) fn with(options: VsockOptions) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listen = |(name, kind)| {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let socket = rustix::net::socket_with(AddressFamily::UNIX, kind, flags, None).unwrap();
            let address = SocketAddrUnix::new(folder.path().join(name)).unwrap();
            rustix::net::bind(&socket, &address).unwrap();
            rustix::net::listen(&socket, 4096).unwrap();
            socket
        };
        let names = [("v", SocketType::STREAM), ("v.seqpacket", SocketType::SEQPACKET)];
        let listeners = names.into_iter().map(listen).collect();
        let (connects, mut requests) = ipc::channel::<ConnectRequest>(16);
        let ports = Ports::default();
        let vmm = TaskGroup::new();
        let known = ports.clone();
        vmm.spawn(async move {
            while let Ok(ConnectRequest { port, kind, reply }) = requests.recv().await {
                let socket =
                    known.borrow_mut().get_mut(&(port, kind)).and_then(VecDeque::pop_front);
                reply.send(socket.map(ipc::Fd::from).ok_or(Refused));
            }
        });
        let profile = super::super::profile(&options);
        let mut bed = Self {
            machine: TestBed::new(MEMORY, &profile),
            folder,
            options,
            listeners,
            connects,
            ports,
            region: None,
            given: HashMap::new(),
            place: 0,
            _vmm: vmm,
        };
        bed.restart();
        bed
    }

    /// A device that is active, with buffers to receive.
    pub(super) async fn active() -> Self {
        Self::active_with(VsockOptions::new(CID)).await
    }

    pub(super) async fn active_with(options: VsockOptions) -> Self {
        let mut bed = Self::with(options);
        bed.activate().await;
        bed.give(128);
        bed
    }

    pub(super) async fn activate(&mut self) {
        let (features, setups) = (self.features, self.setups(&[]));
        self.activate_with(features, setups).await.unwrap();
    }

    /// A back end takes the place of the one that runs.
    pub(super) fn restart(&mut self) {
        let clone = |socket: &OwnedFd| socket.try_clone().unwrap().into();
        let (stream, seqpacket) = (clone(&self.listeners[0]), clone(&self.listeners[1]));
        let backend =
            VsockBackend::new(self.options, stream, seqpacket, self.connects.clone()).unwrap();
        let backend = match &self.region {
            Some(region) => {
                let file = region.file().try_clone_to_owned().unwrap();
                let (queues, size) = super::super::profile(&self.options).inflight_size();
                backend.with_inflight(InflightRegion::attach(file, queues, size).unwrap())
            }
            None => backend,
        };
        self.machine.run(|context| backend.run(context));
    }

    pub(super) fn keep_record(&mut self) {
        let (queues, size) = super::super::profile(&self.options).inflight_size();
        self.region = Some(InflightRegion::create(queues, size).unwrap());
        self.restart();
    }

    /// Give the device so many buffers to receive.
    pub(super) fn give(&mut self, count: u64) {
        for _ in 0..count {
            let taken = self.given.values().copied().collect::<Vec<_>>();
            let address = (0..).map(|index| BUFFERS + index * u64::from(BUFFER));
            let address = address.into_iter().find(|address| !taken.contains(address)).unwrap();
            self.give_at(address);
        }
        self.publish(RX);
    }

    fn give_at(&mut self, address: u64) {
        let head = self.driver(RX).add(&[writable(address, BUFFER)]).unwrap();
        self.given.insert(head, address);
    }

    /// Forget what was given, as after a reset.
    pub(super) fn forget(&mut self) {
        self.given.clear();
        self.new_rings();
    }

    pub(super) fn give_events(&mut self, count: u64) {
        for index in 0..count {
            self.driver(EVENT).add(&[writable(EVENTS + 8 * index, 8)]).unwrap();
        }
        self.publish(EVENT);
    }

    /// The next event.
    pub(super) async fn event(&mut self) -> u32 {
        let used = self.used(EVENT).await;
        assert_eq!(used.written, 4);
        u32::from_le_bytes(self.read(EVENTS, 4).try_into().unwrap())
    }

    /// The next packet that the driver gets. The buffer goes back at once.
    pub(super) async fn packet(&mut self) -> Packet {
        let used = self.used(RX).await;
        let packet = self.take(used.head, used.written);
        self.publish(RX);
        packet
    }

    fn take(&mut self, head: u16, written: u32) -> Packet {
        let address = self.given.remove(&head).unwrap();
        let packet = self.parse(address, written);
        self.give_at(address);
        packet
    }

    fn parse(&self, address: u64, written: u32) -> Packet {
        assert!(written >= HEADER_BYTES);
        let bytes = self.read(address, written as usize);
        let (header, data) = Header::read_from_prefix(&bytes).unwrap();
        assert_eq!(header.len.get() as usize, data.len());
        assert_eq!((header.src_cid.get(), header.dst_cid.get()), (HOST_CID, CID));
        Packet { header, data: data.to_vec() }
    }

    /// The header of the next packet, whatever it says.
    pub(super) async fn any_packet(&mut self) -> Header {
        let used = self.used(RX).await;
        let address = self.given.remove(&used.head).unwrap();
        let bytes = self.read(address, HEADER_BYTES as usize);
        self.give_at(address);
        self.publish(RX);
        Header::read_from_bytes(&bytes).unwrap()
    }

    /// The machine without the rest of the world.
    pub(super) fn into_inner(self) -> TestBed {
        self.machine
    }

    /// The next packet that is not about credit.
    pub(super) async fn next(&mut self) -> Packet {
        loop {
            let packet = self.packet().await;
            if !matches!(packet.op(), Op::CreditUpdate | Op::CreditRequest) {
                return packet;
            }
        }
    }

    /// Send bytes as a packet, and wait until the device has taken it.
    pub(super) async fn send_raw(&mut self, bytes: &[u8]) {
        self.place = (self.place + 1) % PLACE_COUNT;
        let address = PLACES + self.place * PLACE;
        self.write(address, bytes);
        let head = self.driver(TX).add(&[readable(address, bytes.len() as u32)]).unwrap();
        self.publish(TX);
        assert_eq!(self.used(TX).await.head, head);
    }

    /// Make bytes available to the device without waiting.
    pub(super) fn queue_raw(&mut self, bytes: &[u8]) {
        self.place = (self.place + 1) % PLACE_COUNT;
        let address = PLACES + self.place * PLACE;
        self.write(address, bytes);
        self.driver(TX).add(&[readable(address, bytes.len() as u32)]).unwrap();
        self.publish(TX);
    }

    pub(super) async fn send(&mut self, header: Header, data: &[u8]) {
        let header = Header { len: (data.len() as u32).into(), ..header };
        self.send_raw(&[header.as_bytes(), data].concat()).await;
    }

    /// A program of the host that connects.
    pub(super) fn dial(&self) -> UnixStream {
        UnixStream::connect(self.folder.path().join("v")).unwrap()
    }

    /// A program of the host that connects for messages.
    pub(super) fn dial_seqpacket(&self) -> OwnedFd {
        let flags = SocketFlags::CLOEXEC;
        let kind = SocketType::SEQPACKET;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, kind, flags, None).unwrap();
        let address = SocketAddrUnix::new(self.folder.path().join("v.seqpacket")).unwrap();
        rustix::net::connect(&socket, &address).unwrap();
        socket
    }

    /// A program of the host listens: the next connection to the port gets this socket's other end.
    pub(super) fn listen(&self, port: u32, kind: SocketKind) -> OwnedFd {
        let (ours, theirs) = pair(kind);
        self.ports.borrow_mut().entry((port, kind)).or_default().push_back(theirs);
        ours
    }

    /// A stream connection that a program of the host opened, with a guest that has that much room.
    pub(super) async fn open_from_host(&mut self, room: u32) -> (Guest, UnixStream) {
        let mut host = self.dial();
        host.write_all(b"CONNECT 1024\n").unwrap();
        let packet = self.next().await;
        assert_eq!((packet.op(), packet.header.dst_port.get()), (Op::Request, 1024));
        let guest = Guest {
            port: 1024,
            host_port: packet.header.src_port.get(),
            kind: SocketKind::Stream,
            room,
            taken: 0,
        };
        self.send(guest.header(Op::Response), &[]).await;
        let mut line = [0; 32];
        let wanted = format!("OK {}\n", guest.host_port);
        host.read_exact(&mut line[..wanted.len()]).unwrap();
        assert_eq!(&line[..wanted.len()], wanted.as_bytes());
        (guest, host)
    }

    /// A connection that the guest opened.
    pub(super) async fn open_from_guest(
        &mut self,
        port: u32,
        kind: SocketKind,
        room: u32,
    ) -> (Guest, OwnedFd) {
        let host = self.listen(2000, kind);
        let guest = Guest { port, host_port: 2000, kind, room, taken: 0 };
        self.send(guest.header(Op::Request), &[]).await;
        assert_eq!(self.next().await.op(), Op::Response);
        (guest, host)
    }
}

fn pair(kind: SocketKind) -> (OwnedFd, OwnedFd) {
    let kind = match kind {
        SocketKind::Stream => SocketType::STREAM,
        SocketKind::Seqpacket => SocketType::SEQPACKET,
    };
    rustix::net::socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap()
}

/// The guest's end of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Guest {
    pub(super) port: u32,
    pub(super) host_port: u32,
    pub(super) kind: SocketKind,
    /// The guest's buffer.
    pub(super) room: u32,
    /// What left it.
    pub(super) taken: u32,
}

impl Guest {
    pub(super) fn header(&self, op: Op) -> Header {
        Header {
            src_cid: CID.into(),
            dst_cid: HOST_CID.into(),
            src_port: self.port.into(),
            dst_port: self.host_port.into(),
            kind: self.kind.number().into(),
            op: (op as u16).into(),
            buf_alloc: self.room.into(),
            fwd_cnt: self.taken.into(),
            ..Header::default()
        }
    }

    pub(super) fn shutdown(&self, flags: u32) -> Header {
        Header { flags: flags.into(), ..self.header(Op::Shutdown) }
    }
}

/// A socket of the host's program on the executor.
pub(super) fn attach(socket: impl Into<OwnedFd>) -> Fd {
    Fd::new(socket.into()).unwrap()
}

/// Exactly so many bytes from the device.
pub(super) async fn receive(socket: &Fd, bytes: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < bytes {
        let buffer = Vec::with_capacity((bytes - all.len()).min(64 << 10));
        let (received, buffer) = socket.recv(buffer, RecvFlags::empty()).await;
        assert!(received.unwrap() > 0, "the end after {} of {bytes} bytes", all.len());
        all.extend(buffer);
    }
    all
}

/// What comes once.
pub(super) async fn receive_once(socket: &Fd) -> Vec<u8> {
    let (received, buffer) = socket.recv(Vec::with_capacity(512 << 10), RecvFlags::empty()).await;
    received.unwrap();
    buffer
}

pub(super) async fn send_all(socket: &Fd, bytes: &[u8]) {
    let mut done = 0;
    while done < bytes.len() {
        let piece = bytes[done..bytes.len().min(done + (64 << 10))].to_vec();
        done += socket.send(piece, SendFlags::empty()).await.0.unwrap();
    }
}

/// Bytes that follow from `seed`.
pub(super) fn pattern(bytes: usize, seed: u32) -> Vec<u8> {
    (0..bytes as u32).map(|index| (index.wrapping_mul(2 * seed + 1) >> 7) as u8).collect()
}
