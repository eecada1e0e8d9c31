//! What the queues of a device share: its connections, and what they wait for.
//!
//! Whatever happens to a connection ends in [`Hub::settle`], which starts the operations that it
//! needs and lists it when it has something for the guest.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use executor::{Fd, Instant, Op as Operation, OpSet, PollFlags, Sleep, TaskGroup};
use ipc::{Deadline, Sender};
use rustix::net::Shutdown;

use super::connection::{Connection, Due, Key, Phase, Socket, SocketKind};
use super::parts::ConnectRequest;
use super::protocol::{Header, Op, Shut};
use super::socket;
use super::table::{Id, Table};
use crate::log_limit::LogLimit;

/// For how long a host program may keep its greeting to itself, or the guest its answer. Linux
/// gives a connecting socket two seconds.
pub(super) const OPENING: Duration = Duration::from_secs(10);
/// The VMM answers earlier than that.
const CONNECTING: Duration = Duration::from_secs(15);

/// Packets for the guest about connections that do not exist. With more, nothing is taken from the
/// transmit queue until the guest gives buffers to receive.
const MOST_REPLIES: usize = 256;

/// The longest message of a guest, which is also all that may wait: less than what a Unix socket
/// takes with the buffer that it has by default (`net.core.wmem_default`, 208 KiB).
const LONGEST_FROM_GUEST: u32 = 192 << 10;

/// What an operation waits for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Waited {
    Listener(usize),
    In(u32),
    Out(u32),
}

/// A socket of the host on which programs ask for connections to the guest.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) socket: Fd,
    pub(super) kind: SocketKind,
    pub(super) waits: bool,
    /// It could not accept, and nothing has ended since.
    pub(super) stalled: bool,
}

/// Who else hears of an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tell {
    Guest,
    Nobody,
}

/// All of a device but its queues.
#[derive(Debug)]
pub(super) struct Hub {
    me: Weak<RefCell<Hub>>,
    pub(super) guest_cid: u64,
    /// Messages were negotiated.
    pub(super) seqpacket: bool,
    /// What each connection may have waiting for the host.
    pub(super) buffer: u32,
    pub(super) table: Table,
    /// Those that have something for the guest, in turn.
    pub(super) ready: VecDeque<u32>,
    pub(super) replies: VecDeque<Header>,
    pub(super) operations: OpSet<Waited>,
    pub(super) listeners: Vec<Listener>,
    connects: Sender<ConnectRequest>,
    tasks: TaskGroup,
    deadlines: VecDeque<(Instant, Id)>,
    sleep: Option<Sleep>,
    pub(super) next_port: u32,
    waker: Option<Waker>,
    /// Room for a message.
    pub(super) scratch: Box<[u8]>,
    pub(super) complaints: LogLimit,
}

impl Hub {
    pub(super) fn new(
        guest_cid: u64,
        connections: usize,
        buffer: u32,
        seqpacket: bool,
        sockets: &super::Sockets,
    ) -> Rc<RefCell<Self>> {
        let listeners = sockets.listeners.iter().map(|(socket, kind)| Listener {
            socket: socket.clone(),
            kind: *kind,
            waits: false,
            stalled: false,
        });
        let listeners = listeners.collect::<Vec<_>>();
        Rc::new_cyclic(|me| {
            RefCell::new(Self {
                me: me.clone(),
                guest_cid,
                seqpacket,
                buffer,
                table: Table::new(connections),
                ready: VecDeque::new(),
                replies: VecDeque::new(),
                // Each connection waits for two things at most, also one that is gone.
                operations: OpSet::with_capacity(2 * connections + listeners.len()),
                listeners,
                connects: sockets.connects.clone(),
                tasks: TaskGroup::new(),
                deadlines: VecDeque::new(),
                sleep: None,
                next_port: super::FIRST_HOST_PORT | (executor::random() >> 34) as u32,
                waker: None,
                scratch: Box::default(),
                complaints: LogLimit::new(),
            })
        })
    }

    /// Whether packets of the guest can be answered.
    pub(super) fn can_reply(&self) -> bool {
        self.replies.len() < MOST_REPLIES
    }

    /// Whether there is anything for the guest.
    pub(super) fn has_packets(&self) -> bool {
        !self.replies.is_empty() || !self.ready.is_empty()
    }

    pub(super) fn remember_waker(&mut self, context: &Context<'_>) {
        match &mut self.waker {
            Some(waker) => waker.clone_from(context.waker()),
            None => self.waker = Some(context.waker().clone()),
        }
    }

