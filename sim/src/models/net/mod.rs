//! A network: frames with numbers, over a socket that keeps them apart.
//!
//! Frames arrive at most once, in order and unchanged. After a crash those that were in flight may come
//! again, or never; a link that is down takes all of them.

mod frame;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use devices::virtio::backend::{BackendContext, DeviceProfile};
use devices::virtio::control::{Change, ControlRequest};
use devices::virtio::net::{LinkState, MacAddress, NetOptions, NetParts, Offloads, Tap};
use devices::virtio::parts::Parts;
use devices::virtio::queue::InflightRegion;
use devices::virtio::queue::driver::{Buffer, Used};
use executor::sim::Numbers;
use ipc::Reply;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair, sockopt,
};

use self::frame::{HEADER, parse, write};
use super::crimes;
use crate::machine::{FREE, Machine};
use crate::model::{Crime, Model, Running, Succession};

const RX: usize = 0;
const TX: usize = 1;
const CONTROL: usize = 2;

const FEATURE_MRG_RXBUF: u64 = 1 << 15;
const FEATURE_STATUS: u64 = 1 << 16;

const PLACES: usize = 32;
const PLACE: u64 = 0x800;
const SENDS: u64 = FREE;
const BUFFERS: u64 = SENDS + PLACES as u64 * PLACE;
const COMMAND: u64 = BUFFERS + PLACES as u64 * PLACE;
const UNUSED: u64 = COMMAND + 0x1000;
/// Room for any frame, as a driver without mergeable buffers has to give.
const WHOLE: u32 = 1600;

/// A frame that is on its way to the host.
struct Sent {
    head: u16,
    number: u64,
    length: u32,
}

/// A buffer for frames.
struct Given {
    head: u16,
    length: u32,
}

/// See the module.
pub(super) struct Net {
    parts: NetParts,
    peer: OwnedFd,
    sends: Vec<Option<Sent>>,
    buffers: Vec<Option<Given>>,
    command: Option<u16>,
    /// The last frame that the guest sent, and that the host saw.
    sent: u64,
    seen: u64,
    /// How many the host saw.
    arrived: u64,
    /// How often frames may come once more.
    again: BTreeMap<u64, u32>,
    /// The last frame that the host sent, that the guest got, and how many it got.
    written: u64,
    got: u64,
    received: u64,
    /// What is there of a frame that lies in several buffers, and how many of these are missing.
    partial: Vec<u8>,
    missing: u16,
    /// The guest gives buffers of which a frame takes several.
    small: bool,
    /// Frames may have been lost for a good reason.
    lossy: bool,
}

