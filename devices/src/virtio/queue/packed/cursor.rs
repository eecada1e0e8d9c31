//! A place in a packed ring: a position and the wrap counter, which starts at 1 and changes each time
//! the position passes the end (virtio 1.3 section 2.8.1).

use super::super::error::QueueError;
use crate::virtio::backend::RingPosition;

/// `VIRTQ_DESC_F_AVAIL`: the wrap counter when the descriptor was made available.
const AVAILABLE: u16 = 1 << 7;
/// `VIRTQ_DESC_F_USED`: the same as `AVAILABLE` when the descriptor is used, else the opposite.
const USED: u16 = 1 << 15;
/// Where the wrap counter is in the form that positions are saved and compared in.
const WRAP: u16 = 1 << 15;

/// Which of two passes over the ring it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pass {
    /// The wrap counter is 1.
    Odd,
    /// The wrap counter is 0.
    Even,
}

/// A position in a ring, and in which pass over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Cursor {
    position: u16,
    pass: Pass,
}

impl Cursor {
    /// Where both sides of a ring start.
    pub(in super::super) const START: Self = Self { position: 0, pass: Pass::Odd };

    /// Where a queue of `size` starts that was left at `position` with nothing in flight.
    pub(super) fn start(position: Option<RingPosition>, size: u16) -> Result<Self, QueueError> {
        let what = match position {
            None => return Ok(Self::START),
            Some(RingPosition::Split { .. }) => "it is of a split queue",
            Some(RingPosition::Packed { next_available, next_used }) => {
                match Self::from_bits(next_used, size) {
                    None => "it is outside the ring",
                    Some(cursor) if next_available == next_used => return Ok(cursor),
                    Some(_) => "buffers are in flight, but there is no record of which",
                }
            }
        };
        Err(QueueError::InvalidPosition(what))
    }

    /// From the wrap counter in bit 15 and the position. None if a ring of `size` has no such place.
    pub(in super::super) fn from_bits(bits: u16, size: u16) -> Option<Self> {
        let pass = if bits & WRAP == 0 { Pass::Even } else { Pass::Odd };
        let position = bits & !WRAP;
        (position < size).then_some(Self { position, pass })
    }

    /// The wrap counter in bit 15 and the position.
    pub(in super::super) fn bits(self) -> u16 {
        self.position | if self.pass == Pass::Odd { WRAP } else { 0 }
    }

    /// The position.
    #[inline]
    pub(in super::super) fn position(self) -> u16 {
        self.position
    }

    /// The place `count` descriptors further, at most `size`.
    #[inline]
    pub(in super::super) fn after(self, count: u16, size: u16) -> Self {
        debug_assert!(count <= size);
        let sum = u32::from(self.position) + u32::from(count);
        match sum.checked_sub(u32::from(size)) {
            None => Self { position: sum as u16, pass: self.pass },
            Some(over) => Self { position: over as u16, pass: self.pass.other() },
        }
    }

    /// How far ahead of `start` this place is, counted over two passes.
    pub(super) fn distance_from(self, start: Self, size: u16) -> u32 {
        let size = u32::from(size);
        let place = |cursor: Self| {
            u32::from(cursor.position) + if cursor.pass == Pass::Even { size } else { 0 }
        };
        (place(self) + 2 * size - place(start)) % (2 * size)
    }

    /// The flags of a descriptor that is made available here.
    #[inline]
    pub(in super::super) fn available_flags(self) -> u16 {
        if self.pass == Pass::Odd { AVAILABLE } else { USED }
    }

    /// The flags of a descriptor that is used here.
    #[inline]
    pub(in super::super) fn used_flags(self) -> u16 {
        if self.pass == Pass::Odd { AVAILABLE | USED } else { 0 }
    }

    /// Whether a descriptor with these flags here is available.
    #[inline]
    pub(in super::super) fn is_available(self, flags: u16) -> bool {
        flags & (AVAILABLE | USED) == self.available_flags()
    }

    /// Whether a descriptor with these flags here is used, as the driver sees it.
    #[inline]
    pub(in super::super) fn is_used(self, flags: u16) -> bool {
        flags & (AVAILABLE | USED) == self.used_flags()
    }

    /// Whether a descriptor that was available here was used since, and perhaps made available again
    /// for the next pass.
    pub(super) fn was_used(self, flags: u16) -> bool {
        (flags & USED != 0) == (self.pass == Pass::Odd)
    }

    /// Whether the last `count` descriptors before this place include the one at `event`, a place as
    /// the other side wrote it.
    #[inline]
    pub(in super::super) fn passed(self, event: u16, count: u16, size: u16) -> bool {
        let same_pass = (event & WRAP != 0) == (self.pass == Pass::Odd);
        let position = i32::from(event & !WRAP);
        let position = if same_pass { position } else { position - i32::from(size) };
        let end = i32::from(self.position);
        (end - i32::from(count)..end).contains(&position)
    }
}

impl Pass {
    #[inline]
    fn other(self) -> Self {
        match self {
            Self::Odd => Self::Even,
            Self::Even => Self::Odd,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn flags_mean_what_the_specification_says() {
        let odd = Cursor::START;
        let even = odd.after(4, 4);
        assert_eq!((odd.bits(), even.bits()), (0x8000, 0));
        assert!(odd.is_available(0x0080) && odd.is_used(0x8080));
        assert!(even.is_available(0x8000) && even.is_used(0));
        assert!(!odd.is_available(0) && !even.is_available(0x8080));
        assert!(odd.was_used(0x8080) && odd.was_used(0x8000), "also when available again");
        assert!(even.was_used(0) && even.was_used(0x0080));
        assert!(!odd.was_used(0x0080) && !even.was_used(0x8000));
    }

    proptest! {
        #[test]
        fn places_are_where_counting_says(
            size in 1u16..=32768, from in 0u32..65536, count in 0u32..32769, event in 0u32..32768,
        ) {
            let (wide, count) = (u32::from(size), count.min(u32::from(size)) as u16);
            let at = |place: u32| {
                let pass = if (place / wide).is_multiple_of(2) { 0x8000 } else { 0 };
                Cursor::from_bits((place % wide) as u16 | pass, size).unwrap()
            };
            let end = from + u32::from(count);
            prop_assert_eq!(at(from).after(count, size), at(end));
            prop_assert_eq!(at(end).distance_from(at(from), size), u32::from(count) % (2 * wide));
            prop_assert_eq!(Cursor::from_bits(at(end).bits(), size), Some(at(end)));
            // An event at most one pass behind the end.
            let event = (end + 2 * wide).saturating_sub(1 + event % wide);
            let inside = event >= from + 2 * wide;
            prop_assert_eq!(at(end).passed(at(event).bits(), count, size), inside);
        }
    }
}
