//! Where things stand in the memory of a link, in words of 64 bits.
//!
//! ```text
//!   ring  first end → second end     the channels every link begins with
//!   ring  second end → first end
//!   reply slots of the first end     answers to the calls that the first end makes
//!   reply slots of the second end
//!   arena of the first end           rings of channels whose ends were sent as messages, each
//!   arena of the second end          in the arena of the end that sent it
//! ```
//!
//! Both ends compute this from the same [`LinkConfig`], which came with the descriptors and not
//! through the shared memory.

use serde::{Deserialize, Serialize};

/// Words of a cache line pair; what different processors write stands that far apart.
pub(crate) const LINE_WORDS: usize = 16;
/// Words at the start of a ring: a line each for the tail and for the head.
pub(crate) const RING_HEADER_WORDS: usize = 2 * LINE_WORDS;
/// Words at the start of a reply slot.
pub(crate) const SLOT_HEADER_WORDS: usize = 1;
/// The smallest ring: room for a request with a page of data.
pub(crate) const MIN_RING_BYTES: usize = 8 << 10;
/// The largest ring.
pub(crate) const MAX_RING_BYTES: usize = 1 << 20;
/// Bytes of ring per unit of capacity: a typical frame with its header is smaller.
const BYTES_PER_MESSAGE: usize = 256;

/// The sizes of a link. The default suits one device and its transport; memory that is never
/// touched costs nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkConfig {
    /// Capacity, in messages, of each of the two channels that a link begins with.
    pub capacity: u32,
    /// Calls that each end can have unanswered at the same time.
    pub reply_slots: u16,
    /// Bytes of the largest encoded answer.
    pub reply_bytes: u32,
    /// Bytes of each end's arena, for channels whose ends are sent as messages.
    pub arena_bytes: u32,
}

impl Default for LinkConfig {
    fn default() -> Self {
        Self { capacity: 16, reply_slots: 64, reply_bytes: 8 << 10, arena_bytes: 256 << 10 }
    }
}

/// One of the two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Side {
    First,
    Second,
}

impl Side {
    pub(crate) fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }
}

/// A range of words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: usize,
    pub(crate) words: usize,
}

impl Span {
    pub(crate) fn contains(self, other: Self) -> bool {
        other.start >= self.start
            && other.start - self.start <= self.words
            && other.words <= self.words - (other.start - self.start)
    }
}

/// Where things stand.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    config: LinkConfig,
    ring_words: usize,
    slot_words: usize,
}

impl Layout {
    /// `None` for sizes that make no sense or more than 64 MiB.
    pub(crate) fn new(config: LinkConfig) -> Option<Self> {
        let sensible = (1..1 << 16).contains(&config.capacity)
            && (1..=4096).contains(&config.reply_slots)
            && (8..=1 << 20).contains(&config.reply_bytes)
            && config.arena_bytes <= 16 << 20;
        if !sensible {
            return None;
        }
        let ring_words = RING_HEADER_WORDS + ring_data_words(config.capacity as usize);
        let slot_words = SLOT_HEADER_WORDS + (config.reply_bytes as usize).div_ceil(8);
        let slot_words = slot_words.next_multiple_of(LINE_WORDS);
        let layout = Self { config, ring_words, slot_words };
        (layout.bytes() <= 64 << 20).then_some(layout)
    }

    /// The ring on which `producer` writes.
    pub(crate) fn first_ring(&self, producer: Side) -> Span {
        let start = if producer == Side::First { 0 } else { self.ring_words };
        Span { start, words: self.ring_words }
    }

    pub(crate) fn reply_slots(&self) -> u16 {
        self.config.reply_slots
    }

    /// A slot for an answer to `caller`; `None` when there is no slot of that index.
    pub(crate) fn slot(&self, caller: Side, index: u16) -> Option<Span> {
        let per_side = usize::from(self.config.reply_slots);
        let before = if caller == Side::First { 0 } else { per_side };
        (index < self.config.reply_slots).then(|| Span {
            start: 2 * self.ring_words + (before + usize::from(index)) * self.slot_words,
            words: self.slot_words,
        })
    }

    /// The arena in which `owner` makes rings.
    pub(crate) fn arena(&self, owner: Side) -> Span {
        let words = (self.config.arena_bytes as usize / 8).next_multiple_of(LINE_WORDS);
        let slots = 2 * usize::from(self.config.reply_slots) * self.slot_words;
        let first = 2 * self.ring_words + slots;
        Span { start: if owner == Side::First { first } else { first + words }, words }
    }

    /// Size of the whole memory, in whole pages.
    pub(crate) fn bytes(&self) -> usize {
        let arena = self.arena(Side::Second);
        ((arena.start + arena.words) * 8).next_multiple_of(4096)
    }
}

/// Words of data in a ring for `capacity` messages: a power of two.
pub(crate) fn ring_data_words(capacity: usize) -> usize {
    let bytes = capacity.saturating_mul(BYTES_PER_MESSAGE).clamp(MIN_RING_BYTES, MAX_RING_BYTES);
    bytes.next_power_of_two() / 8
}
