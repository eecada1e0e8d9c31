//! A pair of queues with their buffers.
//!
//! ```text
//! slot s of a queue:  4 bytes of nothing | header 12 bytes | frame
//! ```
//!
//! The frame is aligned to 8 bytes so. Buffers outlive the queues: a device that was reset gets them
//! again.

use alloc::{format, string::String};

use super::nic::Use;
use crate::{
    platform::mmio::Window,
    virtio::{
        queue::{Buffer, Queue, Segment, Shape},
        transport::{Doorbell, Transport},
    },
};

/// The header before each frame (section 5.1.6).
pub(crate) const HEADER_BYTES: u32 = 12;
const NUM_BUFFERS: u64 = 10;
/// Where a header starts in its slot.
const HEADER_AT: u64 = 4;
const FRAME_AT: u64 = HEADER_AT + HEADER_BYTES as u64;
/// The most receive buffers of a queue.
const RECEIVE_SLOTS: u16 = 1024;
/// The longest frame of several buffers.
const LONGEST: usize = 128 << 10;

/// Buffers of one size.
#[derive(Clone, Copy)]
pub(crate) struct Buffers {
    memory: Window,
    stride: u64,
    /// Bytes of each, with the header.
    bytes: u32,
}

impl Buffers {
    fn new(slots: u16, bytes: u32) -> Self {
        let stride = (u64::from(bytes) + HEADER_AT).next_multiple_of(64);
        let memory = Window::dma(usize::from(slots) * stride as usize, 4096);
        Self { memory, stride, bytes }
    }

    /// The frame of a slot.
    #[inline]
    pub(crate) fn frame(&self, slot: u16, bytes: u32) -> Window {
        self.memory.part(u64::from(slot) * self.stride + FRAME_AT, u64::from(bytes))
    }

    /// All that a device writes into a slot.
    #[inline]
    fn whole(&self, slot: u16) -> Window {
        self.memory.part(u64::from(slot) * self.stride + HEADER_AT, u64::from(self.bytes))
    }

    /// The piece of memory with the header and so many bytes after it.
    #[inline]
    fn segment(&self, slot: u16, bytes: u32, buffer: Buffer) -> Segment {
        let address = self.memory.physical() + u64::from(slot) * self.stride + HEADER_AT;
        Segment { address, length: HEADER_BYTES + bytes, buffer }
    }
}

/// The transmit queue of a pair.
pub(crate) struct Transmitter {
    queue: Queue,
    doorbell: Doorbell,
    pub(crate) kicks: u64,
}

impl Transmitter {
    /// Makes a frame of so many bytes available. Its header asks for nothing.
    #[inline]
    pub(crate) fn send(&mut self, slot: u16, buffers: &Buffers, from: u16, bytes: u32) {
        let header = buffers.whole(from);
        for at in [0, 4, 8] {
            header.write(at, 0u32);
        }
        self.queue.add(slot, &[buffers.segment(from, bytes, Buffer::DeviceReads)]);
    }

    /// The slot of the next frame that is done with.
    #[inline]
    pub(crate) fn finished(&mut self) -> Result<Option<u16>, String> {
        Ok(self.queue.pop()?.map(|used| used.slot))
    }

    #[inline]
    pub(crate) fn kick(&mut self) {
        if self.queue.needs_kick() {
            self.kicks += 1;
            self.doorbell.ring();
        }
    }
}

/// How a frame came.
#[derive(Clone, Copy)]
pub(crate) enum Received {
    /// In the buffer of a slot, to be given back.
    InSlot(u16, Window),
    /// In several, which are given back already.
    Merged(Window),
}

/// The receive queue of a pair.
pub(crate) struct Receiver {
    queue: Queue,
    doorbell: Doorbell,
    pub(crate) buffers: Buffers,
    mergeable: bool,
    scratch: Window,
    /// Buffers that the frame in `scratch` still lacks, and its bytes so far.
    lacking: u16,
    gathered: u64,
    pub(crate) kicks: u64,
}

impl Receiver {
    /// Gives a buffer to the device.
    #[inline]
    pub(crate) fn give(&mut self, slot: u16) {
        let bytes = self.buffers.bytes - HEADER_BYTES;
        self.queue.add(slot, &[self.buffers.segment(slot, bytes, Buffer::DeviceWrites)]);
    }

