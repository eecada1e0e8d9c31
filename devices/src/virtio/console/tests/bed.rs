//! A back end on an executor, sockets behind its ports and a driver before it.

use std::ops::{Deref, DerefMut};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use executor::Fd;
use zerocopy::{FromBytes, IntoBytes};

use super::super::protocol::{FEATURE_MULTIPORT, MESSAGE_BYTES, Message, event};
use super::super::{ConsoleBackend, ConsoleParts, PortEnd, PortRole, WindowSize};
use crate::virtio::parts::Parts;
use crate::virtio::queue::InflightRegion;
pub(super) use crate::virtio::test_bed::{TestBed, on_both, readable, writable};

const MEMORY: u64 = 32 << 20;
const PLACES: u64 = 4 << 20;
const PLACE: u64 = 64 << 10;
/// Where receive buffers are, this many bytes for each queue.
const RECEIVE: u64 = 16 << 20;
const RECEIVE_BYTES: u64 = 1 << 20;

pub(super) const CONTROL_RECEIVE: usize = 2;
pub(super) const CONTROL_TRANSMIT: usize = 3;

pub(super) fn receive_queue(port: usize) -> usize {
    if port == 0 { 0 } else { 2 * port + 2 }
}

pub(super) fn transmit_queue(port: usize) -> usize {
    receive_queue(port) + 1
}

pub(super) fn place_at(place: u64) -> u64 {
    PLACES + place * PLACE
}

/// Bytes that follow from where they are.
pub(super) fn pattern(from: usize, bytes: usize) -> Vec<u8> {
    (from..from + bytes).map(|index| (index.wrapping_mul(0x9e37_79b1) >> 13) as u8).collect()
}

/// A machine with one console.
pub(super) struct Bed {
    machine: TestBed,
    /// Kept for successors.
    pub(super) parts: ConsoleParts,
    inflight: OwnedFd,
    /// Other ends of the sockets.
    pub(super) hosts: Vec<Fd>,
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

/// A console at port 0, and named ports `p1` and so on.
pub(super) fn role(port: usize) -> PortRole {
    if port == 0 { PortRole::Console } else { PortRole::Named(format!("p{port}")) }
}

impl Bed {
    /// So many ports with sockets; a back end that runs and is not active.
    pub(super) fn start(ports: usize) -> Self {
        let end = |port| {
            let (own, host) = UnixStream::pair().unwrap();
            own.set_nonblocking(true).unwrap();
            let own = OwnedFd::from(own);
            ((role(port), PortEnd::Both(own.into())), Fd::new(OwnedFd::from(host)).unwrap())
        };
        let (ports, hosts) = (0..ports).map(end).unzip();
        Self::start_on(ports, hosts)
    }

    pub(super) fn start_on(ends: Vec<(PortRole, PortEnd)>, hosts: Vec<Fd>) -> Self {
        let parts = ConsoleParts::new(ends, WindowSize::default()).unwrap();
        let profile = parts.profile();
        let (queues, size) = profile.inflight_size();
        let region = InflightRegion::create(queues, size).unwrap();
        let inflight = region.file().try_clone_to_owned().unwrap();
        let mut bed = Self { machine: TestBed::new(MEMORY, &profile), parts, inflight, hosts };
        bed.succeed();
        bed
    }

    /// Another back end takes the place of the one that runs.
    pub(super) fn succeed(&mut self) {
        let (queues, size) = self.parts.profile().inflight_size();
        let file = self.inflight.try_clone().unwrap();
        let region = InflightRegion::attach(file, queues, size).unwrap();
        let backend = ConsoleBackend::new(self.parts.try_clone().unwrap()).with_inflight(region);
        self.machine.run(|context| backend.run(context));
    }

    pub(super) async fn finish(self) {
        self.machine.finish().await;
    }

    pub(super) async fn activate(&self) {
        let mut setups = self.setups(&[]);
        if self.features & FEATURE_MULTIPORT == 0 {
            setups.truncate(2);
        }
        self.activate_with(self.features, setups).await.unwrap();
    }

    /// Active; with several ports, ready and opened by the guest.
    pub(super) async fn active(ports: usize) -> Self {
        let mut bed = Self::start(ports);
        bed.activate().await;
        if ports > 1 {
            bed.greet().await;
            for port in 0..ports as u32 {
                bed.tell(port, event::PORT_READY, 1).await;
                bed.heard(2).await;
                bed.tell(port, event::PORT_OPEN, 1).await;
            }
        }
        bed
    }

