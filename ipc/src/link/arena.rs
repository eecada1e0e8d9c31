//! Rings for channels whose ends are sent over the link.
//!
//! Each end makes rings in its own arena. A ring is free again when the end here was dropped and
//! the peer has marked its end as closed; a peer that never does only exhausts this arena.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::layout::{LINE_WORDS, RING_HEADER_WORDS, Span, ring_data_words};
use super::memory::Memory;
use super::ring::{RingEnd, end_word, is_closed};

/// Rings of one arena at the same time.
const MAX_RINGS: usize = 256;

/// The allocator of an arena.
pub(crate) struct Arena {
    whole: Span,
    rings: Mutex<Vec<Allocation>>,
}

struct Allocation {
    span: Span,
    peer_end: RingEnd,
    lease: Weak<Lease>,
}

/// Held by the end of a ring that lives in this process.
pub(crate) struct Lease;

impl Arena {
    pub(crate) fn new(whole: Span) -> Self {
        Self { whole, rings: Mutex::new(Vec::new()) }
    }

    /// Makes a zeroed ring for `capacity` messages of which the peer gets `peer_end`; `None` when
    /// there is no room.
    pub(crate) fn allocate(
        &self,
        memory: &Memory,
        capacity: usize,
        peer_end: RingEnd,
    ) -> Option<(Span, Arc<Lease>)> {
        let mut rings = self.rings.lock().unwrap_or_else(PoisonError::into_inner);
        rings.retain(|ring| ring.lease.strong_count() > 0 || !peer_closed(memory, ring));
        if rings.len() == MAX_RINGS {
            return None;
        }
        let words = (RING_HEADER_WORDS + ring_data_words(capacity)).next_multiple_of(LINE_WORDS);
        // Sorted by start, so the first gap that is wide enough is found in one pass.
        let mut start = self.whole.start;
        let mut place = rings.len();
        for (index, ring) in rings.iter().enumerate() {
            if ring.span.start - start >= words {
                place = index;
                break;
            }
            start = ring.span.start + ring.span.words;
        }
        let span = Span { start, words };
        if !self.whole.contains(span) {
            return None;
        }
        for word in memory.words(start, RING_HEADER_WORDS) {
            word.store(0, Ordering::Relaxed);
        }
        let lease = Arc::new(Lease);
        rings.insert(place, Allocation { span, peer_end, lease: Arc::downgrade(&lease) });
        Some((span, lease))
    }
}

fn peer_closed(memory: &Memory, ring: &Allocation) -> bool {
    is_closed(memory.word(end_word(ring.span, ring.peer_end)).load(Ordering::Acquire))
}
