//! Sockets: programs of the host and of the guest, and streams between them.
//!
//! Nothing of a stream is lost, doubled or out of order, and neither side is sent more than it has room
//! for. A process that dies takes the connections with it, and the driver hears of that.

mod connection;
mod packet;

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};

use devices::virtio::backend::{BackendContext, DeviceProfile};
use devices::virtio::parts::Parts;
use devices::virtio::queue::InflightRegion;
use devices::virtio::queue::driver::{Buffer, Used};
use devices::virtio::vsock::{ConnectRequest, Refused, VsockOptions, VsockParts};
use executor::sim::Numbers;
use ipc::{Receiver, Sender};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, bind, connect,
    listen, recv, send, socket_with, socketpair,
};

use self::connection::{Connection, Phase, Way};
use self::packet::{
    CREDIT_REQUEST, CREDIT_UPDATE, GUEST, HEADER, Packet, REQUEST, RESPONSE, RST, RW, SHUTDOWN,
};
use super::crimes;
use crate::machine::{FREE, Machine};
use crate::model::{Crime, Model, Running, Succession};

const RX: usize = 0;
const TX: usize = 1;
const EVENT: usize = 2;

const PLACES: usize = 24;
const PLACE: u64 = 0x400;
const SENDS: u64 = FREE;
const BUFFERS: u64 = SENDS + PLACES as u64 * PLACE;
const BUFFER: u32 = 0x300;
const EVENTS: u64 = BUFFERS + PLACES as u64 * PLACE;
const EVENT_PLACES: usize = 4;
const UNUSED: u64 = EVENTS + 0x1000;

/// What programs of the guest listen on.
const GUEST_PORT: u32 = 1024;
/// Most connections that are not over.
const MOST: usize = 6;
const FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

/// A program of the host that waits for the guest's answer.
struct Dial {
    socket: OwnedFd,
    line: Vec<u8>,
}

/// See the module.
pub(super) struct Vsock {
    parts: VsockParts,
    address: SocketAddrUnix,
    _connects: Sender<ConnectRequest>,
    requests: Receiver<ConnectRequest>,
    connections: Vec<Connection>,
    dials: Vec<Dial>,
    /// What the guest has to send.
    outbox: VecDeque<Packet>,
    sends: [Option<(u16, usize)>; PLACES],
    buffers: [Option<u16>; PLACES],
    events: [Option<u16>; EVENT_PLACES],
    next: u64,
    /// The device has to say that connections are gone.
    owes_event: bool,
    /// The guest may be refused anything until then.
    before_event: bool,
    /// How often it may say so.
    successions: u32,
    /// So many of the next packets for the guest are of back ends that are gone.
    stale: u16,
}

fn listener(kind: SocketType) -> (OwnedFd, SocketAddrUnix) {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("sim-{}-{number}", std::process::id());
    let address = SocketAddrUnix::new_abstract_name(name.as_bytes()).expect("a short name");
    let socket = socket_with(AddressFamily::UNIX, kind, FLAGS, None).expect("a socket");
    bind(&socket, &address).expect("a new name");
    listen(&socket, 64).expect("a bound socket listens");
    (socket, address)
}

