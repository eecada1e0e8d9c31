//! What the short forms of [`crate::stream`] say: requests of disks like those before.

use std::borrow::Cow;

use crate::record::{Began, Given, Operation, Piece, Record};

/// Slots that shapes are remembered in.
pub(crate) const SLOTS: usize = 64;
/// Pieces of a shape that is worth to be remembered.
const MOST_PIECES: usize = 20;
/// Bytes of the headers that are meant: what to do, then at which sector.
pub(crate) const KIND_BYTES: usize = 8;
const SECTOR_SHIFT: u32 = 9;
/// What queues are called in one word with other things.
const MOST_QUEUES: u16 = 1 << 6;
const QUEUE_SHIFT: u32 = 16;
const SLOT_SHIFT: u32 = 22;
const READ_SHIFT: u32 = 22;

/// All of a request but its place, and who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shape {
    kind: [u8; KIND_BYTES],
    began: Option<(Operation, u64)>,
    pieces: Vec<Piece>,
}

/// A request as far as the short form can say it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request<'a> {
    kind: [u8; KIND_BYTES],
    sector: u32,
    began: Option<(Operation, u64)>,
    pieces: &'a [Piece],
    queue: u16,
    head: u16,
}

impl<'a> Request<'a> {
    /// None if only the long form can.
    #[inline]
    pub(crate) fn of(record: &'a Record<'_>) -> Option<Self> {
        let Record::Taken { queue, head, header, pieces, began } = record else { return None };
        let (kind, sector) = header.split_first_chunk::<KIND_BYTES>()?;
        let sector = u64::from_le_bytes(sector.try_into().ok()?);
        let is_there = began.is_none_or(|began| began.offset == place(began.operation, sector));
        let sector = u32::try_from(sector).ok()?;
        if !is_there || *queue >= MOST_QUEUES || pieces.len() > MOST_PIECES {
            return None;
        }
        let began = began.map(|began| (began.operation, began.length));
        Some(Self { kind: *kind, sector, began, pieces, queue: *queue, head: *head })
    }

    /// The slot that is its own, shared with others that have the same sum.
    #[inline]
    pub(crate) fn slot(&self) -> usize {
        let start = u64::from_le_bytes(self.kind) ^ (self.pieces.len() as u64) << 32;
        let sum = self
            .pieces
            .iter()
            .fold(start, |sum, piece| sum.wrapping_mul(31).wrapping_add(u64::from(piece.length)));
        (sum.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - SLOTS.ilog2())) as usize
    }

    #[inline]
    pub(crate) fn is_like(&self, shape: &Shape) -> bool {
        self.kind == shape.kind && self.began == shape.began && self.pieces == shape.pieces
    }

    pub(crate) fn shape(&self) -> Shape {
        Shape { kind: self.kind, began: self.began, pieces: self.pieces.to_vec() }
    }

    /// What the short form says: the names, and the sector.
    #[inline]
    pub(crate) fn words(&self, slot: usize) -> (u32, u32) {
        let names = (slot as u32) << SLOT_SHIFT | queue_and_head_bits(self.queue, self.head);
        (names, self.sector)
    }

    /// What it is beside its pieces and its names.
    #[inline]
    pub(crate) fn kind(&self) -> ([u8; KIND_BYTES], Option<(Operation, u64)>) {
        (self.kind, self.began)
    }

    /// The words of [`given_words`] when all of it is done. None if nothing is moved for it.
    #[inline]
    pub(crate) fn hope(&self) -> Option<(u32, u32)> {
        hope(self.began?, self.queue, self.head)
    }
}

/// What is said of a request that does what it was to do, by the operation that began with it.
#[inline]
fn hope((operation, length): (Operation, u64), queue: u16, head: u16) -> Option<(u32, u32)> {
    let read = match operation {
        Operation::Read => 1,
        Operation::Write => 0,
        Operation::Range | Operation::Sync => return None,
    };
    let length = u32::try_from(length).ok()?;
    Some((read << READ_SHIFT | queue_and_head_bits(queue, head), length))
}