impl Net {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = Numbers::of(seed, 10);
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (own, peer) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
            .expect("a pair of sockets");
        if random.once_in(2) {
            // Full after few frames.
            sockopt::set_socket_send_buffer_size(&own, 8 << 10).expect("a size");
            sockopt::set_socket_send_buffer_size(&peer, 8 << 10).expect("a size");
        }
        let tap = Tap::from_sockets(vec![own], 1500, Offloads::empty()).expect("good sockets");
        let options = NetOptions { queue_size: 64, ..NetOptions::new(MacAddress(frame::GUEST)) };
        Self {
            parts: NetParts::new(tap, options).expect("good options"),
            peer,
            sends: (0..PLACES).map(|_| None).collect(),
            buffers: (0..PLACES).map(|_| None).collect(),
            command: None,
            sent: 0,
            seen: 0,
            arrived: 0,
            again: BTreeMap::new(),
            written: 0,
            got: 0,
            received: 0,
            partial: Vec::new(),
            missing: 0,
            small: random.once_in(2),
            lossy: false,
        }
    }

    fn guest_sends(&mut self, machine: &mut Machine, random: &mut Numbers) -> Option<()> {
        let place = self.sends.iter().position(Option::is_none)?;
        let address = SENDS + place as u64 * PLACE;
        let bytes = write(frame::HOST, frame::GUEST, self.sent + 1, random.below(1400) as usize);
        machine.write(address, &bytes);
        let length = bytes.len() as u32;
        // The header alone, or with some of the frame.
        let first = random.within(1..u64::from(length)) as u32;
        let mut buffers = vec![Buffer::Readable { address, length: first }];
        let rest = Buffer::Readable { address: address + u64::from(first), length: length - first };
        buffers.push(rest);
        let Some(head) = machine.add(TX, &buffers, Some(address + PLACE - 0x40)) else {
            machine.wipe(address, PLACE as usize);
            return None;
        };
        self.sent += 1;
        self.sends[place] = Some(Sent { head, number: self.sent, length });
        Some(())
    }

    fn host_sends(&mut self, random: &mut Numbers) {
        let bytes = write(frame::GUEST, frame::HOST, self.written + 1, random.below(1400) as usize);
        if send(&self.peer, &bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL).is_ok() {
            self.written += 1;
        }
    }

    /// The host takes what has arrived, or some of it.
    fn host_takes(&mut self, machine: &Machine, most: u64) -> bool {
        let mut buffer = vec![0; 4096];
        for _ in 0..most {
            let Ok((_, length)) = recv(&self.peer, &mut buffer, RecvFlags::DONTWAIT) else {
                return false;
            };
            let number = parse(&buffer[..length], frame::HOST, frame::GUEST);
            machine.sim.note("frame out", [number, length as u64, 0]);
            assert!(number <= self.sent, "frame {number} was never sent");
            self.arrived += 1;
            if number > self.seen {
                self.seen = number;
            } else {
                let left = self.again.get_mut(&number).filter(|left| **left > 0);
                let left = left
                    .unwrap_or_else(|| panic!("frame {number} arrives after frame {}", self.seen));
                *left -= 1;
            }
        }
        true
    }

    fn give(&mut self, machine: &mut Machine, random: &mut Numbers) {
        let Some(place) = self.buffers.iter().position(Option::is_none) else { return };
        let length = if self.small { random.within(200..1600) as u32 } else { WHOLE };
        self.give_one(machine, place, length);
    }

    fn give_one(&mut self, machine: &mut Machine, place: usize, length: u32) {
        let address = BUFFERS + place as u64 * PLACE;
        let head = machine.add(RX, &[Buffer::Writable { address, length }], None);
        self.buffers[place] = head.map(|head| Given { head, length });
    }

    /// A buffer with a frame, or with a part of one.
    fn guest_gets(&mut self, machine: &Machine, used: Used) {
        let place = self
            .buffers
            .iter()
            .position(|given| given.as_ref().is_some_and(|given| given.head == used.head));
        let place = place.expect("what comes back was given");
        let Given { length, .. } = self.buffers[place].take().expect("it was just found");
        assert!(used.written <= length, "more than there is room for");
        let address = BUFFERS + place as u64 * PLACE;
        let bytes = machine.read(address, used.written as usize);
        machine.wipe(address, length as usize);
        machine.assert_untouched(address, PLACE as usize, "a buffer");
        if self.missing == 0 {
            assert!(bytes.len() >= HEADER, "a frame without its header");
            self.missing = u16::from_le_bytes([bytes[10], bytes[11]]).max(1);
            self.partial.clear();
        }
        self.partial.extend(bytes);
        self.missing -= 1;
        if self.missing > 0 {
            return;
        }
        let number = parse(&self.partial, frame::GUEST, frame::HOST);
        machine.sim.note("frame in", [number, self.partial.len() as u64, 0]);
        assert!(number <= self.written, "frame {number} was never sent");
        assert!(number > self.got, "frame {number} arrives after frame {}", self.got);
        self.got = number;
        self.received += 1;
    }

    fn command(&mut self, machine: &mut Machine, random: &mut Numbers) {
        if self.command.is_some() {
            return;
        }
        // Promiscuous or not; frames are for the guest or for the host alone.
        machine.write(COMMAND, &[0, 0, random.below(2) as u8]);
        let buffers = [
            Buffer::Readable { address: COMMAND, length: 3 },
            Buffer::Writable { address: COMMAND + 16, length: 1 },
        ];
        self.command = machine.add(CONTROL, &buffers, None);
        if self.command.is_none() {
            machine.wipe(COMMAND, 32);
        }
    }
}

impl Model for Net {
    fn profile(&self) -> DeviceProfile {
        self.parts.profile()
    }

    fn droppable(&self) -> u64 {
        FEATURE_MRG_RXBUF | FEATURE_STATUS
    }

    fn begin(&mut self, machine: &mut Machine) {
        self.small &= machine.has(FEATURE_MRG_RXBUF);
        // A driver that is late with buffers loses frames that are larger than what it has given.
        self.lossy = self.small;
    }