impl Vsock {
    pub(super) fn new() -> Self {
        let (stream, address) = listener(SocketType::STREAM);
        let (seqpacket, _) = listener(SocketType::SEQPACKET);
        let (connects, requests) = ipc::channel(16);
        let options = VsockOptions::new(GUEST);
        let parts =
            VsockParts::new(options, stream, seqpacket, connects.clone()).expect("good options");
        Self {
            parts,
            address,
            _connects: connects,
            requests,
            connections: Vec::new(),
            dials: Vec::new(),
            outbox: VecDeque::new(),
            sends: [None; PLACES],
            buffers: [None; PLACES],
            events: [None; EVENT_PLACES],
            next: 0,
            owes_event: false,
            before_event: false,
            successions: 0,
            stale: 0,
        }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Puts what the guest has to send into the queue.
    fn send_out(&mut self, machine: &mut Machine) {
        while let (Some(packet), Some(place)) =
            (self.outbox.front(), self.sends.iter().position(Option::is_none))
        {
            let (address, bytes) = (SENDS + place as u64 * PLACE, packet.bytes());
            let length = bytes.len() as u32;
            machine.write(address, &bytes);
            let mut buffers = vec![Buffer::Readable { address, length: HEADER as u32 }];
            if length as usize > HEADER {
                let (address, length) = (address + HEADER as u64, length - HEADER as u32);
                buffers.push(Buffer::Readable { address, length });
            }
            let Some(head) = machine.add(TX, &buffers, Some(address + PLACE - 0x80)) else {
                machine.wipe(address, PLACE as usize);
                return;
            };
            machine
                .sim
                .note("packet out", [packet.op.into(), packet.guest_port.into(), length.into()]);
            self.sends[place] = Some((head, bytes.len()));
            self.outbox.pop_front();
        }
    }

    fn give_buffers(&mut self, machine: &mut Machine, most: usize) {
        for _ in 0..most {
            let Some(place) = self.buffers.iter().position(Option::is_none) else { return };
            let address = BUFFERS + place as u64 * PLACE;
            let buffer = Buffer::Writable { address, length: BUFFER };
            self.buffers[place] = machine.add(RX, &[buffer], None);
            if self.buffers[place].is_none() {
                return;
            }
        }
    }

    fn give_event(&mut self, machine: &mut Machine) {
        if let Some(place) = self.events.iter().position(Option::is_none) {
            let buffer = Buffer::Writable { address: EVENTS + 64 * place as u64, length: 4 };
            self.events[place] = machine.add(EVENT, &[buffer], None);
        }
    }

    /// The VMM makes connections to programs of the host.
    fn serve_connects(&mut self, machine: &Machine) {
        while let Ok(ConnectRequest { port, kind: _, reply }) = self.requests.try_recv() {
            let known = self.connections.iter_mut().find(|connection| {
                connection.host_port == port && connection.phase == Phase::Asked
            });
            machine.sim.note("connect", [port.into(), u64::from(known.is_some()), 0]);
            // Every fifth port is one on which nobody listens.
            match known {
                Some(connection) if !port.is_multiple_of(5) => {
                    let (ours, theirs) =
                        socketpair(AddressFamily::UNIX, SocketType::STREAM, FLAGS, None)
                            .expect("a pair of sockets");
                    connection.host = Some(ours);
                    reply.send(Ok(theirs.into()));
                }
                Some(connection) => {
                    connection.doomed = true;
                    reply.send(Err(Refused));
                }
                None => reply.send(Err(Refused)),
            }
        }
    }

    /// Programs of the host that have called hear what came of it.
    fn hear_answers(&mut self) {
        let connections = &mut self.connections;
        self.dials.retain_mut(|dial| {
            let mut byte = [0];
            loop {
                match recv(&dial.socket, &mut byte, RecvFlags::DONTWAIT) {
                    Ok((0, _)) => return false,
                    Ok(_) if byte[0] != b'\n' => dial.line.push(byte[0]),
                    Ok(_) => break,
                    Err(rustix::io::Errno::AGAIN) => return true,
                    Err(_) => return false,
                }
            }
            let line = String::from_utf8_lossy(&dial.line).into_owned();
            let port = line.strip_prefix("OK ").and_then(|port| port.parse::<u32>().ok());
            let port = port.unwrap_or_else(|| panic!("a program of the host is told {line:?}"));
            // No process gives a port that another one gave.
            let connection = connections.iter_mut().find(|known| known.host_port == port);
            let connection = connection.expect("the guest has answered for this port");
            connection.host = Some(dial.socket.try_clone().expect("a descriptor"));
            false
        });
    }

    /// Nothing of any connection is to be expected any more.
    fn doom_all(&mut self) {
        for connection in &mut self.connections {
            connection.doomed = true;
        }
        // Programs of the host that call wait in the sockets, or see the end.
        self.outbox.clear();
    }

    fn pick(&mut self, random: &mut Numbers) -> Option<&mut Connection> {
        let mut open: Vec<_> = self
            .connections
            .iter_mut()
            .filter(|connection| connection.phase == Phase::Open && !connection.doomed)
            .collect();
        let chosen = random.below(open.len() as u64) as usize;
        (!open.is_empty()).then(|| open.swap_remove(chosen))
    }

    fn alive(&self) -> usize {
        let alive = self.connections.iter().filter(|known| !known.doomed);
        alive.filter(|known| known.phase != Phase::Closed).count() + self.dials.len()
    }

    fn guest_connects(&mut self, random: &mut Numbers) {
        let number = self.number();
        let room = random.within(40..1500) as u32;
        let (guest, host) = (10_000 + number as u32, 2000 + number as u32);
        let connection = Connection::new(number, guest, host, room);
        self.outbox.push_back(connection.packet(REQUEST));
        self.connections.push(connection);
    }

    fn host_connects(&mut self) {
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, FLAGS, None);
        let socket = socket.expect("a socket");
        if connect(&socket, &self.address).is_ok() {
            let line = format!("CONNECT {GUEST_PORT}\n");
            send(&socket, line.as_bytes(), SendFlags::NOSIGNAL).expect("a new socket has room");
            self.dials.push(Dial { socket, line: Vec::new() });
        }
    }

