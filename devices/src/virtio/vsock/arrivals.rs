//! Connections that programs of the host ask for.

use std::io;
use std::os::fd::AsFd;

use executor::Fd;

use super::connection::{Due, Key, Phase};
use super::greeting::{Greeting, LONGEST, Said};
use super::hub::{Hub, Tell};
use super::socket;

/// Connections accepted before anything else is done.
const BATCH: usize = 64;
/// What is read at once while a greeting is expected: it, and some of what may follow.
const PIECE: usize = 4 * LONGEST;

impl Hub {
    /// Accept what waits. Only called when something does.
    pub(super) fn accept(&mut self, listener: usize) {
        for _ in 0..BATCH {
            if self.table.is_full() {
                // The kernel keeps them waiting.
                return;
            }
            let Listening { kind, accepted } = self.accept_one(listener);
            let socket = match accepted.and_then(Fd::unregistered) {
                Ok(socket) => socket,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    self.complaints.warn(format_args!("vsock: cannot accept: {error}"));
                    self.listeners[listener].stalled = true;
                    return;
                }
            };
            // The name comes with the greeting.
            let key = Key { guest_port: 0, host_port: 0, kind };
            let phase = Phase::Greeting(Greeting::default(), kind);
            if let Some(id) = self.add(key, phase, Some(socket)) {
                self.expire_later(id);
                self.settle(id.index);
            }
        }
    }

    fn accept_one(&self, listener: usize) -> Listening {
        let listener = &self.listeners[listener];
        Listening { kind: listener.kind, accepted: socket::accept(listener.socket.as_fd()) }
    }

    /// Read the greeting, or a part of it.
    pub(super) fn greet(&mut self, index: u32) {
        let Some(connection) = self.table.get(index) else { return };
        let (Phase::Greeting(greeting, kind), Some(socket)) =
            (&mut connection.phase, &connection.socket)
        else {
            return;
        };
        let kind = *kind;
        let mut piece = [0; PIECE];
        let said = match socket::receive(socket.as_fd(), &mut piece) {
            Ok(0) => Said::Nonsense,
            Ok(bytes) => greeting.push(&piece[..bytes]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Said::Nothing,
            Err(_) => Said::Nonsense,
        };
        match said {
            Said::Nothing => self.settle(index),
            Said::Nonsense => self.end(index, Tell::Nobody),
            Said::Port(guest_port, rest) => {
                connection.staged.bytes.extend_from_slice(rest);
                connection.phase = Phase::Asking;
                connection.due.insert(Due::REQUEST);
                let host_port = self.free_port(Key { guest_port, host_port: 0, kind });
                self.table.name(index, Key { guest_port, host_port, kind });
                self.settle(index);
            }
        }
    }

    /// A port of the host that is not connected to that port of the guest.
    fn free_port(&mut self, mut key: Key) -> u32 {
        // There are far fewer connections than ports.
        loop {
            key.host_port = self.next_port;
            self.next_port = self.next_port.wrapping_add(1).max(super::FIRST_HOST_PORT);
            if self.table.find(key).is_none() {
                return key.host_port;
            }
        }
    }
}

struct Listening {
    kind: super::SocketKind,
    accepted: io::Result<std::os::fd::OwnedFd>,
}
