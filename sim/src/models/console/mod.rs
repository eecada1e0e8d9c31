//! A console and ports with names, each with a program at either end.
//!
//! Bytes arrive in order, all of them and once. After a crash some that were being written may come
//! again, and some that were read for the guest may be lost. The guest hears of all ports, and of the
//! last size of the window.

mod line;
mod ports;
mod stream;

use devices::virtio::backend::{BackendContext, BackendEvent, DeviceProfile};
use devices::virtio::console::{ConsoleParts, PortEnd, PortRole, WindowSize};
use devices::virtio::control::{Change, ControlRequest};
use devices::virtio::parts::Parts;
use devices::virtio::queue::InflightRegion;
use devices::virtio::queue::driver::{Buffer, Used};
use executor::sim::Numbers;
use ipc::{Answer, Reply};

use self::line::{Capacity, Line};
use self::ports::{MESSAGE_BYTES, Ports};
use super::crimes;
use super::places::Places;
use crate::machine::{FREE, Machine};
use crate::model::{Crime, Model, Running, Succession};

const FEATURE_SIZE: u64 = 1 << 0;
const FEATURE_MULTIPORT: u64 = 1 << 1;

const CONTROL_RX: usize = 2;
const CONTROL_TX: usize = 3;

const PLACE: u64 = 0x400;
const PLACES: usize = 96;
const TABLE: u64 = PLACE - 0x40;
/// Most bytes of a buffer.
const MOST: u64 = 0x300;
/// Buffers of a queue at a time.
const DEPTH: usize = 10;

/// What the device has of the guest.
enum Request {
    /// Bytes from there on, of a port.
    Out { from: u64, bytes: u32 },
    /// Room for bytes of a port, in pieces.
    In(Vec<(u64, u32)>),
    /// A message.
    Say,
    /// Room for one.
    Hear,
}

/// See the module.
pub(super) struct Console {
    parts: ConsoleParts,
    lines: Vec<Line>,
    places: Places<Request>,
    ports: Ports,
    /// All ports are there, not the first alone.
    many: bool,
    /// Sizes that the window was given, and whether the last one is known to hold.
    sizes: Vec<WindowSize>,
    resize: Option<Answer<Result<(), String>>>,
    certain: bool,
}

fn rx(port: usize) -> usize {
    if port == 0 { 0 } else { 2 * port + 2 }
}

fn tx(port: usize) -> usize {
    rx(port) + 1
}

/// The port of a queue that is for bytes.
fn port_of(queue: usize) -> usize {
    if queue < 2 { 0 } else { queue / 2 - 1 }
}