    fn start(&mut self, region: InflightRegion, context: BackendContext) -> Running {
        let parts = self.parts.try_clone().expect("descriptors");
        Box::pin(parts.run(Some(region), context))
    }

    fn act(&mut self, machine: &mut Machine, random: &mut Numbers) {
        match random.below(12) {
            0..=3 => _ = self.guest_sends(machine, random),
            4..=6 => self.host_sends(random),
            7 => {
                let most = random.within(1..20);
                self.host_takes(machine, most);
            }
            8 if random.once_in(3) => self.command(machine, random),
            _ => {
                for _ in 0..4 {
                    self.give(machine, random);
                }
            }
        }
    }

    fn meanwhile(&mut self, machine: &mut Machine) {
        self.host_takes(machine, 100);
    }

    fn misbehave(&mut self, machine: &mut Machine, random: &mut Numbers) -> Option<Crime> {
        // A receive queue is looked at when a buffer is needed.
        let queue = *random.pick(&[TX, CONTROL]);
        crimes::break_rings(machine, random, queue, UNUSED)
    }

    fn used(&mut self, machine: &mut Machine, queue: usize, used: Used) {
        match queue {
            RX => self.guest_gets(machine, used),
            TX => {
                let place = self
                    .sends
                    .iter()
                    .position(|sent| sent.as_ref().is_some_and(|sent| sent.head == used.head));
                let place = place.expect("what comes back was sent");
                let sent = self.sends[place].take().expect("it was just found");
                assert_eq!(used.written, 0, "nothing is written to a frame that is sent");
                let address = SENDS + place as u64 * PLACE;
                machine.wipe(address, sent.length as usize);
                machine.wipe(address + PLACE - 0x40, 0x40);
                machine.assert_untouched(address, PLACE as usize, "a frame");
            }
            _ => {
                assert_eq!(self.command.take(), Some(used.head), "what comes back was sent");
                assert_eq!(used.written, 1, "an answer is one byte");
                assert_eq!(machine.read(COMMAND + 16, 1), [0], "the command is carried out");
                machine.wipe(COMMAND, 3);
                machine.wipe(COMMAND + 16, 1);
                machine.assert_untouched(COMMAND, 64, "a command");
            }
        }
    }

    fn control(&mut self, random: &mut Numbers) -> Option<ControlRequest> {
        self.lossy = true;
        let link = if random.once_in(2) { LinkState::Down } else { LinkState::Up };
        self.parts.remember(&Change::Link(link));
        let (reply, _) = Reply::pair();
        Some(ControlRequest::Change { change: Change::Link(link), reply })
    }

    fn reset(&mut self, machine: &mut Machine) {
        self.lossy = true;
        self.sends.fill_with(|| None);
        self.buffers.fill_with(|| None);
        self.command = None;
        self.partial.clear();
        self.missing = 0;
        machine.wipe(FREE, (UNUSED + 0x1000 - FREE) as usize);
    }

    fn succeeded(&mut self, _machine: &mut Machine, how: Succession) {
        if how == Succession::Crash {
            self.lossy = true;
            for sent in self.sends.iter().flatten() {
                *self.again.entry(sent.number).or_default() += 1;
            }
        }
    }

    fn survives_without_record(&self) -> bool {
        // Buffers that were given and not used are in the record alone.
        false
    }

    fn wind_up(&mut self, machine: &mut Machine) -> bool {
        for place in 0..PLACES {
            if self.buffers[place].is_none() {
                self.give_one(machine, place, WHOLE);
            }
        }
        while self.host_takes(machine, 100) {}
        self.lossy || (self.received == self.written && self.arrived == self.sent)
    }

    fn left_behind(&self) -> Option<String> {
        if let Some(sent) = self.sends.iter().flatten().next() {
            return Some(format!("frame {} of the guest", sent.number));
        }
        if self.command.is_some() {
            return Some("a command".into());
        }
        let lost = !self.lossy && (self.received, self.arrived) != (self.written, self.sent);
        lost.then(|| {
            format!(
                "frames: {} of {} arrived at the guest, {} of {} at the host",
                self.received, self.written, self.arrived, self.sent
            )
        })
    }

    fn finish(&mut self, machine: &mut Machine) {
        for (place, given) in self.buffers.iter().enumerate() {
            if let Some(Given { length, .. }) = given {
                machine.wipe(BUFFERS + place as u64 * PLACE, *length as usize);
            }
        }
        machine.assert_all_untouched();
    }
}
