//! A disk: its configuration, and queues with a fixed number of requests each.
//!
//! ```text
//! slot s: header[s] 16 bytes | data[s], in one or more segments | status[s] 1 byte
//! ```

use alloc::{format, string::String, vec::Vec};

use crate::{
    cmdline::{RingLayout, RingWishes, Wish},
    platform::{mmio::Window, time},
    virtio::{
        feature,
        queue::{Buffer, Queue, Segment, Shape},
        transport::{Doorbell, Transport},
    },
};

pub(crate) const SECTOR_BYTES: u64 = 512;
/// How long a single request may take.
pub(crate) const PATIENCE_SECONDS: u64 = 30;

const FEATURE_READ_ONLY: u64 = 1 << 5;
const FEATURE_BLOCK_SIZE: u64 = 1 << 6;
const FEATURE_FLUSH: u64 = 1 << 9;
const FEATURE_MULTI_QUEUE: u64 = 1 << 12;

const CONFIG_CAPACITY: u64 = 0;
const CONFIG_BLOCK_SIZE: u64 = 20;
const CONFIG_QUEUES: u64 = 34;

const HEADER_BYTES: u64 = 16;
/// What a status byte holds until the device writes it.
const STATUS_NONE: u8 = 0xff;
/// Header, status, and the most data segments that the command line allows.
const SEGMENT_LIMIT: usize = 2 + 16;

/// Status bytes.
pub(crate) const STATUS_OK: u8 = 0;
pub(crate) const STATUS_IO_ERROR: u8 = 1;
pub(crate) const STATUS_UNSUPPORTED: u8 = 2;

/// Request types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    Read = 0,
    Write = 1,
    Flush = 4,
    Identify = 8,
    /// One that no specification has.
    Unknown = 0x7fff_fff0,
}

impl Request {
    fn data(self) -> Option<Buffer> {
        match self {
            Self::Read | Self::Identify => Some(Buffer::DeviceWrites),
            Self::Write => Some(Buffer::DeviceReads),
            Self::Flush | Self::Unknown => None,
        }
    }
}

/// How a disk is to be used.
#[derive(Clone, Copy)]
pub(crate) struct Use {
    pub(crate) rings: RingWishes,
    pub(crate) queues: u16,
    /// Requests in flight for each queue.
    pub(crate) slots: u16,
    /// Bytes of data of a request.
    pub(crate) data_bytes: u32,
    /// Data descriptors of a request.
    pub(crate) data_segments: u16,
}

pub(crate) struct Disk {
    pub(crate) transport: Transport,
    pub(crate) sectors: u64,
    pub(crate) block_bytes: u32,
    features: u64,
    pub(crate) lanes: Vec<Lane>,
}

impl Disk {
    /// Takes a device from reset to running.
    pub(crate) fn open(transport: Transport, wanted: Use) -> Result<Self, String> {
        let features =
            transport.negotiate(wanted_features(wanted.rings), required(wanted.rings))?;
        let has = |feature| features & feature != 0;
        let config = transport.device_config(CONFIG_CAPACITY + 8)?;
        // Two halves: the field is only promised to be readable so.
        let (low, high): (u32, u32) =
            (config.read(CONFIG_CAPACITY), config.read(CONFIG_CAPACITY + 4));
        let block_bytes = if has(FEATURE_BLOCK_SIZE) {
            transport.device_config(CONFIG_BLOCK_SIZE + 4)?.read(CONFIG_BLOCK_SIZE)
        } else {
            SECTOR_BYTES as u32
        };
        let queues: u16 = if has(FEATURE_MULTI_QUEUE) {
            transport.device_config(CONFIG_QUEUES + 2)?.read(CONFIG_QUEUES)
        } else {
            1
        };
        if wanted.queues > queues.min(transport.queue_count()) {
            return Err(format!("queues={} of {queues}", wanted.queues));
        }
        let mut lanes = Vec::new();
        for index in 0..wanted.queues {
            lanes.push(Lane::new(&transport, index, features, wanted)?);
        }
        transport.driver_ok()?;
        let sectors = u64::from(high) << 32 | u64::from(low);
        Ok(Self { transport, sectors, block_bytes, features, lanes })
    }

    pub(crate) fn is_read_only(&self) -> bool {
        self.features & FEATURE_READ_ONLY != 0
    }

    pub(crate) fn can_flush(&self) -> bool {
        self.features & FEATURE_FLUSH != 0
    }