    /// The next frame.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<Received>, String> {
        while let Some(used) = self.queue.pop()? {
            let (slot, written) = (used.slot, used.written);
            if written > self.buffers.bytes {
                return Err(format!(
                    "{written} bytes in a receive buffer of {}",
                    self.buffers.bytes
                ));
            }
            let whole = self.buffers.whole(slot);
            if self.lacking > 0 {
                self.gather(&whole.part(0, u64::from(written)))?;
                self.give(slot);
                self.lacking -= 1;
                if self.lacking == 0 {
                    return Ok(Some(Received::Merged(self.scratch.part(0, self.gathered))));
                }
                continue;
            }
            if written < HEADER_BYTES {
                return Err(format!("a frame of {written} bytes with its header"));
            }
            let count: u16 = if self.mergeable { whole.read(NUM_BUFFERS) } else { 1 };
            let frame = self.buffers.frame(slot, written - HEADER_BYTES);
            match count {
                0 => return Err("a frame in 0 buffers".into()),
                1 => return Ok(Some(Received::InSlot(slot, frame))),
                _ => {
                    self.gathered = 0;
                    self.gather(&frame)?;
                    self.give(slot);
                    self.lacking = count - 1;
                }
            }
        }
        Ok(None)
    }

    #[inline]
    pub(crate) fn kick(&mut self) {
        if self.queue.needs_kick() {
            self.kicks += 1;
            self.doorbell.ring();
        }
    }

    /// Puts a piece behind what was gathered.
    fn gather(&mut self, piece: &Window) -> Result<(), String> {
        if self.gathered + piece.length() > self.scratch.length() {
            return Err(format!("a frame of more than {LONGEST} bytes"));
        }
        let to = self.scratch.part(self.gathered, piece.length());
        let mut at = 0;
        if self.gathered.is_multiple_of(4) {
            while at + 4 <= piece.length() {
                to.write(at, piece.read::<u32>(at));
                at += 4;
            }
        }
        for at in at..piece.length() {
            to.write(at, piece.read::<u8>(at));
        }
        self.gathered += piece.length();
        Ok(())
    }
}

/// Memory of a pair, made once.
#[derive(Clone, Copy)]
pub(crate) struct PairMemory {
    receive: Buffers,
    pub(crate) transmit: Buffers,
    scratch: Window,
}

impl PairMemory {
    pub(crate) fn new(wanted: &Use) -> Self {
        Self {
            receive: Buffers::new(RECEIVE_SLOTS, wanted.buffer_bytes),
            transmit: Buffers::new(wanted.transmit_slots, HEADER_BYTES + wanted.frame_bytes),
            scratch: Window::dma(LONGEST, 64),
        }
    }
}

pub(crate) struct Pair {
    pub(crate) receiver: Receiver,
    pub(crate) transmitter: Transmitter,
    /// Buffers of the receive queue.
    pub(crate) receive_slots: u16,
}

impl Pair {
    /// Sets up both queues; no buffer is with the device yet.
    pub(crate) fn new(
        transport: &Transport,
        index: u16,
        features: u64,
        wanted: &Use,
        memory: PairMemory,
    ) -> Result<Self, String> {
        let queue = |index: u16, slots: u16| -> Result<(Queue, Doorbell), String> {
            let shape = Shape::new(features, transport.queue_size(index), slots, 1)?;
            let queue = Queue::new(shape);
            let doorbell = transport.enable_queue(index, &queue)?;
            Ok((queue, doorbell))
        };
        let receive_slots = transport.queue_size(2 * index).min(RECEIVE_SLOTS);
        let (receive, receive_bell) = queue(2 * index, receive_slots)?;
        // An echo sends from any receive buffer.
        let transmit_slots = wanted.transmit_slots.max(wanted.echo_slots(receive_slots));
        let (transmit, transmit_bell) = queue(2 * index + 1, transmit_slots)?;
        Ok(Self {
            receiver: Receiver {
                queue: receive,
                doorbell: receive_bell,
                buffers: memory.receive,
                mergeable: features & super::nic::FEATURE_MRG_RXBUF != 0,
                scratch: memory.scratch,
                lacking: 0,
                gathered: 0,
                kicks: 0,
            },
            transmitter: Transmitter { queue: transmit, doorbell: transmit_bell, kicks: 0 },
            receive_slots,
        })
    }
}