    /// Handle what has happened on sockets, and deadlines.
    pub(super) fn take_events(&mut self, context: &mut Context<'_>) {
        while let Poll::Ready((waited, result)) = self.operations.poll_next(context) {
            let found =
                result.map_or(PollFlags::ERR, |bits| PollFlags::from_bits_truncate(bits as _));
            match waited {
                Waited::Listener(index) => {
                    self.listeners[index].waits = false;
                    self.accept(index);
                }
                Waited::In(index) => self.on_readable(index, found),
                Waited::Out(index) => self.on_writable(index),
            }
        }
        self.end_overdue(context);
        self.listen();
    }

    fn listen(&mut self) {
        if self.table.is_full() {
            return;
        }
        for (index, listener) in self.listeners.iter_mut().enumerate() {
            if !listener.waits && !listener.stalled {
                listener.waits = true;
                let operation = Operation::poll(&listener.socket, PollFlags::IN);
                let submitted = self.operations.submit(operation, Waited::Listener(index));
                submitted.expect("there is room for one operation of each listener");
            }
        }
    }

    fn on_readable(&mut self, index: u32, found: PollFlags) {
        let Some(connection) = self.table.get(index) else { return };
        connection.state.remove(Socket::WAITS_IN);
        match connection.phase {
            Phase::Gone => self.table.release(index),
            Phase::Greeting(..) => self.greet(index),
            _ => {
                if found.intersects(PollFlags::HUP | PollFlags::ERR) {
                    connection.state.insert(Socket::HUNG_UP);
                }
                let is_read = !connection.guest.contains(Shut::RECEIVE)
                    && !connection.state.contains(Socket::ENDED);
                if is_read {
                    connection.state.insert(Socket::READABLE);
                } else if connection.state.contains(Socket::HUNG_UP) {
                    self.host_left(index);
                }
                self.settle(index);
            }
        }
    }

    /// The host program takes nothing and sends nothing any more.
    pub(super) fn host_left(&mut self, index: u32) {
        let Some(connection) = self.table.get(index) else { return };
        connection.state.insert(Socket::ENDED | Socket::DEAF | Socket::HUNG_UP);
        connection.state.remove(Socket::READABLE);
        connection.host = Shut::all();
        let lost = connection.outgoing.clear();
        connection.credit.forwarded(lost);
    }

    /// The host program takes nothing any more; it may still send.
    pub(super) fn host_deaf(&mut self, index: u32) {
        let Some(connection) = self.table.get(index) else { return };
        connection.state.insert(Socket::DEAF);
        connection.host |= Shut::RECEIVE;
        let lost = connection.outgoing.clear();
        connection.credit.forwarded(lost);
    }

    fn on_writable(&mut self, index: u32) {
        let Some(connection) = self.table.get(index) else { return };
        connection.state.remove(Socket::WAITS_OUT);
        if matches!(connection.phase, Phase::Gone) {
            return self.table.release(index);
        }
        let Some(socket) = &connection.socket else { return };
        match connection.outgoing.flush(socket.as_fd(), connection.key.kind.messages()) {
            Ok(bytes) => {
                connection.credit.forwarded(bytes);
                connection.say_credit();
            }
            Err(error) => return self.send_failed(index, &error),
        }
        self.settle(index);
    }