    /// Carries out one request by itself and returns its status.
    pub(crate) fn execute(
        &mut self,
        request: Request,
        sector: u64,
        bytes: u32,
    ) -> Result<u8, String> {
        let lane = &mut self.lanes[0];
        lane.submit(0, request, sector, bytes);
        lane.kick();
        let mut finished = Ok(None);
        time::wait_for(PATIENCE_SECONDS, || {
            finished = lane.finished();
            !matches!(finished, Ok(None))
        });
        match finished? {
            Some((_, status)) => Ok(status),
            None if self.transport.needs_reset() => Err(format!("{request:?}: device needs reset")),
            None => Err(format!("{request:?}: no answer in {PATIENCE_SECONDS} s")),
        }
    }
}

/// A queue with its requests.
pub(crate) struct Lane {
    queue: Queue,
    doorbell: Doorbell,
    headers: Window,
    statuses: Window,
    data: Window,
    data_bytes: u32,
    data_segments: u16,
    /// Doorbells rung.
    pub(crate) kicks: u64,
}

impl Lane {
    fn new(transport: &Transport, index: u16, features: u64, wanted: Use) -> Result<Self, String> {
        let most = transport.queue_size(index);
        let shape = Shape::new(features, most, wanted.slots, wanted.data_segments + 2)?;
        let queue = Queue::new(shape);
        let doorbell = transport.enable_queue(index, &queue)?;
        let slots = usize::from(wanted.slots);
        Ok(Self {
            queue,
            doorbell,
            headers: Window::dma(slots * HEADER_BYTES as usize, 64),
            statuses: Window::dma(slots, 64),
            data: Window::dma(slots * wanted.data_bytes as usize, 4096),
            data_bytes: wanted.data_bytes,
            data_segments: wanted.data_segments,
            kicks: 0,
        })
    }

    /// The data of a slot.
    pub(crate) fn data(&self, slot: u16) -> Window {
        let bytes = u64::from(self.data_bytes);
        self.data.part(u64::from(slot) * bytes, bytes)
    }

    /// Makes a request available; `kick` tells the device of it.
    #[inline]
    pub(crate) fn submit(&mut self, slot: u16, request: Request, sector: u64, bytes: u32) {
        let header = u64::from(slot) * HEADER_BYTES;
        self.headers.write(header, request as u32);
        self.headers.write(header + 4, 0u32);
        self.headers.write(header + 8, sector);
        self.statuses.write(u64::from(slot), STATUS_NONE);

        let mut segments = [Segment {
            address: self.headers.physical() + header,
            length: HEADER_BYTES as u32,
            buffer: Buffer::DeviceReads,
        }; SEGMENT_LIMIT];
        let mut count = 1;
        if let Some(buffer) = request.data() {
            let address = self.data.physical() + u64::from(slot) * u64::from(self.data_bytes);
            // Equal parts of whole sectors; the last one takes what is left.
            let part =
                bytes / u32::from(self.data_segments) / SECTOR_BYTES as u32 * SECTOR_BYTES as u32;
            let parts = if part == 0 { 1 } else { u32::from(self.data_segments) };
            for index in 0..parts {
                let offset = part * index;
                let length = if index + 1 == parts { bytes - offset } else { part };
                let address = address + u64::from(offset);
                segments[count] = Segment { address, length, buffer };
                count += 1;
            }
        }
        segments[count] = Segment {
            address: self.statuses.physical() + u64::from(slot),
            length: 1,
            buffer: Buffer::DeviceWrites,
        };
        self.queue.add(slot, &segments[..=count]);
    }

    /// Rings the doorbell if the device wants that.
    #[inline]
    pub(crate) fn kick(&mut self) {
        if self.queue.needs_kick() {
            self.kicks += 1;
            self.doorbell.ring();
        }
    }

    /// The slot and the status of the next finished request.
    #[inline]
    pub(crate) fn finished(&mut self) -> Result<Option<(u16, u8)>, String> {
        let Some(used) = self.queue.pop()? else {
            return Ok(None);
        };
        Ok(Some((used.slot, self.statuses.read(u64::from(used.slot)))))
    }
}

fn wanted_features(rings: RingWishes) -> u64 {
    let mut wanted = FEATURE_READ_ONLY | FEATURE_BLOCK_SIZE | FEATURE_FLUSH | FEATURE_MULTI_QUEUE;
    if rings.indirect == Wish::IfOffered {
        wanted |= feature::INDIRECT_DESC;
    }
    if rings.event_idx == Wish::IfOffered {
        wanted |= feature::EVENT_IDX;
    }
    wanted
}

fn required(rings: RingWishes) -> u64 {
    match rings.layout {
        RingLayout::Split => 0,
        RingLayout::Packed => feature::RING_PACKED,
    }
}
