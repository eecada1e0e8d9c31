//! Packets of the guest.

use std::io;
use std::os::fd::AsFd;

use super::connection::{Due, Key, Phase, Socket, SocketKind};
use super::hub::{Hub, Tell};
use super::outgoing::{Messages, Part};
use super::protocol::{END_OF_MESSAGE, END_OF_RECORD, HOST_CID, Header, Op, Shut};
use super::socket;
use crate::virtio::queue::{GuestBuffers, send_now};

/// When a packet was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// While all is well.
    Now,
    /// Before the driver was told that its connections are gone with a back end that died.
    BeforeReset,
}

impl Hub {
    /// A packet of the guest with what follows its header.
    pub(super) fn packet(&mut self, header: &Header, data: &mut GuestBuffers, taken: Taken) {
        if header.src_cid.get() != self.guest_cid {
            let cid = header.src_cid;
            return self.complaints.warn(format_args!("vsock: a packet claims to be from {cid}"));
        }
        let op = Op::from_number(header.op.get());
        let kind = SocketKind::from_number(header.kind.get())
            .filter(|kind| *kind == SocketKind::Stream || self.seqpacket);
        let (Some(kind), HOST_CID, Taken::Now) = (kind, header.dst_cid.get(), taken) else {
            return self.refuse(header, op);
        };
        let key = Key { guest_port: header.src_port.get(), host_port: header.dst_port.get(), kind };
        match (self.table.find(key), op) {
            (None, Some(Op::Request)) => self.on_request(key, header),
            (None, _) => self.refuse(header, op),
            (Some(index), Some(Op::Rst)) => self.end(index, Tell::Nobody),
            (Some(index), op) => self.on_packet(index, op, header, data),
        }
    }

    /// Answer a packet that belongs to no connection.
    fn refuse(&mut self, header: &Header, op: Option<Op>) {
        if op == Some(Op::Rst) {
            return;
        }
        self.replies.push_back(Header {
            src_cid: header.dst_cid,
            dst_cid: header.src_cid,
            src_port: header.dst_port,
            dst_port: header.src_port,
            kind: header.kind,
            op: (Op::Rst as u16).into(),
            ..Header::default()
        });
    }

    fn on_request(&mut self, key: Key, header: &Header) {
        let Some(id) = self.add(key, Phase::Connecting, None) else {
            self.complaints.warn(format_args!("vsock: the guest has too many connections"));
            return self.reply(key, Op::Rst);
        };
        self.table.name(id.index, key);
        if let Some(connection) = self.table.get(id.index) {
            // Nothing was sent yet, so this is no lie unless the count is not zero.
            let _ = connection.credit.heard(header.buf_alloc.get(), header.fwd_cnt.get());
        }
        self.connect(id, key);
    }

    fn on_packet(&mut self, index: u32, op: Option<Op>, header: &Header, data: &mut GuestBuffers) {
        let Some(connection) = self.table.get(index) else { return };
        if connection.credit.heard(header.buf_alloc.get(), header.fwd_cnt.get()).is_err() {
            return self.end(index, Tell::Guest);
        }
        if connection.credit.room() > 0 {
            connection.state.remove(Socket::BEGGED);
        }
        match (connection.phase, op) {
            (Phase::Asking, Some(Op::Response)) => self.on_response(index),
            (Phase::Open, Some(Op::Rw)) => return self.on_data(index, header, data),
            (Phase::Open | Phase::Asking, Some(Op::CreditUpdate)) => {}
            (Phase::Open, Some(Op::CreditRequest)) => connection.due.insert(Due::CREDIT_UPDATE),
            (Phase::Open, Some(Op::Shutdown)) => {
                connection.guest |= Shut::from_bits_truncate(header.flags.get());
            }
            // What no driver says here, a new connection on the ports of an old one, for example.
            _ => return self.end(index, Tell::Guest),
        }
        self.settle(index);
    }

    fn on_response(&mut self, index: u32) {
        let Some(connection) = self.table.get(index) else { return };
        let line = format!("OK {}\n", connection.key.host_port);
        connection.phase = Phase::Open;
        // Nothing was sent before, so there is room.
        let sent =
            connection.socket.as_ref().map(|socket| socket::send(socket.as_fd(), line.as_bytes()));
        if !matches!(sent, Some(Ok(bytes)) if bytes == line.len()) {
            self.end(index, Tell::Guest);
        }
    }

    fn on_data(&mut self, index: u32, header: &Header, data: &mut GuestBuffers) {
        let Some(connection) = self.table.get(index) else { return };
        let length = header.len.get();
        let waiting = connection.outgoing.len() as u64;
        if length > data.bytes()
            || connection.guest.contains(Shut::SEND)
            || waiting + u64::from(length) > u64::from(connection.credit.buffer())
        {
            return self.end(index, Tell::Guest);
        }
        data.truncate(length);
        let sent = if connection.state.contains(Socket::DEAF) {
            Ok(length)
        } else {
            match (&connection.socket, connection.key.kind.messages()) {
                (None, _) => return,
                // Nothing to send; an empty message would look like the end.
                _ if length == 0 => Ok(0),
                (Some(socket), Messages::None) if connection.outgoing.is_empty() => {
                    patient(send_now(socket.as_fd(), data))
                }
                (Some(socket), Messages::Kept)
                    if connection.outgoing.is_empty() && part(header) == Part::Last =>
                {
                    patient(send_now(socket.as_fd(), data))
                }
                _ => Ok(0),
            }
        };
        let sent = match sent {
            Ok(sent) => sent,
            Err(error) => {
                connection.credit.forwarded(length);
                self.send_failed(index, &error);
                return self.say_credit(index);
            }
        };
        connection.credit.forwarded(sent);
        data.advance(sent);
        let fits = match connection.key.kind.messages() {
            _ if data.bytes() == 0 && sent > 0 => true,
            Messages::None => {
                connection.outgoing.push(data);
                true
            }
            Messages::Kept => connection.outgoing.push_part(data, part(header)),
        };
        if !fits {
            self.complaints.warn(format_args!("vsock: too many messages wait for the host"));
            return self.end(index, Tell::Guest);
        }
        self.say_credit(index);
    }

    fn say_credit(&mut self, index: u32) {
        if let Some(connection) = self.table.get(index) {
            connection.say_credit();
        }
        self.settle(index);
    }
}

fn part(header: &Header) -> Part {
    match header.flags.get() & (END_OF_MESSAGE | END_OF_RECORD) {
        0 => Part::More,
        _ => Part::Last,
    }
}

/// A socket that is full takes nothing for now.
fn patient(result: io::Result<usize>) -> io::Result<u32> {
    match result {
        Ok(bytes) => Ok(bytes as u32),
        Err(error)
            if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) =>
        {
            Ok(0)
        }
        Err(error) => Err(error),
    }
}
