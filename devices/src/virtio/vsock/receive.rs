//! Packets for the guest.
//!
//! Connections take turns: each may fill so many buffers, then the next one has its turn. One
//! without credit, or whose host is quiet, has none.

use std::io;
use std::os::fd::AsFd;

use super::connection::{Due, Socket, SocketKind};
use super::failure::Failure;
use super::hub::{Hub, Tell};
use super::pool::Pool;
use super::protocol::{END_OF_MESSAGE, Header, Op, Shut};
use super::socket;
use crate::virtio::queue::Queue;

/// Bytes of one turn: 16 buffers as Linux gives them, read in one call.
const TURN: u32 = 64 << 10;
/// Turns before the guest's packets are looked at again.
const TURNS: usize = 32;
/// The longest message that a Unix socket takes with the buffer that it has by default
/// (`net.core.wmem_default`), and then some.
const LONGEST_MESSAGE: usize = 256 << 10;

/// How it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delivery {
    /// All is said for now.
    Done,
    /// There is more.
    More,
    /// There is more, and the guest has to give buffers.
    NoBuffers,
}

impl Hub {
    /// Fill the guest's buffers with what there is for it.
    pub(super) fn deliver(
        &mut self,
        pool: &mut Pool,
        queue: &mut Queue,
    ) -> Result<Delivery, Failure> {
        for _ in 0..TURNS {
            if !self.has_packets() {
                return Ok(Delivery::Done);
            }
            if !pool.fill(queue)? {
                return Ok(Delivery::NoBuffers);
            }
            while let (Some(header), false) = (self.replies.front(), pool.is_empty()) {
                pool.give(header, queue);
                self.replies.pop_front();
            }
            if !pool.is_empty()
                && let Some(index) = self.ready.pop_front()
            {
                self.turn(index, pool, queue);
            }
        }
        Ok(if self.has_packets() { Delivery::More } else { Delivery::Done })
    }

    /// One connection's turn. There is one buffer at least.
    fn turn(&mut self, index: u32, pool: &mut Pool, queue: &mut Queue) {
        let Some(connection) = self.table.get(index) else { return };
        if !connection.state.contains(Socket::LISTED) {
            return;
        }
        connection.state.remove(Socket::LISTED);
        self.say(index, pool, queue);
        if !pool.is_empty() {
            self.data(index, pool, queue);
        }
        if !pool.is_empty() {
            self.farewell(index, pool, queue);
        }
        self.settle(index);
    }

    /// Packets without data.
    fn say(&mut self, index: u32, pool: &mut Pool, queue: &mut Queue) {
        const ORDER: [(Due, Op); 4] = [
            (Due::REQUEST, Op::Request),
            (Due::RESPONSE, Op::Response),
            (Due::CREDIT_UPDATE, Op::CreditUpdate),
            (Due::CREDIT_REQUEST, Op::CreditRequest),
        ];
        let Some(connection) = self.table.get(index) else { return };
        for (due, op) in ORDER {
            if connection.due.contains(due) && !pool.is_empty() {
                let header = connection.header(self.guest_cid, op);
                connection.due.remove(due);
                pool.give(&header, queue);
            }
        }
    }

    /// Data of the host, as much as one turn allows.
    fn data(&mut self, index: u32, pool: &mut Pool, queue: &mut Queue) {
        let Some(connection) = self.table.get(index) else { return };
        if !connection.has_data() || connection.credit.room() == 0 {
            return;
        }
        if connection.staged.is_empty() {
            match connection.key.kind {
                SocketKind::Stream => return self.stream(index, pool, queue),
                SocketKind::Seqpacket => self.stage(index),
            }
        }
        self.staged(index, pool, queue);
    }

