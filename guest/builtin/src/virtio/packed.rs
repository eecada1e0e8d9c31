//! The packed virtqueue (section 2.8), driver side: one ring that both sides write.
//!
//! ```text
//! ring:  [ .. used used | free free | available available .. ]     each {address, length, id, flags}
//!                 next_used ^  next_available ^                    and each side counts its wraps
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
const FLAG_AVAILABLE: u16 = 1 << 7;
const FLAG_USED: u16 = 1 << 15;

/// Event suppression: an index with a wrap bit, then flags.
const EVENT_BYTES: usize = 4;
const EVENT_FLAGS: u64 = 2;
const EVENTS_OFF: u16 = 1;
const EVENTS_AT_INDEX: u16 = 2;

/// A place in the ring with the wrap counter, which starts at 1.
#[derive(Clone, Copy)]
struct Cursor {
    index: u16,
    wrapped: bool,
}

impl Cursor {
    const START: Self = Self { index: 0, wrapped: true };

    #[inline]
    fn advance(&mut self, by: u16, size: u16) {
        self.index += by;
        if self.index >= size {
            self.index -= size;
            self.wrapped = !self.wrapped;
        }
    }
}

pub(crate) struct PackedQueue {
    shape: Shape,
    ring: Window,
    driver_events: Window,
    device_events: Window,
    tables: Window,
    /// Ring entries of each slot in flight, 0 for the others.
    lengths: Vec<u16>,
    available: Cursor,
    used: Cursor,
    /// Entries made available since `needs_kick` was last asked.
    unannounced: u16,
}

impl PackedQueue {
    pub(crate) fn new(shape: Shape) -> Self {
        let table_entries = usize::from(shape.slots) * usize::from(shape.segments);
        let driver_events = Window::dma(EVENT_BYTES, 64);
        driver_events.write(EVENT_FLAGS, EVENTS_OFF);
        Self {
            shape,
            ring: Window::dma(16 * usize::from(shape.size), 64),
            driver_events,
            device_events: Window::dma(EVENT_BYTES, 64),
            tables: Window::dma(16 * table_entries, 64),
            lengths: vec![0; usize::from(shape.slots)],
            available: Cursor::START,
            used: Cursor::START,
            unannounced: 0,
        }
    }

    pub(crate) fn addresses(&self) -> QueueAddresses {
        QueueAddresses {
            size: self.shape.size,
            descriptors: self.ring.physical(),
            driver: self.driver_events.physical(),
            device: self.device_events.physical(),
        }
    }

    #[inline]
    pub(crate) fn add(&mut self, slot: u16, segments: &[Segment]) {
        assert!(segments.len() <= usize::from(self.shape.segments), "too many segments");
        let length = &mut self.lengths[usize::from(slot)];
        assert!(*length == 0, "slot {slot} is in flight");
        if self.shape.has(feature::INDIRECT_DESC) {
            *length = 1;
            let table = u64::from(slot) * u64::from(self.shape.segments) * DESCRIPTOR_BYTES;
            for (place, segment) in segments.iter().enumerate() {
                let offset = table + place as u64 * DESCRIPTOR_BYTES;
                write(&self.tables, offset, segment, 0, write_flag(segment));
            }
            let whole = Segment {
                address: self.tables.physical() + table,
                length: segments.len() as u32 * DESCRIPTOR_BYTES as u32,
                buffer: Buffer::DeviceReads,
            };
            self.put(&[whole], slot, FLAG_INDIRECT);
        } else {
            *length = segments.len() as u16;
            self.put(segments, slot, 0);
        }
    }

    /// Writes ring entries, the first one last: with it the device may have them all.
    #[inline]
    fn put(&mut self, segments: &[Segment], slot: u16, flags: u16) {
        let last = segments.len() - 1;
        let mut first = None;
        for (place, segment) in segments.iter().enumerate() {
            let mut flags = flags | write_flag(segment);
            if place < last {
                flags |= FLAG_NEXT;
            }
            flags |= if self.available.wrapped { FLAG_AVAILABLE } else { FLAG_USED };
            let offset = u64::from(self.available.index) * DESCRIPTOR_BYTES;
            if place == 0 {
                // All but the flags: the entry stays the driver's.
                self.ring.write(offset, segment.address);
                self.ring.write(offset + 8, segment.length);
                self.ring.write(offset + 12, slot);
                first = Some((offset + 14, flags));
            } else {
                write(&self.ring, offset, segment, slot, flags);
            }
            self.available.advance(1, self.shape.size);
        }
        if let Some((offset, flags)) = first {
            fence(Ordering::Release);
            self.ring.write(offset, flags);
        }
        self.unannounced += segments.len() as u16;
    }

    #[inline]
    pub(crate) fn pop(&mut self) -> Result<Option<Used>, String> {
        let offset = u64::from(self.used.index) * DESCRIPTOR_BYTES;
        let flags: u16 = self.ring.read(offset + 14);
        let (available, used) = (flags & FLAG_AVAILABLE != 0, flags & FLAG_USED != 0);
        if available != used || used != self.used.wrapped {
            return Ok(None);
        }
        fence(Ordering::Acquire);
        let written = self.ring.read(offset + 8);
        let slot: u16 = self.ring.read(offset + 12);
        match self.lengths.get_mut(usize::from(slot)) {
            Some(length) if *length > 0 => {
                self.used.advance(*length, self.shape.size);
                *length = 0;
                Ok(Some(Used { slot, written }))
            }
            _ => Err(format!("ring holds buffer {slot}, which is not in flight")),
        }
    }

    #[inline]
    pub(crate) fn needs_kick(&mut self) -> bool {
        let added = core::mem::take(&mut self.unannounced);
        if added == 0 {
            return false;
        }
        fence(Ordering::SeqCst); // the entries are out before the device's wish is read
        let flags: u16 = self.device_events.read(EVENT_FLAGS);
        if flags != EVENTS_AT_INDEX {
            return flags != EVENTS_OFF;
        }
        let place: u16 = self.device_events.read(0);
        let mut event = place & 0x7fff;
        if (place >> 15 != 0) != self.available.wrapped {
            event = event.wrapping_sub(self.shape.size);
        }
        let new = self.available.index;
        passed(event, new, new.wrapping_sub(added))
    }
}

fn write_flag(segment: &Segment) -> u16 {
    if segment.buffer == Buffer::DeviceWrites { FLAG_WRITE } else { 0 }
}

#[inline]
fn write(memory: &Window, offset: u64, segment: &Segment, id: u16, flags: u16) {
    memory.write(offset, segment.address);
    memory.write(offset + 8, segment.length);
    memory.write(offset + 12, id);
    memory.write(offset + 14, flags);
}
