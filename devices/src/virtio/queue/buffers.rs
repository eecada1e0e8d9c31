//! Guest memory that a request owns while it is in flight.
//!
//! A [`Chain`] is filled anew for the next buffer; what a request needs until it is done moves to
//! [`GuestBuffers`] and [`StatusByte`], which keep the guest's memory mapped. An operation of the
//! executor that works on them carries a guard of the same kind.

use std::rc::Rc;

use super::chain::{Chain, Segment};
use crate::memory::{FileView, GuestMemory};

/// One of the two parts of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// What the device reads.
    Readable,
    /// What the device writes.
    Writable,
}

/// Pieces of guest memory in the order of a chain.
#[derive(Debug)]
pub struct GuestBuffers {
    memory: Rc<GuestMemory>,
    /// Kept for its capacity between requests.
    segments: Vec<Segment>,
    bytes: u32,
}

impl GuestBuffers {
    /// Nothing yet.
    pub fn new(memory: Rc<GuestMemory>) -> Self {
        Self { memory, segments: Vec::new(), bytes: 0 }
    }

    /// Take over what is left of one part of a chain.
    pub fn fill(&mut self, chain: &Chain, side: Side) {
        if !Rc::ptr_eq(&self.memory, chain.memory()) {
            self.memory = chain.memory().clone();
        }
        self.segments.clear();
        self.bytes = 0;
        self.append(chain, side);
    }

    /// Add what is left of one part of a chain behind what is there.
    ///
    /// # Panics
    ///
    /// If the chain lies in another memory, or all of it is more than 4 GiB.
    pub fn append(&mut self, chain: &Chain, side: Side) {
        assert!(Rc::ptr_eq(&self.memory, chain.memory()), "one memory for all pieces");
        let (segments, bytes) = match side {
            Side::Readable => (chain.readable(), chain.readable_bytes()),
            Side::Writable => (chain.writable(), chain.writable_bytes()),
        };
        self.bytes = self.bytes.checked_add(bytes).expect("less than 4 GiB in all");
        self.segments.extend_from_slice(segments);
    }

    /// Move all that `other` has behind what is there.
    ///
    /// # Panics
    ///
    /// As for [`GuestBuffers::append`].
    pub fn absorb(&mut self, other: &mut Self) {
        assert!(Rc::ptr_eq(&self.memory, &other.memory), "one memory for all pieces");
        self.bytes = self.bytes.checked_add(other.bytes).expect("less than 4 GiB in all");
        self.segments.append(&mut other.segments);
        other.bytes = 0;
    }

    /// Add up to `length` bytes of `other` from byte `from` on behind what is there.
    ///
    /// # Panics
    ///
    /// As for [`GuestBuffers::append`].
    pub fn append_part(&mut self, other: &Self, from: u32, length: u32) {
        assert!(Rc::ptr_eq(&self.memory, &other.memory), "one memory for all pieces");
        let (mut skipped, mut left) = (from as usize, length as usize);
        for segment in &other.segments {
            let skip = segment.len().min(skipped);
            skipped -= skip;
            let part = segment.skip(skip).first(left);
            if part.is_empty() {
                continue;
            }
            left -= part.len();
            self.bytes = self.bytes.checked_add(part.len() as u32).expect("less than 4 GiB in all");
            self.segments.push(part);
        }
    }

    /// Keep the first `bytes` bytes only.
    pub fn truncate(&mut self, bytes: u32) {
        let mut left = bytes as usize;
        for segment in &mut self.segments {
            *segment = segment.first(left);
            left -= segment.len();
        }
        self.segments.retain(|segment| !segment.is_empty());
        self.bytes = self.bytes.min(bytes);
    }

    /// Let go of all pieces.
    pub fn clear(&mut self) {
        self.segments.clear();
        self.bytes = 0;
    }

    /// Bytes in all pieces.
    pub fn bytes(&self) -> u32 {
        self.bytes
    }