    /// The driver is ready and gets to know of the ports.
    pub(super) async fn greet(&mut self) {
        self.give(CONTROL_RECEIVE, 32, 256);
        self.tell(u32::MAX, event::DEVICE_READY, 1).await;
        let ports = self.hosts.len();
        let added = self.heard(ports).await;
        for (port, (message, more)) in added.into_iter().enumerate() {
            assert_eq!(message, Message { port: port as u32, event: event::PORT_ADD, value: 0 });
            assert!(more.is_empty());
        }
    }

    /// Say something on the control queue, and wait until it was taken.
    pub(super) async fn tell(&mut self, port: u32, event: u16, value: u16) {
        let message = Message { port, event, value };
        self.write(place_at(60), message.as_bytes());
        let buffer = readable(place_at(60), MESSAGE_BYTES as u32);
        self.driver(CONTROL_TRANSMIT).add(&[buffer]).unwrap();
        self.publish(CONTROL_TRANSMIT);
        self.used(CONTROL_TRANSMIT).await;
    }

    /// The next messages of the device, each with what follows it.
    pub(super) async fn heard(&mut self, count: usize) -> Vec<(Message, Vec<u8>)> {
        let mut messages = Vec::new();
        for _ in 0..count {
            let bytes = self.take_bytes(CONTROL_RECEIVE, 256).await;
            let (message, more) = Message::read_from_prefix(&bytes).unwrap();
            messages.push((message, more.to_vec()));
        }
        messages
    }

    /// Give the device so many buffers to fill, of so many bytes.
    pub(super) fn give(&mut self, queue: usize, count: u16, bytes: u32) {
        for index in 0..count {
            let address = receive_place(queue, index, bytes);
            // The model hands out names in order: a buffer's place follows from its name.
            let name = self.driver(queue).add(&[writable(address, bytes)]).unwrap();
            assert_eq!(name, index);
        }
        self.publish(queue);
    }

    /// The next buffer that the device has filled, of those of [`Bed::give`]; it gets it again.
    pub(super) async fn take_bytes(&mut self, queue: usize, bytes: u32) -> Vec<u8> {
        let used = self.used(queue).await;
        let address = receive_place(queue, used.head, bytes);
        let data = self.read(address, used.written as usize);
        let name = self.driver(queue).add(&[writable(address, bytes)]).unwrap();
        assert_eq!(name, used.head);
        self.publish(queue);
        data
    }

    /// Send bytes to the host from a place; they are under way.
    pub(super) fn send(&mut self, port: usize, place: u64, bytes: &[u8]) {
        self.write(place_at(place), bytes);
        let buffer = readable(place_at(place), bytes.len() as u32);
        self.driver(transmit_queue(port)).add(&[buffer]).unwrap();
        self.publish(transmit_queue(port));
    }

    /// So many bytes that the host gets.
    pub(super) async fn host_reads(&self, port: usize, bytes: usize) -> Vec<u8> {
        read_all(&self.hosts[port], bytes).await
    }

    pub(super) async fn host_writes(&self, port: usize, bytes: &[u8]) {
        write_all(&self.hosts[port], bytes).await;
    }

    /// So many bytes that the guest gets, with buffers of [`Bed::give`].
    pub(super) async fn guest_reads(&mut self, port: usize, total: usize, bytes: u32) -> Vec<u8> {
        let mut all = Vec::with_capacity(total);
        while all.len() < total {
            all.extend(self.take_bytes(receive_queue(port), bytes).await);
        }
        all
    }
}

pub(super) async fn read_all(fd: &Fd, bytes: usize) -> Vec<u8> {
    let mut all = Vec::with_capacity(bytes);
    while all.len() < bytes {
        let (count, buffer) = fd.read(Vec::with_capacity(bytes - all.len())).await;
        assert!(count.unwrap() > 0, "the port is open");
        all.extend(buffer);
    }
    all
}

pub(super) async fn write_all(fd: &Fd, bytes: &[u8]) {
    let mut rest = bytes.to_vec();
    while !rest.is_empty() {
        let (count, mut buffer) = fd.write(rest).await;
        buffer.drain(..count.unwrap());
        rest = buffer;
    }
}

fn receive_place(queue: usize, name: u16, bytes: u32) -> u64 {
    assert!(u64::from(name) * u64::from(bytes) < RECEIVE_BYTES);
    RECEIVE + queue as u64 * RECEIVE_BYTES + u64::from(name) * u64::from(bytes)
}
