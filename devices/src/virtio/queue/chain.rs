//! A chain of descriptors as host memory: what the device may read, then what it may write.
//!
//! ```text
//!   segments   | readable 0 | readable 1 | ... | writable 0 | ... | writable n |
//!              ^front                      ^boundary                            ^end
//!   read_exact consumes from the front; take_last splits the last writable byte off (any layout:
//!   a header or a status may lie across descriptors or share one with data, virtio 1.3 2.7.4).
//! ```
//!
//! A [`Chain`] is made once for a queue and filled again for each buffer: no allocation.

use std::rc::Rc;

use zerocopy::{FromBytes, IntoBytes};

use super::error::QueueError;
use super::host::{DESCRIPTOR_WRITE, HostArray};
use crate::memory::{GuestAddress, GuestMemory};
use crate::simulation::{Bug, is_planted};

/// A piece of guest memory as the host sees it; the layout is that of `struct iovec`.
///
/// A segment is only a place: it is a [`Chain`] or another holder of the guest's memory that reads
/// and writes there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Segment {
    base: *mut u8,
    length: usize,
}

const _: () = assert!(size_of::<Segment>() == size_of::<libc::iovec>());

impl Segment {
    const EMPTY: Self = Self { base: std::ptr::null_mut(), length: 0 };

    /// Host address of the first byte.
    pub fn as_ptr(self) -> *mut u8 {
        self.base
    }

    /// Bytes.
    pub fn len(self) -> usize {
        self.length
    }

    /// Whether there are no bytes.
    pub fn is_empty(self) -> bool {
        self.length == 0
    }

    pub(super) fn skip(self, bytes: usize) -> Self {
        assert!(bytes <= self.length);
        Self { base: self.base.wrapping_add(bytes), length: self.length - bytes }
    }

    pub(super) fn first(self, bytes: usize) -> Self {
        Self { base: self.base, length: self.length.min(bytes) }
    }
}

/// A chain of descriptors, translated.
#[derive(Debug)]
pub struct Chain {
    memory: Rc<GuestMemory>,
    segments: Box<[Segment]>,
    head: u16,
    front: usize,
    boundary: usize,
    end: usize,
    readable_bytes: u32,
    writable_bytes: u32,
    strangers: Strangers,
    outside: Option<GuestAddress>,
}

/// What becomes of buffers that lie in memory which the device does not have: a guest's persistent
/// memory, or none at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Strangers {
    /// They break the queue.
    Refused,
    /// They are empty segments.
    Noted,
}

impl Chain {
    /// Room for chains of up to `capacity` descriptors.
    pub fn new(memory: Rc<GuestMemory>, capacity: usize) -> Self {
        Self {
            memory,
            segments: vec![Segment::EMPTY; capacity].into_boxed_slice(),
            head: 0,
            front: 0,
            boundary: 0,
            end: 0,
            readable_bytes: 0,
            writable_bytes: 0,
            strangers: Strangers::Refused,
            outside: None,
        }
    }

    /// As [`Chain::new`], for devices that can refuse one request: a buffer outside guest memory is an
    /// empty segment, and [`Chain::outside`] says that there is one.
    pub fn for_any_buffers(memory: Rc<GuestMemory>, capacity: usize) -> Self {
        Self { strangers: Strangers::Noted, ..Self::new(memory, capacity) }
    }

    /// What names the buffer when it is given back.
    pub fn head(&self) -> u16 {
        self.head
    }

    /// What the device may read and has not consumed.
    pub fn readable(&self) -> &[Segment] {
        &self.segments[self.front..self.boundary]
    }

    /// What the device may write and has not consumed.
    pub fn writable(&self) -> &[Segment] {
        &self.segments[self.boundary..self.end]
    }

    /// Bytes left of [`Chain::readable`].
    pub fn readable_bytes(&self) -> u32 {
        self.readable_bytes
    }

    /// Bytes left of [`Chain::writable`].
    pub fn writable_bytes(&self) -> u32 {
        self.writable_bytes
    }

    /// Copy bytes from the front of the readable part and consume them. False, and nothing is
    /// consumed, if there are fewer.
    #[must_use]
    pub fn read_exact(&mut self, out: &mut [u8]) -> bool {
        if out.len() > self.readable_bytes as usize {
            return false;
        }
        let mut done = 0;
        while done < out.len() {
            let segment = self.segments[self.front];
            let part = segment.len().min(out.len() - done);
            // SAFETY: segments lie in `self.memory`, which is mapped as long as the chain lives;
            // `out` has room for `part` bytes. The guest may write meanwhile: the bytes are only
            // data and any value of them is valid.
            unsafe {
                std::ptr::copy_nonoverlapping(segment.base, out[done..].as_mut_ptr(), part);
            }
            done += part;
            if part == segment.len() {
                self.front += 1;
            } else {
                self.segments[self.front] = segment.skip(part);
            }
        }
        self.readable_bytes -= out.len() as u32;
        true
    }

