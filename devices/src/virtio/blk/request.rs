//! One request: what it asks for, checked, and how far it is.

use std::rc::Rc;

use executor::FallocateFlags;

use super::image::{Access, Discard, Geometry, ID_LENGTH, SECTOR_SIZE};
use super::protocol::{
    Header, Kind, MAX_DISCARD_SECTORS, MAX_RANGES, MAX_WRITE_ZEROES_SECTORS, RANGE_UNMAP,
    RangeSegment, STATUS_IOERR, STATUS_OK, STATUS_UNSUPP,
};
use crate::memory::GuestMemory;
use crate::simulation::{Bug, is_planted};
use crate::virtio::queue::{Chain, GuestBuffers, Pages, Side, StatusByte};

/// What a request does next. Each is one operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// No request.
    Idle,
    /// From the file at `offset` to what is left of the buffers.
    Read,
    /// The other way round.
    Write,
    /// Free or zero the range at this position of the list.
    Range(usize),
    /// Make what was written durable; the last step.
    Sync,
}

/// Where the data of a transfer goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Path {
    /// Straight between file and guest memory.
    Straight,
    /// Through host memory, a piece at a time: direct I/O cannot work on these buffers.
    Bounced,
}

/// A range to free or to zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) offset: u64,
    pub(super) length: u64,
    pub(super) method: Method,
}

/// How a range is freed or zeroed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    /// Free it, if the file can; the contents do not matter.
    Discard,
    /// Free it; it reads as zeroes.
    Punch,
    /// Zero it and keep its space.
    Zero,
    /// Write zeroes.
    Fill,
}

impl Method {
    /// The system's word for it, if it has one.
    pub(super) fn mode(self) -> Option<FallocateFlags> {
        let keep = FallocateFlags::KEEP_SIZE;
        match self {
            Self::Discard | Self::Punch => Some(FallocateFlags::PUNCH_HOLE | keep),
            Self::Zero => Some(FallocateFlags::ZERO_RANGE | keep),
            Self::Fill => None,
        }
    }

    /// What to do where the file cannot do this.
    pub(super) fn fallback(self) -> Option<Self> {
        match self {
            Self::Discard | Self::Fill => None,
            Self::Punch => Some(Self::Zero),
            Self::Zero => Some(Self::Fill),
        }
    }
}

/// What came of looking at a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Begun {
    /// It needs operations, the first of which is its [`Step`].
    Working,
    /// It is done with this status.
    Done(u8),
}

/// The place of a request while it is in flight; used again for each request with the same head.
#[derive(Debug)]
pub(super) struct Request {
    /// What it began with, if that was read.
    pub(super) header: Option<[u8; size_of::<Header>()]>,
    pub(super) step: Step,
    pub(super) path: Path,
    pub(super) status: Option<StatusByte>,
    /// Data that was not moved yet.
    pub(super) buffers: GuestBuffers,
    /// Where in the file it belongs.
    pub(super) offset: u64,
    /// Data bytes that the device wrote to guest memory.
    pub(super) written: u32,
    pub(super) ranges: Vec<Range>,
    /// Host memory between the operations of this request.
    pub(super) pages: Option<Pages>,
}

impl Request {
    pub(super) fn new(memory: &Rc<GuestMemory>) -> Self {
        Self {
            header: None,
            step: Step::Idle,
            path: Path::Straight,
            status: None,
            buffers: GuestBuffers::new(memory.clone()),
            offset: 0,
            written: 0,
            ranges: Vec::new(),
            pages: None,
        }
    }

    /// The bytes of a transfer that has just begun.
    pub(super) fn bytes_to_move(&self) -> u32 {
        match self.step {
            Step::Read | Step::Write => self.buffers.bytes(),
            Step::Idle | Step::Range(_) | Step::Sync => 0,
        }
    }

    /// Take over a chain whose status byte was already split off.
    pub(super) fn begin(
        &mut self,
        chain: &mut Chain,
        status: StatusByte,
        disk: &Geometry,
    ) -> Begun {
        self.status = Some(status);
        self.written = 0;
        self.header = if chain.outside().is_none() { chain.read_array() } else { None };
        let Some(bytes) = self.header else { return Begun::Done(STATUS_IOERR) };
        let header: Header = zerocopy::transmute!(bytes);
        match Kind::from(header.kind) {
            Kind::In => self.begin_transfer(chain, Side::Writable, header.sector, disk),
            Kind::Out => match disk.access {
                Access::ReadWrite => {
                    self.begin_transfer(chain, Side::Readable, header.sector, disk)
                }
                Access::ReadOnly => Begun::Done(STATUS_IOERR),
            },
            Kind::Flush if is_planted(Bug::FlushOrder) => Begun::Done(STATUS_OK),
            Kind::Flush => {
                self.step = Step::Sync;
                Begun::Working
            }
            Kind::GetId => self.get_id(chain, disk),
            kind @ (Kind::Discard | Kind::WriteZeroes) => self.begin_ranges(chain, kind, disk),
            Kind::Unknown => Begun::Done(STATUS_UNSUPP),
        }
    }