impl Console {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = Numbers::of(seed, 10);
        let (mut lines, mut ends) = (Vec::new(), Vec::new());
        for port in 0..random.within(1..4) {
            let (line, own) = Line::new(port, *random.pick(&[Capacity::Small, Capacity::Usual]));
            let role = match port {
                0 => PortRole::Console,
                port => PortRole::Named(format!("port.{port}")),
            };
            ends.push((role, PortEnd::Both(own.into())));
            lines.push(line);
        }
        let roles = ends.iter().map(|(role, _)| role.clone()).collect();
        let window = WindowSize { columns: 80, rows: 25 };
        Self {
            parts: ConsoleParts::new(ends, window).expect("good ports"),
            lines,
            places: Places::new(FREE, PLACE, PLACES),
            ports: Ports::new(roles),
            many: false,
            sizes: vec![window],
            resize: None,
            certain: true,
        }
    }

    /// Ports that the driver uses.
    fn used_ports(&self) -> usize {
        if self.many { self.lines.len() } else { 1 }
    }

    fn has_room(&self, queue: usize) -> Option<u64> {
        if self.places.of(queue).count() < DEPTH { self.places.free() } else { None }
    }

    fn guest_writes(
        &mut self,
        machine: &mut Machine,
        random: &mut Numbers,
        port: usize,
    ) -> Option<()> {
        let (queue, place) = (tx(port), self.has_room(tx(port))?);
        let stream = &mut self.lines[port].to_host;
        let bytes = stream.bytes(random.within(1..MOST));
        machine.write(place, &bytes);
        let first = random.within(1..bytes.len() as u64 + 1) as u32;
        let rest = bytes.len() as u32 - first;
        let mut buffers = vec![Buffer::Readable { address: place, length: first }];
        if rest > 0 {
            let address = place + u64::from(first);
            buffers.push(Buffer::Readable { address, length: rest });
        }
        let head = machine.add(queue, &buffers, Some(place + TABLE));
        let request = Request::Out { from: stream.sent, bytes: bytes.len() as u32 };
        self.places.fill(machine, place, queue, head, request)?;
        stream.sent += bytes.len() as u64;
        Some(())
    }

    fn host_reads_all(&mut self) {
        for port in 0..self.lines.len() {
            while self.lines[port].host_reads(4096) {}
        }
    }

    fn give(&mut self, machine: &mut Machine, random: &mut Numbers, port: usize) -> Option<()> {
        let place = self.has_room(rx(port))?;
        let (mut at, mut pieces) = (place, Vec::new());
        for _ in 0..random.within(1..4) {
            let length = random.within(1..MOST / 4);
            pieces.push((at, length as u32));
            at += length + random.below(8);
        }
        self.give_pieces(machine, port, place, pieces)
    }

    fn give_pieces(
        &mut self,
        machine: &mut Machine,
        port: usize,
        place: u64,
        pieces: Vec<(u64, u32)>,
    ) -> Option<()> {
        let buffer = |&(address, length): &(u64, u32)| Buffer::Writable { address, length };
        let buffers: Vec<Buffer> = pieces.iter().map(buffer).collect();
        let head = machine.add(rx(port), &buffers, Some(place + TABLE));
        self.places.fill(machine, place, rx(port), head, Request::In(pieces))
    }

    /// The control queues: what the guest has to say, and room for what it has to hear.
    fn talk(&mut self, machine: &mut Machine) -> Option<()> {
        if !self.many {
            return None;
        }
        while self.places.of(CONTROL_RX).count() < 4 {
            let place = self.places.free()?;
            let buffer = Buffer::Writable { address: place, length: 100 };
            let head = machine.add(CONTROL_RX, &[buffer], None);
            self.places.fill(machine, place, CONTROL_RX, head, Request::Hear)?;
        }
        while let Some(message) = self.ports.outbox.front() {
            let place = self.has_room(CONTROL_TX)?;
            machine.write(place, &ports::bytes(*message));
            let buffer = Buffer::Readable { address: place, length: MESSAGE_BYTES as u32 };
            let head = machine.add(CONTROL_TX, &[buffer], None);
            self.places.fill(machine, place, CONTROL_TX, head, Request::Say)?;
            self.ports.outbox.pop_front();
        }
        Some(())
    }

    /// Whether the last size that was asked for holds.
    fn hear_answer(&mut self) {
        if let Some(answer) = self.resize.as_mut().and_then(Answer::try_take) {
            self.resize = None;
            self.certain = match answer {
                Ok(result) => result.is_ok(),
                // It died with the request.
                Err(_) => false,
            };
        }
    }

    fn is_told_the_size(&self) -> bool {
        let last = self.sizes.last();
        !self.many || !self.certain || self.ports.window.as_ref() == last
    }
}

impl Model for Console {
    fn profile(&self) -> DeviceProfile {
        self.parts.profile()
    }

    fn droppable(&self) -> u64 {
        FEATURE_SIZE | FEATURE_MULTIPORT
    }

    fn queues(&self, features: u64) -> usize {
        if features & FEATURE_MULTIPORT == 0 { 2 } else { 2 * self.lines.len() + 2 }
    }

    fn begin(&mut self, machine: &mut Machine) {
        self.many = machine.has(FEATURE_MULTIPORT);
        self.ports.start();
    }

    fn start(&mut self, region: InflightRegion, context: BackendContext) -> Running {
        let parts = self.parts.try_clone().expect("descriptors");
        Box::pin(parts.run(Some(region), context))
    }

    fn act(&mut self, machine: &mut Machine, random: &mut Numbers) {
        self.hear_answer();
        let port = random.below(self.used_ports() as u64) as usize;
        match random.below(14) {
            0..=3 => _ = self.guest_writes(machine, random, port),
            4..=6 => self.lines[port].host_writes(random.within(1..1000)),
            7 | 8 => _ = self.lines[port].host_reads(random.within(1..1500) as usize),
            9..=11 => _ = self.give(machine, random, port),
            12 if self.many && random.once_in(3) => self.ports.turn(port),
            _ => {}
        }
        self.talk(machine);
    }

    fn meanwhile(&mut self, _machine: &mut Machine) {
        self.host_reads_all();
    }

    fn misbehave(&mut self, machine: &mut Machine, random: &mut Numbers) -> Option<Crime> {
        // Nobody looks at buffers for input before there is some.
        let port = random.below(self.used_ports() as u64) as usize;
        let queue = if self.many && random.once_in(2) { CONTROL_TX } else { tx(port) };
        self.host_reads_all();
        crimes::break_rings(machine, random, queue, self.places.end())
    }