    /// The first bytes of the readable part, which are consumed. None, and nothing is consumed, if there are fewer.
    #[inline]
    pub fn read_array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let first = self.readable().first()?;
        // Most drivers give a header a descriptor of its own.
        if first.len() == N {
            // SAFETY: as in `read_exact`; an array of bytes needs no alignment.
            let bytes = unsafe { first.base.cast::<[u8; N]>().read_unaligned() };
            self.front += 1;
            self.readable_bytes -= N as u32;
            return Some(bytes);
        }
        let mut bytes = [0; N];
        self.read_exact(&mut bytes).then_some(bytes)
    }

    /// Copy bytes from the front of the readable part and leave them there; says how many there are.
    pub fn peek(&self, out: &mut [u8]) -> usize {
        let mut done = 0;
        for segment in self.readable() {
            if done == out.len() {
                break;
            }
            let part = segment.len().min(out.len() - done);
            // SAFETY: as in `read_exact`.
            unsafe {
                std::ptr::copy_nonoverlapping(segment.base, out[done..].as_mut_ptr(), part);
            }
            done += part;
        }
        done
    }

    /// Copy bytes to the front of the writable part and consume it; says how many there was room
    /// for.
    pub fn write(&mut self, data: &[u8]) -> usize {
        let wanted = data.len().min(self.writable_bytes as usize);
        let mut done = 0;
        let mut first = self.boundary;
        while done < wanted {
            let segment = self.segments[first];
            let part = segment.len().min(wanted - done);
            // SAFETY: as in `read_exact`, the other way round; writable segments are writable.
            unsafe {
                std::ptr::copy_nonoverlapping(data[done..].as_ptr(), segment.base, part);
            }
            done += part;
            if part == segment.len() {
                first += 1;
            } else {
                self.segments[first] = segment.skip(part);
            }
        }
        // What is left of the readable part is no longer next to the writable part: drop it.
        if first != self.boundary {
            self.readable_bytes = 0;
            self.front = first;
            self.boundary = first;
        }
        self.writable_bytes -= wanted as u32;
        wanted
    }

    /// Split the last writable byte off, for a status that is written when the request is done; none
    /// if there is no such byte, or not inside guest memory.
    pub fn take_last(&mut self) -> Option<Segment> {
        if self.boundary == self.end {
            return None;
        }
        let last = &mut self.segments[self.end - 1];
        last.length = last.length.checked_sub(1)?;
        let status = Segment { base: last.base.wrapping_add(last.length), length: 1 };
        if last.length == 0 {
            self.end -= 1;
        }
        self.writable_bytes -= 1;
        Some(status)
    }

    /// Where a buffer is that is not inside guest memory, if there is one.
    pub fn outside(&self) -> Option<GuestAddress> {
        self.outside
    }

    /// The memory that the segments lie in.
    pub fn memory(&self) -> &Rc<GuestMemory> {
        &self.memory
    }

    /// How many descriptors a chain may have.
    pub fn capacity(&self) -> usize {
        self.segments.len()
    }

    pub(super) fn begin(&mut self, head: u16) {
        self.head = head;
        self.front = 0;
        self.boundary = 0;
        self.end = 0;
        self.readable_bytes = 0;
        self.writable_bytes = 0;
        self.outside = None;
    }

    /// Add a descriptor that points to data.
    pub(super) fn push(&mut self, address: u64, length: u32, flags: u16) -> Result<(), QueueError> {
        let head = self.head;
        if length == 0 {
            return Err(QueueError::ZeroLength { head });
        }
        if self.end == self.segments.len() {
            let limit = self.segments.len();
            return Err(QueueError::TooLong { head, limit });
        }
        let total = self.readable_bytes.checked_add(self.writable_bytes);
        if total.and_then(|total| total.checked_add(length)).is_none() {
            return Err(QueueError::TotalLengthOverflow { head });
        }
        let segment = match self.memory.host_range(GuestAddress(address), length as usize) {
            Some(range) => Segment { base: range.as_ptr(), length: range.len() },
            None if self.strangers == Strangers::Noted => {
                self.outside = Some(GuestAddress(address));
                Segment::EMPTY
            }
            None => return Err(QueueError::BufferOutsideMemory { head, address, length }),
        };
        let length = segment.length as u32;
        if flags & DESCRIPTOR_WRITE != 0 {
            self.writable_bytes += length;
        } else if self.boundary == self.end {
            self.boundary += 1;
            self.readable_bytes += length;
        } else {
            return Err(QueueError::ReadableAfterWritable { head });
        }
        self.segments[self.end] = segment;
        self.end += 1;
        Ok(())
    }

    /// The table that an indirect descriptor points to.
    pub(super) fn indirect_table<D: FromBytes + IntoBytes + Copy>(
        &self,
        address: u64,
        length: u32,
    ) -> Result<HostArray<D>, QueueError> {
        let head = self.head;
        let count = length as usize / size_of::<D>() + usize::from(is_planted(Bug::IndirectTable));
        if count == 0 || !(length as usize).is_multiple_of(size_of::<D>()) {
            return Err(QueueError::IndirectLength { head, length });
        }
        // SAFETY: the array is used while one chain is walked, and the chain holds the memory.
        let table = unsafe { HostArray::resolve(&self.memory, address, count) };
        table.ok_or(QueueError::BufferOutsideMemory { head, address, length })
    }
}