    /// A packet for the guest.
    fn arrived(&mut self, packet: &Packet) {
        let stale = self.stale > 0;
        self.stale = self.stale.saturating_sub(1);
        let known = self.connections.iter().rposition(|known| {
            (known.guest_port, known.host_port) == (packet.guest_port, packet.host_port)
                && known.phase != Phase::Closed
        });
        let Some(index) = known else {
            return self.arrived_for_nobody(packet, stale);
        };
        let before_event = self.before_event;
        let connection = &mut self.connections[index];
        if packet.op == RST {
            assert!(connection.doomed || before_event, "a good connection is reset");
            connection.phase = Phase::Closed;
            return;
        }
        connection.heard(packet);
        match (connection.phase, packet.op) {
            (Phase::Asked, RESPONSE) => connection.phase = Phase::Open,
            (Phase::Open, RW) => connection.arrived(&packet.data),
            (Phase::Open, CREDIT_UPDATE) => {}
            (Phase::Open, CREDIT_REQUEST) => {
                self.outbox.push_back(connection.packet(CREDIT_UPDATE));
            }
            (Phase::Open, SHUTDOWN) => {
                assert!(connection.host.is_none(), "a program that is there is said to be gone");
                if packet.flags & 3 == 3 {
                    let all = connection.received == connection.written;
                    assert!(all || connection.doomed, "the end came before the last byte");
                    connection.phase = Phase::Closed;
                    self.outbox.push_back(connection.packet(RST));
                }
            }
            (phase, op) => panic!("a packet {op} for a connection that is {phase:?}"),
        }
    }

    /// The same, if no connection is called that. Who is gone has taken its connections along.
    fn arrived_for_nobody(&mut self, packet: &Packet, stale: bool) {
        match packet.op {
            RST => {}
            REQUEST => {
                assert_eq!(packet.guest_port, GUEST_PORT, "the port that was asked for");
                let number = self.number();
                let room = 40 + (number as u32 * 97) % 1400;
                let mut connection =
                    Connection::new(number, packet.guest_port, packet.host_port, room);
                connection.heard(packet);
                connection.phase = Phase::Open;
                connection.doomed = stale;
                self.outbox.push_back(connection.packet(RESPONSE));
                self.connections.push(connection);
            }
            _ => {
                let unknown = Connection::new(0, packet.guest_port, packet.host_port, 0);
                self.outbox.push_back(unknown.packet(RST));
            }
        }
    }

    fn forget(&mut self, machine: &Machine) {
        self.sends = [None; PLACES];
        self.buffers = [None; PLACES];
        self.events = [None; EVENT_PLACES];
        let bytes = (UNUSED + 0x1000 - FREE) as usize;
        machine.wipe(FREE, bytes);
        self.doom_all();
        for connection in &mut self.connections {
            connection.phase = Phase::Closed;
        }
        self.owes_event = false;
        self.before_event = false;
        self.successions = 0;
        self.stale = 0;
    }
}

impl Model for Vsock {
    fn profile(&self) -> DeviceProfile {
        self.parts.profile()
    }

    fn start(&mut self, region: InflightRegion, context: BackendContext) -> Running {
        let parts = self.parts.try_clone().expect("descriptors");
        Box::pin(parts.run(Some(region), context))
    }

    fn act(&mut self, machine: &mut Machine, random: &mut Numbers) {
        self.serve_connects(machine);
        self.hear_answers();
        match random.below(20) {
            0 | 1 if self.alive() < MOST => self.guest_connects(random),
            2 if self.alive() < MOST => self.host_connects(),
            3..=6 => {
                let count = random.within(1..800);
                if let Some(connection) = self.pick(random) {
                    let count = count.min(connection.credit()).min(PLACE - 0x80 - HEADER as u64);
                    if count > 0 {
                        let data = connection.bytes(Way::ToHost, connection.sent, count);
                        connection.sent += count;
                        let packet = Packet { data, ..connection.packet(RW) };
                        self.outbox.push_back(packet);
                    }
                }
            }
            7..=10 => {
                let count = random.within(1..2500);
                if let Some(connection) = self.pick(random) {
                    connection.host_writes(count);
                }
            }
            11 | 12 => {
                let most = random.within(1..3000) as usize;
                if let Some(connection) = self.pick(random) {
                    connection.host_reads(most);
                }
            }
            13..=15 => {
                let count = random.within(1..1500);
                if let Some(connection) = self.pick(random) {
                    let waiting = connection.received - connection.consumed;
                    connection.consumed += count.min(waiting);
                    let packet = connection.packet(CREDIT_UPDATE);
                    self.outbox.push_back(packet);
                }
            }
            16 => self.give_event(machine),
            17 if random.once_in(4) => {
                if let Some(connection) = self.pick(random) {
                    // The guest's program is gone.
                    connection.phase = Phase::Closed;
                    let packet = connection.packet(RST);
                    self.outbox.push_back(packet);
                }
            }
            18 if random.once_in(4) => {
                if let Some(connection) = self.pick(random)
                    && connection.read == connection.sent
                {
                    // A program that reads all that it gets closes without an error.
                    connection.host = None;
                }
            }
            _ => self.give_buffers(machine, 6),
        }
        self.send_out(machine);
    }

