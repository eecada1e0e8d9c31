//! A back end on an executor, sockets behind it and a driver before it.

use std::ops::{Deref, DerefMut};
use std::os::fd::OwnedFd;

use executor::Fd;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use zerocopy::IntoBytes;

use super::super::protocol::Header;
use super::super::{MacAddress, NetBackend, NetOptions, NetStatistics, Offloads, Tap};
use crate::virtio::backend::{QueueSetup, QueueState};
use crate::virtio::control::Statistics;
pub(super) use crate::virtio::test_bed::{TestBed, on, on_both, readable, writable};

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
/// Places for frames to send, this many bytes each; receive buffers are behind the first 90.
const PLACES: u64 = 4 << 20;
const PLACE: u64 = 128 << 10;

/// A machine with one network.
pub(super) struct Bed {
    bed: TestBed,
    /// Other ends of the sockets.
    pub(super) peers: Vec<Fd>,
}

impl Deref for Bed {
    type Target = TestBed;

    fn deref(&self) -> &TestBed {
        &self.bed
    }
}

impl DerefMut for Bed {
    fn deref_mut(&mut self) -> &mut TestBed {
        &mut self.bed
    }
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
        let mut bed = Self { bed: TestBed::new(MEMORY, &backend.profile()), peers };
        bed.replace(backend);
        bed
    }

    /// Another back end takes the place of the one that runs.
    pub(super) fn replace(&mut self, backend: NetBackend) {
        self.bed.run(|context| backend.run(context));
    }

    pub(super) async fn finish(self) {
        self.bed.finish().await;
    }

    /// The queues that a driver with these features uses.
    pub(super) fn setups(&self, states: &[QueueState]) -> Vec<QueueSetup> {
        let mut setups = self.bed.setups(states);
        if self.features & MULTIPLE == 0 {
            setups.truncate(3);
        }
        setups
    }

    pub(super) async fn activate(&self) -> Result<(), String> {
        self.activate_with(self.features, self.setups(&[])).await
    }

    pub(super) async fn statistics(&self) -> NetStatistics {
        let Statistics::Net(statistics) = self.bed.statistics().await else {
            panic!("not of a network");
        };
        statistics
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
        self.give_from(queue, 0, count, length)
    }

    /// The same, behind the first so many.
    pub(super) fn give_from(
        &mut self,
        queue: usize,
        first: u64,
        count: u64,
        length: u32,
    ) -> Vec<(u16, u64)> {
        let base = (16 << 20) + queue as u64 * (6 << 20);
        let give = |index| {
            let address = base + index * u64::from(length);
            (self.driver(queue).add(&[writable(address, length)]).unwrap(), address)
        };
        let given = (first..first + count).map(give).collect();
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
