//! A network card: its configuration, its pairs of queues, and its control queue.

use alloc::{format, string::String, vec::Vec};

use super::{
    frame::{Head, Kind, Mac, Template},
    pair::{Pair, PairMemory},
};
use crate::{
    cmdline::{RingLayout, RingWishes, Wish},
    platform::{mmio::Window, time},
    virtio::{
        feature,
        queue::{Buffer, Queue, Segment, Shape},
        transport::{Doorbell, Transport},
    },
};

/// How long a single command or frame may take.
pub(crate) const PATIENCE_SECONDS: u64 = 30;

const FEATURE_MTU: u64 = 1 << 3;
const FEATURE_MAC: u64 = 1 << 5;
pub(crate) const FEATURE_MRG_RXBUF: u64 = 1 << 15;
const FEATURE_STATUS: u64 = 1 << 16;
const FEATURE_CTRL_VQ: u64 = 1 << 17;
pub(crate) const FEATURE_CTRL_RX: u64 = 1 << 18;
const FEATURE_CTRL_RX_EXTRA: u64 = 1 << 20;
const FEATURE_MQ: u64 = 1 << 22;
pub(crate) const FEATURE_CTRL_MAC_ADDR: u64 = 1 << 23;

const CONFIG_STATUS: u64 = 6;
const CONFIG_PAIRS: u64 = 8;
const CONFIG_MTU: u64 = 10;
const STATUS_LINK_UP: u16 = 1;

/// Whom the load's frames are for: whoever listens.
const PEER: Mac = [0x02, 0, 0, 0, 0, 0xfe];
/// The shortest frame of Ethernet.
pub(crate) const SHORTEST_FRAME: u32 = 60;

/// A command of the control queue: its class and its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Command(u8, u8);

impl Command {
    pub(crate) const PROMISCUOUS: Self = Self(0, 0);
    pub(crate) const ALL_MULTICAST: Self = Self(0, 1);
    pub(crate) const MAC_TABLE: Self = Self(1, 0);
    pub(crate) const MAC_ADDRESS: Self = Self(1, 1);
    pub(crate) const PAIRS: Self = Self(4, 0);
    /// One that no specification has.
    pub(crate) const UNKNOWN: Self = Self(0x7e, 0x11);
}

/// What a command is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Done,
    Refused,
}

/// How many pairs are used.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pairs {
    Exactly(u16),
    All,
}

/// Where an echo sends from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sending {
    OwnFrames,
    /// What lies in receive buffers.
    Echoes,
}

/// How a card is to be used.
#[derive(Clone, Copy)]
pub(crate) struct Use {
    pub(crate) rings: RingWishes,
    pub(crate) mergeable: Wish,
    pub(crate) pairs: Pairs,
    pub(crate) sending: Sending,
    /// Frames in flight for each transmit queue.
    pub(crate) transmit_slots: u16,
    /// Bytes of the longest frame that is sent.
    pub(crate) frame_bytes: u32,
    /// Bytes of a receive buffer, with the header.
    pub(crate) buffer_bytes: u32,
}

impl Use {
    pub(super) fn echo_slots(&self, receive_slots: u16) -> u16 {
        if self.sending == Sending::Echoes { receive_slots } else { 0 }
    }
}

pub(crate) struct Nic {
    pub(crate) transport: Transport,
    wanted: Use,
    features: u64,
    pub(crate) mac: Mac,
    /// Pairs that the device has.
    pub(crate) most_pairs: u16,
    pub(crate) pairs: Vec<Pair>,
    pub(crate) memory: Vec<PairMemory>,
    control: Option<Control>,
}

impl Nic {
    /// Takes a device from reset to running. No receive buffer is given to it yet.
    pub(crate) fn open(transport: Transport, wanted: Use) -> Result<Self, String> {
        let mut nic = Self {
            transport,
            wanted,
            features: 0,
            mac: [0; 6],
            most_pairs: 1,
            pairs: Vec::new(),
            memory: Vec::new(),
            control: None,
        };
        nic.bring_up()?;
        Ok(nic)
    }