    /// Straight from the socket into the guest's buffers.
    fn stream(&mut self, index: u32, pool: &mut Pool, queue: &mut Queue) {
        let guest_cid = self.guest_cid;
        let Some(connection) = self.table.get(index) else { return };
        let Some(socket) = connection.socket.clone() else { return };
        let limit = connection.credit.room().min(TURN);
        let received = pool.receive(socket.as_fd(), limit, queue, |length| Header {
            len: length.into(),
            ..connection.header(guest_cid, Op::Rw)
        });
        match received {
            Ok((0, _)) => self.ended(index),
            Ok((bytes, room)) => {
                connection.credit.sent(bytes);
                // Behind the rest of one who has left comes the end.
                if bytes < room && !connection.state.contains(Socket::HUNG_UP) {
                    connection.state.remove(Socket::READABLE);
                }
            }
            Err(error) => self.receive_failed(index, &error),
        }
    }

    /// Take a message from the socket.
    fn stage(&mut self, index: u32) {
        if self.scratch.is_empty() {
            self.scratch = vec![0; LONGEST_MESSAGE].into();
        }
        let Some(connection) = self.table.get(index) else { return };
        let Some(socket) = connection.socket.clone() else { return };
        match socket::receive(socket.as_fd(), &mut self.scratch) {
            Ok(0) => self.ended(index),
            Ok(bytes) if bytes > connection.credit.guest_buffer() as usize => {
                self.complaints.warn(format_args!(
                    "vsock: a connection ends, a message of {bytes} bytes is more than the guest takes"
                ));
                self.end(index, Tell::Guest);
            }
            Ok(bytes) => connection.staged.bytes.extend_from_slice(&self.scratch[..bytes]),
            Err(error) => self.receive_failed(index, &error),
        }
    }

    /// What was read before there was room for it.
    fn staged(&mut self, index: u32, pool: &mut Pool, queue: &mut Queue) {
        let guest_cid = self.guest_cid;
        let Some(connection) = self.table.get(index) else { return };
        let mut left = TURN;
        while !connection.staged.is_empty() && !pool.is_empty() {
            let staged = std::mem::take(&mut connection.staged);
            let whole = staged.left();
            let room = connection.credit.room().min(left) as usize;
            let part = &whole[..room.min(whole.len())];
            if part.is_empty() {
                connection.staged = staged;
                return;
            }
            let is_message = connection.key.kind == SocketKind::Seqpacket;
            let given = pool.copy(part, queue, |length| {
                let last = is_message && length as usize == whole.len();
                let flags = if last { END_OF_MESSAGE } else { 0 };
                let header = connection.header(guest_cid, Op::Rw);
                Header { len: length.into(), flags: flags.into(), ..header }
            });
            connection.credit.sent(given);
            connection.staged = staged;
            connection.staged.advance(given);
            left -= given;
        }
    }

    /// The host sends nothing more.
    fn ended(&mut self, index: u32) {
        let Some(connection) = self.table.get(index) else { return };
        connection.state.insert(Socket::ENDED);
        connection.state.remove(Socket::READABLE);
        connection.host |= Shut::SEND;
        if connection.state.contains(Socket::HUNG_UP) {
            self.host_left(index);
        }
    }

    fn receive_failed(&mut self, index: u32, error: &io::Error) {
        let Some(connection) = self.table.get(index) else { return };
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => {
                connection.state.remove(Socket::READABLE);
            }
            // It left without reading what it got.
            io::ErrorKind::ConnectionReset => self.host_left(index),
            _ => {
                self.complaints
                    .warn(format_args!("vsock: a connection ends, cannot receive: {error}"));
                self.end(index, Tell::Guest);
            }
        }
    }

    /// Tell the guest what the host does not do any more.
    fn farewell(&mut self, index: u32, pool: &mut Pool, queue: &mut Queue) {
        let Some(connection) = self.table.get(index) else { return };
        if !connection.is_open() || connection.host == connection.told {
            return;
        }
        connection.told = connection.host;
        let header = Header {
            flags: connection.host.bits().into(),
            ..connection.header(self.guest_cid, Op::Shutdown)
        };
        pool.give(&header, queue);
    }
}