    /// A socket did not take data for another reason than that it is full.
    pub(super) fn send_failed(&mut self, index: u32, error: &std::io::Error) {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe | std::io::ErrorKind::ConnectionReset => {
                self.host_deaf(index);
                self.settle(index);
            }
            _ => {
                self.complaints.warn(format_args!(
                    "vsock: a connection ends, the host does not take: {error}"
                ));
                self.end(index, Tell::Guest);
            }
        }
    }

    /// Bring a connection in order after something has happened to it.
    pub(super) fn settle(&mut self, index: u32) {
        let Some(connection) = self.table.get(index) else { return };
        if connection.is_open() {
            let drained = !connection.outgoing.has_work(connection.key.kind.messages());
            if drained && connection.guest == Shut::all() {
                return self.end(index, Tell::Guest);
            }
            let Some(socket) = connection.socket.clone() else { return };
            let state = &mut connection.state;
            if drained
                && connection.guest.contains(Shut::SEND)
                && !state.contains(Socket::SHUT_WRITE)
            {
                state.insert(Socket::SHUT_WRITE);
                socket::shut(socket.as_fd(), Shutdown::Write);
            }
            if connection.guest.contains(Shut::RECEIVE) && !state.contains(Socket::SHUT_READ) {
                state.insert(Socket::SHUT_READ);
                state.remove(Socket::READABLE);
                connection.staged = super::connection::Staged::default();
                socket::shut(socket.as_fd(), Shutdown::Read);
            }
            if !drained && !state.intersects(Socket::DEAF | Socket::WAITS_OUT) {
                state.insert(Socket::WAITS_OUT);
                self.wait(&socket, PollFlags::OUT, Waited::Out(index));
            }
        }
        self.settle_input(index);
    }

    fn settle_input(&mut self, index: u32) {
        let Some(connection) = self.table.get(index) else { return };
        let dry = connection.has_data() && connection.credit.room() == 0;
        if dry && !connection.state.contains(Socket::BEGGED) {
            connection.state.insert(Socket::BEGGED);
            connection.due.insert(Due::CREDIT_REQUEST);
        }
        if !connection.state.contains(Socket::LISTED) && connection.has_work() {
            connection.state.insert(Socket::LISTED);
            self.ready.push_back(index);
        }
        let known = connection.state.intersects(Socket::READABLE | Socket::HUNG_UP);
        let reads =
            !connection.state.contains(Socket::ENDED) && !connection.guest.contains(Shut::RECEIVE);
        let waits_for = match connection.phase {
            Phase::Open if known => return,
            // A hang-up is always reported.
            Phase::Open if !reads => PollFlags::empty(),
            Phase::Open | Phase::Greeting(..) => PollFlags::IN,
            _ => return,
        };
        if connection.state.contains(Socket::WAITS_IN) {
            return;
        }
        if let Some(socket) = connection.socket.clone() {
            connection.state.insert(Socket::WAITS_IN);
            self.wait(&socket, waits_for, Waited::In(index));
        }
    }

    fn wait(&mut self, socket: &Fd, flags: PollFlags, waited: Waited) {
        let submitted = self.operations.submit(Operation::poll(socket, flags), waited);
        submitted.expect("there is room for two operations of each connection");
    }

    /// Add a packet about something that is no connection.
    pub(super) fn reply(&mut self, key: Key, op: Op) {
        self.replies.push_back(key.header(self.guest_cid, op));
    }

    /// The connection is over.
    pub(super) fn end(&mut self, index: u32, tell: Tell) {
        let Some(connection) = self.table.get(index) else { return };
        let key = connection.key;
        if let Some(socket) = connection.socket.take() {
            // Also ends the operations that wait on it.
            socket::shut(socket.as_fd(), Shutdown::Both);
        }
        self.table.end(index);
        if tell == Tell::Guest {
            self.reply(key, Op::Rst);
        }
        for listener in &mut self.listeners {
            listener.stalled = false;
        }
    }

    /// A connection that is not open yet shall not be on its way for ever.
    pub(super) fn expire_later(&mut self, id: Id) {
        self.deadlines.push_back((executor::now() + OPENING, id));
    }

    fn end_overdue(&mut self, context: &mut Context<'_>) {
        while let Some((due, id)) = self.deadlines.front().copied() {
            let phase = self.table.get_by_id(id).map(|connection| connection.phase);
            let tell = match phase {
                Some(Phase::Greeting(..)) => Tell::Nobody,
                Some(Phase::Asking) => Tell::Guest,
                _ => {
                    self.deadlines.pop_front();
                    continue;
                }
            };
            if executor::now() < due {
                let sleep = match &mut self.sleep {
                    Some(sleep) if sleep.deadline() == due => sleep,
                    other => other.insert(executor::sleep_until(due)),
                };
                if Future::poll(std::pin::Pin::new(sleep), context).is_pending() {
                    return;
                }
            }
            self.deadlines.pop_front();
            self.sleep = None;
            self.end(id.index, tell);
        }
    }

    /// Have the VMM connect to a program of the host.
    pub(super) fn connect(&mut self, id: Id, key: Key) {
        let (me, connects) = (self.me.clone(), self.connects.clone());
        self.tasks.spawn(async move {
            let (port, kind) = (key.host_port, key.kind);
            let make = |reply| ConnectRequest { port, kind, reply };
            let socket = match connects.call(make, Deadline::after(CONNECTING)).await {
                Ok(Ok(socket)) => Fd::unregistered(socket).ok(),
                Ok(Err(_)) | Err(_) => None,
            };
            if let Some(hub) = me.upgrade() {
                hub.borrow_mut().connected(id, socket);
            }
        });
    }

    fn connected(&mut self, id: Id, socket: Option<Fd>) {
        let Some(connection) = self.table.get_by_id(id) else { return };
        match socket {
            Some(socket) => {
                connection.socket = Some(socket);
                connection.phase = Phase::Open;
                connection.due.insert(Due::RESPONSE);
                self.settle(id.index);
            }
            None => self.end(id.index, Tell::Guest),
        }
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }

    /// A new connection, if there is room for one more.
    pub(super) fn add(&mut self, key: Key, phase: Phase, socket: Option<Fd>) -> Option<Id> {
        let buffer = match key.kind {
            SocketKind::Stream => self.buffer,
            SocketKind::Seqpacket => self.buffer.min(LONGEST_FROM_GUEST),
        };
        self.table.insert(Connection::new(key, phase, socket, buffer))
    }
}