    /// Resets the device, whatever it is doing, and starts it anew with the same buffers.
    pub(crate) fn bring_up(&mut self) -> Result<(), String> {
        let required = match self.wanted.rings.layout {
            RingLayout::Split => 0,
            RingLayout::Packed => feature::RING_PACKED,
        };
        let transport = &self.transport;
        self.features = transport.negotiate(wanted_features(&self.wanted), required)?;
        let features = self.features;
        let has = |feature| features & feature != 0;
        if !has(FEATURE_MAC) {
            return Err("it has no address".into());
        }
        self.mac = read_mac(&transport.device_config(6)?);
        self.most_pairs = if has(FEATURE_MQ) {
            transport.device_config(CONFIG_PAIRS + 2)?.read(CONFIG_PAIRS)
        } else {
            1
        };
        let count = match self.wanted.pairs {
            Pairs::All => self.most_pairs,
            Pairs::Exactly(count) => count,
        };
        if !(1..=self.most_pairs).contains(&count) {
            return Err(format!("queues={count} of {}", self.most_pairs));
        }
        while self.memory.len() < usize::from(count) {
            self.memory.push(PairMemory::new(&self.wanted));
        }
        let pair = |(index, memory): (u16, &PairMemory)| {
            Pair::new(transport, index, features, &self.wanted, *memory)
        };
        self.pairs = (0..count).zip(&self.memory).map(pair).collect::<Result<_, _>>()?;
        self.control = if has(FEATURE_CTRL_VQ) {
            Some(Control::new(transport, 2 * self.most_pairs, features)?)
        } else {
            None
        };
        transport.driver_ok()?;
        if count > 1 {
            self.expect(Command::PAIRS, &count.to_le_bytes(), Answer::Done)?;
        }
        Ok(())
    }

    pub(crate) fn has(&self, feature: u64) -> bool {
        self.features & feature != 0
    }

    pub(crate) fn has_control(&self) -> bool {
        self.control.is_some()
    }

    pub(crate) fn features(&self) -> u64 {
        self.features
    }

    /// Whether there is a link. A device that cannot tell has one.
    pub(crate) fn link_is_up(&self) -> Result<bool, String> {
        if !self.has(FEATURE_STATUS) {
            return Ok(true);
        }
        let status: u16 = self.transport.device_config(CONFIG_STATUS + 2)?.read(CONFIG_STATUS);
        Ok(status & STATUS_LINK_UP != 0)
    }

    pub(crate) fn mtu(&self) -> Result<Option<u16>, String> {
        if !self.has(FEATURE_MTU) {
            return Ok(None);
        }
        Ok(Some(self.transport.device_config(CONFIG_MTU + 2)?.read(CONFIG_MTU)))
    }

    /// The address as the device shows it now.
    pub(crate) fn current_mac(&self) -> Result<Mac, String> {
        Ok(read_mac(&self.transport.device_config(6)?))
    }

    /// Gives all receive buffers to the device.
    pub(crate) fn give_all(&mut self) {
        for pair in &mut self.pairs {
            for slot in 0..pair.receive_slots {
                pair.receiver.give(slot);
            }
            pair.receiver.kick();
        }
    }

    /// A frame to be sent again and again from a slot of a pair.
    pub(crate) fn template(&self, pair: usize, slot: u16, bytes: u32) -> Template {
        let frame = self.memory[pair].transmit.frame(slot, bytes);
        Template::new(frame, self.mac, PEER, (pair as u64) << 16 | u64::from(slot))
    }

