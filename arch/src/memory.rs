//! Guest physical addresses, ranges of them, and bytes that have a place in guest memory.

use std::fmt;

/// A guest physical address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct GuestAddress(pub u64);

impl GuestAddress {
    /// The address `offset` bytes further, unless that is past 2^64 - 1.
    #[must_use]
    pub fn checked_add(self, offset: u64) -> Option<Self> {
        self.0.checked_add(offset).map(Self)
    }

    /// The same address as an integer.
    #[must_use]
    pub const fn value(self) -> u64 {
        self.0
    }
}

impl fmt::Display for GuestAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// A range of guest physical addresses: `length` bytes from `start`. It never wraps around and its
/// end is representable, because every constructor checks that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GuestRange {
    start: GuestAddress,
    length: u64,
}

impl GuestRange {
    /// The range of `length` bytes from `start`; `None` if it would end beyond 2^64 - 1.
    #[must_use]
    pub const fn new(start: GuestAddress, length: u64) -> Option<Self> {
        match start.0.checked_add(length) {
            Some(_) => Some(Self { start, length }),
            None => None,
        }
    }

    /// The range from `start` up to, not including, `end`. For constants; an end before the start
    /// is a bug and stops the build (in a constant) or panics.
    #[must_use]
    pub const fn between(start: u64, end: u64) -> Self {
        assert!(start <= end, "a range must not end before it starts");
        Self { start: GuestAddress(start), length: end - start }
    }

    /// Its first address.
    #[must_use]
    pub const fn start(self) -> GuestAddress {
        self.start
    }

    /// The first address behind it.
    #[must_use]
    pub const fn end(self) -> GuestAddress {
        GuestAddress(self.start.0 + self.length)
    }

    /// Its length in bytes.
    #[must_use]
    pub const fn length(self) -> u64 {
        self.length
    }

    /// Whether it holds no address at all.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.length == 0
    }

    /// Whether `address` lies in it.
    #[must_use]
    pub const fn contains(self, address: GuestAddress) -> bool {
        self.start.0 <= address.0 && address.0 < self.end().0
    }

    /// Whether all of `other` lies in it.
    #[must_use]
    pub const fn covers(self, other: Self) -> bool {
        self.start.0 <= other.start.0 && other.end().0 <= self.end().0
    }

    /// Whether the two have an address in common.
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        !self.is_empty()
            && !other.is_empty()
            && self.start.0 < other.end().0
            && other.start.0 < self.end().0
    }
}

impl fmt::Display for GuestRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}..{:#x}", self.start.0, self.end().0)
    }
}

/// Bytes and the guest address they belong at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// Where the first byte goes.
    pub address: GuestAddress,
    /// The bytes.
    pub bytes: Vec<u8>,
}

impl Blob {
    /// `bytes` at `address`.
    #[must_use]
    pub fn new(address: GuestAddress, bytes: Vec<u8>) -> Self {
        Self { address, bytes }
    }

    /// The addresses the bytes take.
    #[must_use]
    pub fn range(&self) -> GuestRange {
        GuestRange { start: self.address, length: self.bytes.len() as u64 }
    }
}

/// `value` rounded up to a multiple of `alignment`, a power of two; `None` on overflow.
pub(crate) fn align_up(value: u64, alignment: u64) -> Option<u64> {
    debug_assert!(alignment.is_power_of_two());
    value.checked_add(alignment - 1).map(|sum| sum & !(alignment - 1))
}

/// `value` rounded down to a multiple of `alignment`, a power of two.
pub(crate) fn align_down(value: u64, alignment: u64) -> u64 {
    debug_assert!(alignment.is_power_of_two());
    value & !(alignment - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_that_would_wrap_is_refused() {
        assert!(GuestRange::new(GuestAddress(u64::MAX), 1).is_none());
        assert!(GuestRange::new(GuestAddress(u64::MAX), 0).is_some());
    }

    #[test]
    fn ranges_that_touch_do_not_overlap() {
        let left = GuestRange::between(0, 0x1000);
        let right = GuestRange::between(0x1000, 0x2000);
        assert!(!left.overlaps(right) && !right.overlaps(left));
        assert!(left.overlaps(GuestRange::between(0xfff, 0x1001)));
    }

    #[test]
    fn an_empty_range_overlaps_nothing() {
        let empty = GuestRange::between(0x800, 0x800);
        assert!(!empty.overlaps(GuestRange::between(0, 0x1000)));
        assert!(!empty.contains(GuestAddress(0x800)));
    }

    #[test]
    fn alignment_rounds_both_ways_and_reports_overflow() {
        assert_eq!(align_up(0x1001, 0x1000), Some(0x2000));
        assert_eq!(align_up(u64::MAX, 0x1000), None);
        assert_eq!(align_down(0x1fff, 0x1000), 0x1000);
    }
}