    /// The pieces. They are valid as long as a clone of [`GuestBuffers::memory`] lives.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The memory that the pieces lie in.
    pub fn memory(&self) -> &Rc<GuestMemory> {
        &self.memory
    }

    /// Whether address and length of each piece are multiples of `alignment`.
    pub fn is_aligned_to(&self, alignment: usize) -> bool {
        self.segments.iter().all(|segment| {
            segment.as_ptr().addr().is_multiple_of(alignment)
                && segment.len().is_multiple_of(alignment)
        })
    }

    /// Drop `bytes` at the front.
    ///
    /// # Panics
    ///
    /// If there are fewer.
    pub fn advance(&mut self, bytes: u32) {
        assert!(bytes <= self.bytes, "advance beyond the end");
        let mut left = bytes as usize;
        let whole = self.segments.iter().take_while(|segment| {
            let taken = segment.len() <= left;
            left -= if taken { segment.len() } else { 0 };
            taken
        });
        let whole = whole.count();
        self.segments.drain(..whole);
        if left > 0 {
            self.segments[0] = self.segments[0].skip(left);
        }
        self.bytes -= bytes;
    }

    /// Copy from the front of the guest's bytes to `out`, as many as both have.
    pub fn copy_to(&self, out: &mut [u8]) {
        let mut done = 0;
        for segment in &self.segments {
            let part = segment.len().min(out.len() - done);
            // SAFETY: segments lie in `self.memory`, which is mapped; `out` has room for `part`
            // bytes from `done`. The guest may write meanwhile; any bytes are valid data.
            unsafe {
                std::ptr::copy_nonoverlapping(segment.as_ptr(), out[done..].as_mut_ptr(), part);
            }
            done += part;
        }
    }

    /// Copy `data` over the front of the guest's bytes, as far as there is room.
    pub fn copy_from(&self, data: &[u8]) {
        self.copy_from_at(0, data);
    }

    /// Copy `data` over the guest's bytes from byte `offset` on, as far as there is room.
    pub fn copy_from_at(&self, offset: usize, data: &[u8]) {
        let mut skipped = offset;
        let mut done = 0;
        for segment in &self.segments {
            let skip = segment.len().min(skipped);
            skipped -= skip;
            let segment = segment.skip(skip);
            let part = segment.len().min(data.len() - done);
            // SAFETY: as in `copy_to`, the other way round. Guest memory is mapped writable.
            unsafe {
                std::ptr::copy_nonoverlapping(data[done..].as_ptr(), segment.as_ptr(), part);
            }
            done += part;
        }
    }
}

impl GuestBuffers {
    /// Copy what a file holds from `offset` on over all of the guest's bytes. False if the view does not have that, and
    /// if it was not what the file holds, which is found out afterwards.
    pub(super) fn copy_from_view(&self, view: &FileView, offset: u64) -> bool {
        let Some(mut from) = view.part(offset, self.bytes as usize) else { return false };
        for segment in &self.segments {
            // SAFETY: the view has `self.bytes` bytes from there on, and the segments are not more. They lie in
            // `self.memory`, which is mapped writable. Both may change meanwhile; any bytes are valid data.
            unsafe {
                std::ptr::copy_nonoverlapping(from.as_ptr(), segment.as_ptr(), segment.len());
                from = from.add(segment.len());
            }
        }
        view.is_intact()
    }
}

/// The last byte of a request, written when the request is done.
#[derive(Debug)]
pub struct StatusByte {
    _memory: Rc<GuestMemory>,
    segment: Segment,
}

impl StatusByte {
    /// Split the last writable byte off a chain. None if it has none.
    pub fn take(chain: &mut Chain) -> Option<Self> {
        let segment = chain.take_last()?;
        Some(Self { _memory: chain.memory().clone(), segment })
    }

    /// Write it.
    pub fn write(self, status: u8) {
        // SAFETY: one byte of guest memory, which `_memory` keeps mapped.
        unsafe { self.segment.as_ptr().write_volatile(status) };
    }
}
