//! A port's two streams, and the host's program at its end.

use std::os::fd::OwnedFd;

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair, sockopt,
};

use super::stream::Stream;

/// One port, as its two ends know it.
pub(super) struct Line {
    host: OwnedFd,
    pub(super) to_host: Stream,
    pub(super) to_guest: Stream,
}

impl Line {
    /// Of the port with this number, and the device's end. A socket that is full after little has the
    /// device wait.
    pub(super) fn new(port: u64, capacity: Capacity) -> (Self, OwnedFd) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (own, host) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)
            .expect("a pair of sockets");
        if capacity == Capacity::Small {
            sockopt::set_socket_send_buffer_size(&own, 4 << 10).expect("a size");
        }
        let (to_host, to_guest) = (Stream::new(2 * port), Stream::new(2 * port + 1));
        (Self { host, to_host, to_guest }, own)
    }

    /// The host's program writes up to so many bytes.
    pub(super) fn host_writes(&mut self, most: u64) {
        let bytes = self.to_guest.bytes(most);
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        if let Ok(count) = send(&self.host, &bytes, flags) {
            self.to_guest.sent += count as u64;
        }
    }

    /// It reads up to so many. False if there were none.
    pub(super) fn host_reads(&mut self, most: usize) -> bool {
        let mut buffer = vec![0; most];
        match recv(&self.host, &mut buffer, RecvFlags::DONTWAIT) {
            Ok((_, 0)) => panic!("the device has let go of its end of a port"),
            Ok((_, count)) => {
                self.to_host.arrived(&buffer[..count]);
                true
            }
            Err(_) => false,
        }
    }
}

/// What fits into a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Capacity {
    Small,
    Usual,
}