    fn begin_transfer(&mut self, chain: &Chain, side: Side, sector: u64, disk: &Geometry) -> Begun {
        let bytes = match side {
            Side::Readable => chain.readable_bytes(),
            Side::Writable => chain.writable_bytes(),
        };
        let Some(offset) = place(sector, u64::from(bytes), disk) else {
            return Begun::Done(STATUS_IOERR);
        };
        if bytes == 0 {
            return Begun::Done(STATUS_OK);
        }
        self.buffers.fill(chain, side);
        self.offset = offset;
        self.step = match side {
            Side::Readable => Step::Write,
            Side::Writable => Step::Read,
        };
        let alignment = disk.memory_alignment as usize;
        self.path = if alignment <= 1 || self.buffers.is_aligned_to(alignment) {
            Path::Straight
        } else {
            Path::Bounced
        };
        Begun::Working
    }

    fn get_id(&mut self, chain: &mut Chain, disk: &Geometry) -> Begun {
        if (chain.writable_bytes() as usize) < ID_LENGTH {
            return Begun::Done(STATUS_IOERR);
        }
        self.written = chain.write(&disk.id) as u32;
        Begun::Done(STATUS_OK)
    }

    fn begin_ranges(&mut self, chain: &mut Chain, kind: Kind, disk: &Geometry) -> Begun {
        if disk.access == Access::ReadOnly {
            return Begun::Done(STATUS_IOERR);
        }
        if kind == Kind::Discard && disk.discard == Discard::Unsupported {
            return Begun::Done(STATUS_UNSUPP);
        }
        let segment_size = size_of::<RangeSegment>() as u32;
        let count = chain.readable_bytes() / segment_size;
        if !chain.readable_bytes().is_multiple_of(segment_size)
            || !(1..=MAX_RANGES).contains(&count)
        {
            return Begun::Done(STATUS_IOERR);
        }
        self.ranges.clear();
        for _ in 0..count {
            let segment: [u8; size_of::<RangeSegment>()] =
                chain.read_array().expect("the length was just checked");
            let segment: RangeSegment = zerocopy::transmute!(segment);
            match check_range(segment, kind, disk) {
                Ok(range) => self.ranges.push(range),
                Err(status) => return Begun::Done(status),
            }
        }
        self.step = Step::Range(0);
        Begun::Working
    }
}

/// Where in the file a transfer starts. None if it is not of whole blocks or leaves the disk.
fn place(sector: u64, bytes: u64, disk: &Geometry) -> Option<u64> {
    let offset = sector.checked_mul(SECTOR_SIZE)?;
    let end = offset.checked_add(bytes)?;
    let block = u64::from(disk.block_size.bytes());
    let whole = offset.is_multiple_of(block) && bytes.is_multiple_of(block);
    (whole && end <= disk.size).then_some(offset)
}

fn check_range(segment: RangeSegment, kind: Kind, disk: &Geometry) -> Result<Range, u8> {
    let unmap = segment.flags & RANGE_UNMAP != 0;
    // Virtio 1.3 section 5.2.6.2: unknown flags, and unmap for a discard, are not supported.
    if segment.flags & !RANGE_UNMAP != 0 || (unmap && kind == Kind::Discard) {
        return Err(STATUS_UNSUPP);
    }
    let (most, method) = match (kind, unmap) {
        (Kind::Discard, _) => (MAX_DISCARD_SECTORS, Method::Discard),
        (_, true) => (MAX_WRITE_ZEROES_SECTORS, Method::Punch),
        (_, false) => (MAX_WRITE_ZEROES_SECTORS, Method::Zero),
    };
    let length = u64::from(segment.sectors) * SECTOR_SIZE;
    let offset = place(segment.sector, length, disk).ok_or(STATUS_IOERR)?;
    if segment.sectors == 0 || segment.sectors > most {
        return Err(STATUS_IOERR);
    }
    Ok(Range { offset, length, method })
}
