//! The split virtqueue (section 2.7), driver side.
//!
//! ```text
//! slot s ── head = s * stride ──> descriptor [ head ] ─ INDIRECT ─> table of slot s
//!                                      or    [ head, head + 1, ... ] chained
//! available: flags idx ring[size] used_event    used: flags idx ring[size]{id, len} avail_event
//! ```

use alloc::{format, string::String, vec, vec::Vec};
use core::sync::atomic::{Ordering, fence};

use super::{
    feature,
    queue::{Buffer, QueueAddresses, Segment, Shape, Used, passed},
};
use crate::platform::mmio::Window;

const DESCRIPTOR_BYTES: u64 = 16;
const FLAG_NEXT: u16 = 1;
const FLAG_WRITE: u16 = 2;
const FLAG_INDIRECT: u16 = 4;

const AVAILABLE_NO_INTERRUPT: u16 = 1;
const USED_NO_NOTIFY: u16 = 1;

const INDEX: u64 = 2;
const RING: u64 = 4;

pub(crate) struct SplitQueue {
    shape: Shape,
    descriptors: Window,
    available: Window,
    used: Window,
    tables: Window,
    in_flight: Vec<bool>,
    next_available: u16,
    /// `next_available` when `needs_kick` was last asked.
    announced: u16,
    next_used: u16,
}

impl SplitQueue {
    pub(crate) fn new(shape: Shape) -> Self {
        let size = usize::from(shape.size);
        let table_entries = usize::from(shape.slots) * usize::from(shape.segments);
        let available = Window::dma(6 + 2 * size, 64);
        // The flag is for devices without EVENT_IDX; with it `pop` keeps the event out of reach.
        available.write(0, AVAILABLE_NO_INTERRUPT);
        available.write(RING + 2 * size as u64, u16::MAX);
        Self {
            shape,
            descriptors: Window::dma(16 * size, 64),
            available,
            used: Window::dma(6 + 8 * size, 64),
            tables: Window::dma(16 * table_entries, 64),
            in_flight: vec![false; usize::from(shape.slots)],
            next_available: 0,
            announced: 0,
            next_used: 0,
        }
    }

    pub(crate) fn addresses(&self) -> QueueAddresses {
        QueueAddresses {
            size: self.shape.size,
            descriptors: self.descriptors.physical(),
            driver: self.available.physical(),
            device: self.used.physical(),
        }
    }

    #[inline]
    pub(crate) fn add(&mut self, slot: u16, segments: &[Segment]) {
        assert!(segments.len() <= usize::from(self.shape.segments), "too many segments");
        let busy = &mut self.in_flight[usize::from(slot)];
        assert!(!*busy, "slot {slot} is in flight");
        *busy = true;
        let head = slot * self.shape.stride();
        if self.shape.has(feature::INDIRECT_DESC) {
            let table = u64::from(slot) * u64::from(self.shape.segments) * DESCRIPTOR_BYTES;
            write_chain(&self.tables, table, 0, segments);
            let whole = Descriptor {
                address: self.tables.physical() + table,
                length: segments.len() as u32 * DESCRIPTOR_BYTES as u32,
                flags: FLAG_INDIRECT,
                next: 0,
            };
            whole.write(&self.descriptors, u64::from(head) * DESCRIPTOR_BYTES);
        } else {
            write_chain(&self.descriptors, u64::from(head) * DESCRIPTOR_BYTES, head, segments);
        }
        let place = u64::from(self.next_available & (self.shape.size - 1));
        self.available.write(RING + 2 * place, head);
        self.next_available = self.next_available.wrapping_add(1);
        fence(Ordering::Release);
        self.available.write(INDEX, self.next_available);
    }

    #[inline]
    pub(crate) fn pop(&mut self) -> Result<Option<Used>, String> {
        let produced: u16 = self.used.read(INDEX);
        if produced == self.next_used {
            return Ok(None);
        }
        fence(Ordering::Acquire);
        let place = u64::from(self.next_used & (self.shape.size - 1));
        let id: u32 = self.used.read(RING + 8 * place);
        let written = self.used.read(RING + 8 * place + 4);
        let stride = u32::from(self.shape.stride());
        let slot = id / stride;
        let busy = self.in_flight.get_mut(slot as usize).filter(|_| id.is_multiple_of(stride));
        match busy {
            Some(busy) if *busy => *busy = false,
            _ => return Err(format!("used ring holds {id}, which is not in flight")),
        }
        // The device would interrupt when it passes this index: it is always just behind.
        self.available.write(RING + 2 * u64::from(self.shape.size), self.next_used);
        self.next_used = self.next_used.wrapping_add(1);
        Ok(Some(Used { slot: slot as u16, written }))
    }

    #[inline]
    pub(crate) fn needs_kick(&mut self) -> bool {
        let old = self.announced;
        self.announced = self.next_available;
        if old == self.next_available {
            return false;
        }
        fence(Ordering::SeqCst); // the index is out before the device's wish is read
        if self.shape.has(feature::EVENT_IDX) {
            let event = self.used.read(RING + 8 * u64::from(self.shape.size));
            passed(event, self.next_available, old)
        } else {
            let flags: u16 = self.used.read(0);
            flags & USED_NO_NOTIFY == 0
        }
    }
}

struct Descriptor {
    address: u64,
    length: u32,
    flags: u16,
    next: u16,
}

impl Descriptor {
    #[inline]
    fn write(&self, memory: &Window, offset: u64) {
        memory.write(offset, self.address);
        memory.write(offset + 8, self.length);
        memory.write(offset + 12, self.flags);
        memory.write(offset + 14, self.next);
    }
}

/// Writes a chain of descriptors; the first one has the index `first` in its table.
#[inline]
fn write_chain(memory: &Window, offset: u64, first: u16, segments: &[Segment]) {
    let last = segments.len() - 1;
    for (place, segment) in segments.iter().enumerate() {
        let mut flags = if place < last { FLAG_NEXT } else { 0 };
        if segment.buffer == Buffer::DeviceWrites {
            flags |= FLAG_WRITE;
        }
        let next = if place < last { first + place as u16 + 1 } else { 0 };
        Descriptor { address: segment.address, length: segment.length, flags, next }
            .write(memory, offset + place as u64 * DESCRIPTOR_BYTES);
    }
}
