//! One connection, as both of its ends know it.

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use super::packet::Packet;

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    ToHost,
    ToGuest,
}

/// Where a connection stands for the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// The guest has asked for it.
    Asked,
    Open,
    /// It is over for the guest.
    Closed,
}

pub(super) struct Connection {
    id: u64,
    pub(super) guest_port: u32,
    pub(super) host_port: u32,
    pub(super) phase: Phase,
    /// The end of the host's program, while it has it.
    pub(super) host: Option<OwnedFd>,
    /// Something has happened after which the device may reset it.
    pub(super) doomed: bool,
    /// What the guest has room for, what it got, and what has left that.
    pub(super) room: u32,
    pub(super) received: u64,
    pub(super) consumed: u64,
    /// What the host's program has sent.
    pub(super) written: u64,
    /// What the guest has sent, and what the host's program has read.
    pub(super) sent: u64,
    pub(super) read: u64,
    /// What the device said of its room.
    peer_room: u32,
    peer_taken: u32,
}

impl Connection {
    pub(super) fn new(id: u64, guest_port: u32, host_port: u32, room: u32) -> Self {
        Self {
            id,
            guest_port,
            host_port,
            phase: Phase::Asked,
            host: None,
            doomed: false,
            room,
            received: 0,
            consumed: 0,
            written: 0,
            sent: 0,
            read: 0,
            peer_room: 0,
            peer_taken: 0,
        }
    }

    fn byte(&self, way: Way, index: u64) -> u8 {
        let way = if way == Way::ToHost { 1 } else { 2 };
        let mixed = (self.id * 4 + way).wrapping_mul(0x9e37_79b9) ^ index.wrapping_mul(0x85eb_ca6b);
        (mixed >> 7) as u8
    }

    pub(super) fn bytes(&self, way: Way, from: u64, count: u64) -> Vec<u8> {
        (from..from + count).map(|index| self.byte(way, index)).collect()
    }

    /// A packet of the guest.
    pub(super) fn packet(&self, op: u16) -> Packet {
        Packet {
            op,
            guest_port: self.guest_port,
            host_port: self.host_port,
            room: self.room,
            taken: self.consumed as u32,
            ..Packet::default()
        }
    }

    /// Bytes that the guest may send.
    pub(super) fn credit(&self) -> u64 {
        let under_way = (self.sent as u32).wrapping_sub(self.peer_taken);
        u64::from(self.peer_room.saturating_sub(under_way))
    }

    /// The device says how much room it has.
    pub(super) fn heard(&mut self, packet: &Packet) {
        let under_way = (self.sent as u32).wrapping_sub(packet.taken);
        assert!(u64::from(under_way) <= self.sent, "the device took more than was sent");
        (self.peer_room, self.peer_taken) = (packet.room, packet.taken);
    }

    /// Data for the guest.
    pub(super) fn arrived(&mut self, data: &[u8]) {
        let expected = self.bytes(Way::ToGuest, self.received, data.len() as u64);
        assert!(data == expected, "the guest's stream is broken at byte {}", self.received);
        self.received += data.len() as u64;
        assert!(self.received <= self.written, "the guest got more than was sent");
        let waiting = self.received - self.consumed;
        assert!(
            waiting <= u64::from(self.room),
            "{waiting} bytes were sent to a guest that has room for {}",
            self.room
        );
    }

    /// The host's program sends some.
    pub(super) fn host_writes(&mut self, count: u64) {
        let bytes = self.bytes(Way::ToGuest, self.written, count);
        let Some(host) = &self.host else { return };
        match rustix::net::send(host, &bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(sent) => self.written += sent as u64,
            Err(Errno::AGAIN) => {}
            Err(_) => assert!(self.is_over(), "the device has let go of a good connection"),
        }
    }

    /// The host's program reads some: how much.
    pub(super) fn host_reads(&mut self, most: usize) -> usize {
        let Some(host) = &self.host else { return 0 };
        let mut buffer = vec![0; most];
        let received = rustix::net::recv(host, &mut buffer, RecvFlags::DONTWAIT);
        let count = match received {
            Ok((0, _)) => {
                assert!(self.is_over(), "the end of a stream that goes on");
                self.host = None;
                return 0;
            }
            Ok((_, count)) => count,
            Err(Errno::AGAIN) => return 0,
            Err(_) => {
                assert!(self.is_over(), "the device has let go of a good connection");
                self.host = None;
                return 0;
            }
        };
        let expected = self.bytes(Way::ToHost, self.read, count as u64);
        assert!(buffer[..count] == expected, "the host's stream is broken at byte {}", self.read);
        self.read += count as u64;
        assert!(self.read <= self.sent, "the host got more than was sent");
        count
    }

    fn is_over(&self) -> bool {
        self.doomed || self.phase == Phase::Closed
    }

    /// All that was sent has arrived, as far as somebody is there for it.
    pub(super) fn is_complete(&self) -> bool {
        if self.is_over() {
            return true;
        }
        self.phase == Phase::Open
            && self.received == self.written
            && (self.host.is_none() || self.read == self.sent)
    }
}