/// The same names with another head.
#[inline]
pub(crate) fn with_head(names: u32, head: u16) -> u32 {
    names & !u32::from(u16::MAX) | u32::from(head)
}

/// Sectors of a transfer. None if nothing is moved.
#[inline]
pub(crate) fn unit(began: Option<(Operation, u64)>) -> Option<u32> {
    let (Operation::Read | Operation::Write, length) = began? else { return None };
    u32::try_from(length >> SECTOR_SHIFT).ok().filter(|sectors| *sectors > 0)
}

/// Where in its file an operation begins that a request for this sector asks for.
pub(crate) fn place(operation: Operation, sector: u64) -> u64 {
    match operation {
        Operation::Sync => 0,
        Operation::Read | Operation::Write | Operation::Range => sector.wrapping_shl(SECTOR_SHIFT),
    }
}

/// Shapes that a reader remembers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Slots(Vec<Option<Shape>>);

impl Slots {
    /// None if there is no such slot.
    pub(crate) fn remember(&mut self, slot: usize, shape: Shape) -> Option<()> {
        self.0.resize(SLOTS, None);
        *self.0.get_mut(slot)? = Some(shape);
        Some(())
    }

    /// A request like one that was remembered.
    pub(crate) fn taken(&self, names: u32, sector: u32) -> Option<Record<'static>> {
        let shape = self.shape(names)?;
        let sector = u64::from(sector);
        let header = [shape.kind, sector.to_le_bytes()].concat();
        let began = shape.began.map(|(operation, length)| Began {
            operation,
            offset: place(operation, sector),
            length,
        });
        let (queue, head) = queue_and_head(names);
        let pieces = Cow::Owned(shape.pieces.clone());
        Some(Record::Taken { queue, head, header: header.into(), pieces, began })
    }

    /// A request like one that was remembered, with another name, for the sectors that are the number's when the
    /// disk is cut into pieces of its length.
    pub(crate) fn taken_near(&self, names: u32, number: u32) -> Option<Record<'static>> {
        let unit = unit(self.shape(names)?.began)?;
        self.taken(names, number.checked_mul(unit)?)
    }

    /// The same given back after it did what it was to do.
    pub(crate) fn given(&self, names: u32) -> Option<Record<'static>> {
        let (queue, head) = queue_and_head(names);
        let (names, bytes) = hope(self.shape(names)?.began?, queue, head)?;
        Some(given(names, bytes))
    }

    fn shape(&self, names: u32) -> Option<&Shape> {
        self.0.get((names >> SLOT_SHIFT) as usize)?.as_ref()
    }
}

#[inline]
fn queue_and_head_bits(queue: u16, head: u16) -> u32 {
    u32::from(queue) << QUEUE_SHIFT | u32::from(head)
}

fn queue_and_head(names: u32) -> (u16, u16) {
    (queue(names), names as u16)
}

/// The queue that names say.
#[inline]
pub(crate) fn queue(names: u32) -> u16 {
    (names >> QUEUE_SHIFT) as u16 & (MOST_QUEUES - 1)
}

/// The short form of a buffer that was given back. None if only the long form can say it.
#[inline]
pub(crate) fn given_words(given: &Given) -> Option<(u32, u32)> {
    let Given { queue, head, result: Some(result), written, status: 0 } = given else {
        return None;
    };
    let bytes = u32::try_from(*result).ok()?;
    let read = match written {
        1 => 0,
        written if *written == bytes + 1 => 1,
        _ => return None,
    };
    if *queue >= MOST_QUEUES {
        return None;
    }
    Some((read << READ_SHIFT | queue_and_head_bits(*queue, *head), bytes))
}

/// What that says.
pub(crate) fn given(names: u32, bytes: u32) -> Record<'static> {
    let (queue, head) = queue_and_head(names);
    let written = if names >> READ_SHIFT & 1 == 1 { bytes.wrapping_add(1) } else { 1 };
    Record::Given(Given { queue, head, result: Some(bytes as i32), written, status: 0 })
}
