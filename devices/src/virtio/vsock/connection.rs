//! One connection.
//!
//! ```text
//!   host:   accepted ─► Greeting ─ CONNECT ─► Asking ─ RESPONSE ─┐
//!   guest:  REQUEST ──────────► Connecting ── socket of the VMM ─┴─► Open ─► (gone)
//! ```
//!
//! A slot whose connection is gone stays taken until the kernel has let go of its socket.

use bitflags::bitflags;
use executor::Fd;

use super::credit::Credit;
use super::greeting::Greeting;
use super::outgoing::{Messages, Outgoing};
use super::protocol::{HOST_CID, Header, Op, Shut};

/// The kind of sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum SocketKind {
    /// A stream of bytes (`SOCK_STREAM`).
    Stream,
    /// Messages in order (`SOCK_SEQPACKET`).
    Seqpacket,
}

impl SocketKind {
    pub(super) fn from_number(number: u16) -> Option<Self> {
        match number {
            1 => Some(Self::Stream),
            2 => Some(Self::Seqpacket),
            _ => None,
        }
    }

    pub(super) fn number(self) -> u16 {
        match self {
            Self::Stream => 1,
            Self::Seqpacket => 2,
        }
    }

    pub(super) fn messages(self) -> Messages {
        match self {
            Self::Stream => Messages::None,
            Self::Seqpacket => Messages::Kept,
        }
    }
}

/// What names a connection. The contexts are always the guest and the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) guest_port: u32,
    pub(super) host_port: u32,
    pub(super) kind: SocketKind,
}

impl Key {
    /// A packet to the guest that says nothing but what it is for.
    pub(super) fn header(self, guest_cid: u64, op: Op) -> Header {
        Header {
            src_cid: HOST_CID.into(),
            dst_cid: guest_cid.into(),
            src_port: self.host_port.into(),
            dst_port: self.guest_port.into(),
            kind: self.kind.number().into(),
            op: (op as u16).into(),
            ..Header::default()
        }
    }
}

/// Where a connection stands.
#[derive(Debug, Clone, Copy)]
pub(super) enum Phase {
    /// A host program has to say which port it wants.
    Greeting(Greeting, SocketKind),
    /// The guest was asked.
    Asking,
    /// The VMM connects to a host program.
    Connecting,
    /// Data flows.
    Open,
    /// The connection is gone; operations on its socket are not.
    Gone,
}

bitflags! {
    /// What is to be said to the guest, in the order of saying.
    #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
    pub(super) struct Due: u8 {
        const REQUEST = 1 << 0;
        const RESPONSE = 1 << 1;
        const CREDIT_UPDATE = 1 << 2;
        const CREDIT_REQUEST = 1 << 3;
    }

    /// What is known of the socket, and what waits for it.
    #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
    pub(super) struct Socket: u16 {
        /// A receive call may bring something.
        const READABLE = 1 << 0;
        /// Nothing more comes from the host.
        const ENDED = 1 << 1;
        /// The host takes nothing any more.
        const DEAF = 1 << 2;
        /// An operation waits for something to read.
        const WAITS_IN = 1 << 3;
        /// An operation waits for room to write.
        const WAITS_OUT = 1 << 4;
        /// It is in the list of those that have something for the guest.
        const LISTED = 1 << 5;
        /// The guest was asked for credit and did not answer yet.
        const BEGGED = 1 << 6;
        /// What the guest has to say no more was passed on.
        const SHUT_WRITE = 1 << 7;
        const SHUT_READ = 1 << 8;
        /// The host's program is gone; what it sent may still be there.
        const HUNG_UP = 1 << 9;
    }
}

/// Bytes for the guest that were read and not delivered: messages, and what came behind a greeting.
#[derive(Debug, Default)]
pub(super) struct Staged {
    pub(super) bytes: Vec<u8>,
    pub(super) done: usize,
}

impl Staged {
    pub(super) fn left(&self) -> &[u8] {
        &self.bytes[self.done..]
    }

    pub(super) fn is_empty(&self) -> bool {
        self.done == self.bytes.len()
    }

    /// So many more are delivered.
    pub(super) fn advance(&mut self, bytes: u32) {
        self.done += bytes as usize;
        if self.is_empty() {
            *self = Self::default();
        }
    }
}

/// A connection, or what is left of one.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) key: Key,
    pub(super) phase: Phase,
    pub(super) socket: Option<Fd>,
    pub(super) state: Socket,
    pub(super) credit: Credit,
    pub(super) outgoing: Outgoing,
    pub(super) staged: Staged,
    pub(super) due: Due,
    /// What the guest does not do any more.
    pub(super) guest: Shut,
    /// What the guest has to know that the host does not do any more, and what it was told.
    pub(super) host: Shut,
    pub(super) told: Shut,
}

impl Connection {
    pub(super) fn new(key: Key, phase: Phase, socket: Option<Fd>, buffer: u32) -> Self {
        Self {
            key,
            phase,
            socket,
            state: Socket::empty(),
            credit: Credit::new(buffer),
            outgoing: Outgoing::default(),
            staged: Staged::default(),
            due: Due::empty(),
            guest: Shut::empty(),
            host: Shut::empty(),
            told: Shut::empty(),
        }
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open)
    }

    /// A packet to the guest, which always says how credit stands.
    pub(super) fn header(&mut self, guest_cid: u64, op: Op) -> Header {
        let (buffer, forwarded) = self.credit.tell();
        self.due.remove(Due::CREDIT_UPDATE);
        Header {
            buf_alloc: buffer.into(),
            fwd_cnt: forwarded.into(),
            ..self.key.header(guest_cid, op)
        }
    }

    /// Tell the guest how credit stands, if it has to know.
    pub(super) fn say_credit(&mut self) {
        if self.is_open() && self.credit.is_stale(self.outgoing.end()) {
            self.due.insert(Due::CREDIT_UPDATE);
        }
    }

    /// Whether there is data of the host that the guest wants.
    pub(super) fn has_data(&self) -> bool {
        self.is_open()
            && !self.guest.contains(Shut::RECEIVE)
            && (!self.staged.is_empty() || self.state.contains(Socket::READABLE))
    }

    /// Whether there is something for the guest that it can take.
    pub(super) fn has_work(&self) -> bool {
        !self.due.is_empty()
            || self.has_data() && self.credit.room() > 0
            || self.is_open() && self.host != self.told
    }
}