    /// Sends one short frame from each pair that says so, and waits until they are done with.
    pub(crate) fn greet(&mut self) -> Result<(), String> {
        for index in 0..self.pairs.len() {
            let head = Head { stream: index as u16, kind: Kind::Hello, number: 0 };
            self.template(index, 0, SHORTEST_FRAME).fill(head);
            let (memory, transmitter) = (&self.memory[index], &mut self.pairs[index].transmitter);
            transmitter.send(0, &memory.transmit, 0, SHORTEST_FRAME);
            transmitter.kick();
            let mut finished = Ok(None);
            time::wait_for(PATIENCE_SECONDS, || {
                finished = transmitter.finished();
                !matches!(finished, Ok(None))
            });
            if finished?.is_none() {
                return Err(format!("a frame of pair {index} is not sent in {PATIENCE_SECONDS} s"));
            }
        }
        Ok(())
    }

    /// Carries out a command, which must be answered so.
    pub(crate) fn expect(
        &mut self,
        command: Command,
        data: &[u8],
        expected: Answer,
    ) -> Result<(), String> {
        let control = self.control.as_mut().ok_or("no control queue")?;
        match control.execute(command, data)? {
            answer if answer == expected => Ok(()),
            answer => Err(format!("{command:?} with {data:x?}: {answer:?}")),
        }
    }
}

/// The control queue (section 5.1.6.5), with one command at a time.
struct Control {
    queue: Queue,
    doorbell: Doorbell,
    memory: Window,
}

/// The answer comes first, then the command.
const ANSWER_AT: u64 = 0;
const COMMAND_AT: u64 = 8;
const CONTROL_BYTES: usize = 512;
const ANSWER_NONE: u8 = 0xff;

impl Control {
    fn new(transport: &Transport, index: u16, features: u64) -> Result<Self, String> {
        let shape = Shape::new(features, transport.queue_size(index), 1, 2)?;
        let queue = Queue::new(shape);
        let doorbell = transport.enable_queue(index, &queue)?;
        Ok(Self { queue, doorbell, memory: Window::dma(CONTROL_BYTES, 64) })
    }

    fn execute(&mut self, command: Command, data: &[u8]) -> Result<Answer, String> {
        self.memory.write(ANSWER_AT, ANSWER_NONE);
        let bytes = [command.0, command.1].into_iter().chain(data.iter().copied());
        for (at, byte) in bytes.enumerate() {
            self.memory.write(COMMAND_AT + at as u64, byte);
        }
        let start = self.memory.physical();
        let asked = Segment {
            address: start + COMMAND_AT,
            length: 2 + data.len() as u32,
            buffer: Buffer::DeviceReads,
        };
        let answer =
            Segment { address: start + ANSWER_AT, length: 1, buffer: Buffer::DeviceWrites };
        self.queue.add(0, &[asked, answer]);
        if self.queue.needs_kick() {
            self.doorbell.ring();
        }
        let mut finished = Ok(None);
        time::wait_for(PATIENCE_SECONDS, || {
            finished = self.queue.pop();
            !matches!(finished, Ok(None))
        });
        match finished? {
            None => Err(format!("{command:?}: no answer in {PATIENCE_SECONDS} s")),
            Some(_) => match self.memory.read(ANSWER_AT) {
                0u8 => Ok(Answer::Done),
                1 => Ok(Answer::Refused),
                other => Err(format!("{command:?}: answer {other:#x}")),
            },
        }
    }
}

fn read_mac(config: &Window) -> Mac {
    let mut mac = [0; 6];
    for (at, byte) in mac.iter_mut().enumerate() {
        *byte = config.read(at as u64);
    }
    mac
}

/// Buffers are single pieces of memory: indirect tables would only make them slower to find.
fn wanted_features(wanted: &Use) -> u64 {
    let mut features = FEATURE_MTU
        | FEATURE_MAC
        | FEATURE_STATUS
        | FEATURE_CTRL_VQ
        | FEATURE_CTRL_RX
        | FEATURE_CTRL_RX_EXTRA
        | FEATURE_CTRL_MAC_ADDR;
    if wanted.pairs != Pairs::Exactly(1) {
        features |= FEATURE_MQ;
    }
    if wanted.mergeable == Wish::IfOffered {
        features |= FEATURE_MRG_RXBUF;
    }
    if wanted.rings.event_idx == Wish::IfOffered {
        features |= feature::EVENT_IDX;
    }
    features
}