    fn misbehave(&mut self, machine: &mut Machine, random: &mut Numbers) -> Option<Crime> {
        crimes::break_rings(machine, random, TX, UNUSED)
    }

    fn used(&mut self, machine: &mut Machine, queue: usize, used: Used) {
        match queue {
            TX => {
                let mut places = self.sends.iter_mut().enumerate();
                let (place, slot) = places
                    .find(|(_, slot)| slot.is_some_and(|(head, _)| head == used.head))
                    .expect("what comes back was sent");
                let (_, length) = slot.take().expect("it was just found");
                let address = SENDS + place as u64 * PLACE;
                machine.wipe(address, length);
                machine.wipe(address + PLACE - 0x80, 0x80);
                machine.assert_untouched(address, PLACE as usize, "a packet");
            }
            RX => {
                let place = self.buffers.iter().position(|head| *head == Some(used.head));
                let place = place.expect("what comes back was given");
                self.buffers[place] = None;
                assert!(used.written <= BUFFER, "more than there is room for");
                let address = BUFFERS + place as u64 * PLACE;
                let packet = Packet::parse(&machine.read(address, used.written as usize));
                machine.wipe(address, BUFFER as usize);
                machine.assert_untouched(address, PLACE as usize, "a buffer");
                let length = packet.data.len() as u64;
                machine.sim.note("packet in", [packet.op.into(), packet.guest_port.into(), length]);
                self.arrived(&packet);
            }
            _ => {
                let place = self.events.iter().position(|head| *head == Some(used.head));
                let place = place.expect("what comes back was given");
                self.events[place] = None;
                let address = EVENTS + 64 * place as u64;
                assert_eq!(used.written, 4, "an event has four bytes");
                assert_eq!(machine.read(address, 4), [0; 4], "the only event there is");
                machine.wipe(address, 4);
                machine.assert_untouched(address, 64, "an event");
                assert!(self.successions > 0, "nothing has happened to the connections");
                machine.sim.note("transport reset", [0; 3]);
                self.owes_event = false;
                self.successions -= 1;
                // There may be another one on its way, of a process that has died since.
                self.before_event = self.successions > 0;
                self.doom_all();
                for connection in &mut self.connections {
                    connection.phase = Phase::Closed;
                    connection.host = None;
                }
            }
        }
    }

    fn reset(&mut self, machine: &mut Machine) {
        self.forget(machine);
    }

    fn succeeded(&mut self, machine: &mut Machine, _how: Succession) {
        // The successor has done nothing yet.
        self.stale = machine.driver(RX).used_waiting();
        let lost = self.connections.iter().any(|known| known.phase == Phase::Open);
        self.owes_event |= lost;
        self.before_event = true;
        self.successions += 1;
        self.doom_all();
    }

    fn survives_without_record(&self) -> bool {
        // Buffers that were given and not used are in the record alone.
        false
    }

    fn wind_up(&mut self, machine: &mut Machine) -> bool {
        self.serve_connects(machine);
        self.hear_answers();
        self.give_buffers(machine, PLACES);
        self.give_event(machine);
        for connection in &mut self.connections {
            while connection.host_reads(4096) > 0 {}
            if connection.phase == Phase::Open
                && !connection.doomed
                && connection.consumed < connection.received
            {
                connection.consumed = connection.received;
                self.outbox.push_back(connection.packet(CREDIT_UPDATE));
            }
        }
        self.send_out(machine);
        self.left_behind().is_none()
    }

    fn left_behind(&self) -> Option<String> {
        if self.sends.iter().any(Option::is_some) || !self.outbox.is_empty() {
            return Some("packets of the guest".into());
        }
        if self.owes_event {
            return Some("the event that connections are gone".into());
        }
        if !self.dials.is_empty() && !self.before_event {
            return Some("a program of the host that calls".into());
        }
        let left = self.connections.iter().find(|connection| !connection.is_complete())?;
        Some(format!(
            "a connection that is {:?}: {} of {} bytes arrived at the guest, {} of {} at the host",
            left.phase, left.received, left.written, left.read, left.sent
        ))
    }

    fn finish(&mut self, machine: &mut Machine) {
        for (place, _) in self.buffers.iter().enumerate().filter(|(_, head)| head.is_some()) {
            machine.wipe(BUFFERS + place as u64 * PLACE, BUFFER as usize);
        }
        machine.assert_all_untouched();
    }
}
