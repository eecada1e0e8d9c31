//! The host's end of a network: a packet socket in the namespace of the test.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_recv_buffer_size_force, set_socket_timeout};
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketAddrAny, SocketFlags, SocketType,
};

use crate::frame::{self, Frame};

/// Room for all frames that a test sends while nobody looks.
const RECEIVE_BUFFER: usize = 64 << 20;
/// How long a look for a frame takes at most: then others are asked.
const LOOK: Duration = Duration::from_millis(100);
/// The longest frame of a tap.
const LONGEST: usize = 65_550;

/// What came, all streams together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Different frames.
    pub(crate) frames: u64,
    pub(crate) duplicates: u64,
    pub(crate) damaged: u64,
    seen: BTreeMap<u16, Vec<bool>>,
}

impl Tally {
    pub(crate) fn note(&mut self, frame: Frame) {
        match frame {
            Frame::Hello => {}
            Frame::Damaged => self.damaged += 1,
            Frame::Data { stream, number } => {
                let seen = self.seen.entry(stream).or_default();
                let number = usize::try_from(number).expect("a number of a test");
                if seen.len() <= number {
                    seen.resize(number + 1, false);
                }
                if std::mem::replace(&mut seen[number], true) {
                    self.duplicates += 1;
                } else {
                    self.frames += 1;
                }
            }
        }
    }

    /// Numbers that are missing below the highest one of each stream.
    pub(crate) fn lost(&self) -> usize {
        self.seen.values().flatten().filter(|seen| !**seen).count()
    }
}

/// A socket that takes the load's frames of every interface of its namespace.
pub(crate) struct Peer {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

impl Peer {
    /// In the namespace of this thread.
    pub(crate) fn new() -> Self {
        let (kind, flags) = (SocketType::RAW, SocketFlags::CLOEXEC);
        let protocol = u32::from(frame::ETHER_TYPE.to_be());
        let protocol = std::num::NonZeroU32::new(protocol).map(Protocol::from_raw);
        let socket = rustix::net::socket_with(AddressFamily::PACKET, kind, flags, protocol)
            .expect("a packet socket");
        set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER).expect("a large buffer");
        set_socket_timeout(&socket, Timeout::Recv, Some(LOOK)).expect("a timeout");
        Self { socket, buffer: vec![0; LONGEST] }
    }

    /// Sends to this interface from now on.
    pub(crate) fn bind(&self, interface: &str) {
        let index = rustix::net::netdevice::name_to_index(&self.socket, interface);
        let index = index.expect("the interface is there");
        // SAFETY: all zeroes is a valid `sockaddr_ll`, which has integers only.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = frame::ETHER_TYPE.to_be();
        address.sll_ifindex = index as i32;
        let length = size_of_val(&address) as u32;
        // SAFETY: a socket address of this length, which is copied.
        let address = unsafe { SocketAddrAny::read((&raw const address).cast(), length) };
        rustix::net::bind(&self.socket, &address).expect("binds");
    }

    /// The next frame; none if there is none for a moment.
    pub(crate) fn next(&mut self) -> Option<Frame> {
        loop {
            match rustix::net::recv(&self.socket, &mut self.buffer[..], RecvFlags::empty()) {
                Ok((count, _)) => return Some(frame::read(&self.buffer[..count])),
                Err(rustix::io::Errno::AGAIN) => return None,
                // The interface goes down with its machine.
                Err(rustix::io::Errno::NETDOWN | rustix::io::Errno::INTR) => {}
                Err(error) => panic!("cannot receive: {error}"),
            }
        }
    }

    /// Sends a frame. Whether the interface is still there.
    pub(crate) fn send(&self, frame: &[u8]) -> bool {
        match rustix::net::send(&self.socket, frame, SendFlags::empty()) {
            // A full queue loses the frame; that is for the guest to count.
            Ok(_) | Err(rustix::io::Errno::NOBUFS) => true,
            Err(
                rustix::io::Errno::NETDOWN | rustix::io::Errno::NXIO | rustix::io::Errno::NODEV,
            ) => false,
            Err(error) => panic!("cannot send: {}", io::Error::from(error)),
        }
    }
}