    fn used(&mut self, machine: &mut Machine, queue: usize, used: Used) {
        let (place, request) = self.places.take(queue, used.head);
        let mut ranges = vec![(place + TABLE, 0x40)];
        match request {
            Request::Out { bytes, .. } => {
                assert_eq!(used.written, 0, "nothing is written to what is sent");
                ranges.push((place, bytes));
            }
            Request::In(pieces) => {
                let read = |&(at, length): &(u64, u32)| machine.read(at, length as usize);
                let bytes: Vec<u8> = pieces.iter().flat_map(read).collect();
                let bytes = bytes.get(..used.written as usize);
                let bytes = bytes.expect("no more than there is room for");
                self.lines[port_of(queue)].to_guest.arrived_in_buffer(bytes);
                // One that died may have read more, which is lost.
                ranges.extend(pieces);
            }
            Request::Say => {
                assert_eq!(used.written, 0, "nothing is written to what is said");
                ranges.push((place, MESSAGE_BYTES as u32));
            }
            Request::Hear => {
                assert!(used.written <= 100, "more than there is room for");
                self.ports.heard(&machine.read(place, used.written as usize));
                ranges.push((place, used.written));
            }
        }
        self.places.left(machine, place, &ranges, "a console's buffer");
    }

    fn event(&mut self, _machine: &mut Machine, event: &BackendEvent) {
        if let BackendEvent::ConfigChanged { config } = event {
            let number = |at: usize| u16::from_le_bytes([config[at], config[at + 1]]);
            let size = WindowSize { columns: number(0), rows: number(2) };
            assert!(self.sizes.contains(&size), "nobody asked for {size:?}");
        }
    }

    fn control(&mut self, random: &mut Numbers) -> Option<ControlRequest> {
        self.hear_answer();
        if self.resize.is_some() {
            return None;
        }
        let number = self.sizes.len() as u16;
        let size = WindowSize { columns: 100 + number, rows: random.within(1..90) as u16 };
        self.sizes.push(size);
        let (reply, answer) = Reply::pair();
        (self.resize, self.certain) = (Some(answer), false);
        Some(ControlRequest::Change { change: Change::Window(size), reply })
    }

    fn reset(&mut self, machine: &mut Machine) {
        self.host_reads_all();
        for line in &mut self.lines {
            // Of what was not answered any part may have arrived, and has by now.
            line.to_host.begin_anew();
            // What was read and not given is lost.
            line.to_guest.may_be_anywhere_further();
        }
        let end = self.places.end();
        self.places.clear(machine);
        machine.wipe(end, crimes::BYTES);
        self.ports.start();
    }

    fn succeeded(&mut self, machine: &mut Machine, how: Succession) {
        self.hear_answer();
        if how == Succession::Handover {
            return;
        }
        self.host_reads_all();
        for port in 0..self.used_ports() {
            let answered = usize::from(machine.driver(tx(port)).used_waiting());
            let out = |request: &Request| match request {
                Request::Out { from, .. } => Some(*from),
                _ => None,
            };
            let mut waiting: Vec<u64> = self.places.of(tx(port)).filter_map(out).collect();
            waiting.sort_unstable();
            let line = &mut self.lines[port];
            // What was not answered is written again, or what is left of it.
            if let Some(oldest) = waiting.get(answered).copied() {
                line.to_host.may_be_from(oldest);
            }
            line.to_guest.may_be_lost_behind(machine.driver(rx(port)).used_waiting());
        }
    }

    fn survives_without_record(&self) -> bool {
        // Buffers that were given and not used are in the record alone.
        false
    }

    fn wind_up(&mut self, machine: &mut Machine) -> bool {
        self.hear_answer();
        self.host_reads_all();
        self.ports.open_all();
        for port in 0..self.used_ports() {
            while let Some(place) = self.has_room(rx(port)) {
                let pieces = vec![(place, MOST as u32)];
                if self.give_pieces(machine, port, place, pieces).is_none() {
                    break;
                }
            }
        }
        self.talk(machine);
        true
    }

    fn left_behind(&self) -> Option<String> {
        let out = |request: &Request| matches!(request, Request::Out { .. } | Request::Say);
        let left = self.places.all().filter(|(_, request)| out(request)).count();
        if left > 0 || (self.many && !self.ports.outbox.is_empty()) {
            return Some(format!("{left} buffers of the guest"));
        }
        if let Some(port) = self.ports.unknown().filter(|_| self.many) {
            return Some(format!("the guest does not know port {port}"));
        }
        if self.resize.is_some() || !self.is_told_the_size() {
            let (heard, last) = (self.ports.window, self.sizes.last());
            return Some(format!("the window's size: {heard:?} instead of {last:?}"));
        }
        for (port, line) in self.lines.iter().take(self.used_ports()).enumerate() {
            if !line.to_host.is_complete() || !line.to_guest.is_complete() {
                return Some(format!("bytes of port {port}"));
            }
        }
        None
    }

    fn finish(&mut self, machine: &mut Machine) {
        self.places.clear(machine);
        machine.assert_all_untouched();
    }
}
