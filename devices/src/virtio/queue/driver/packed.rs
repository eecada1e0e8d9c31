//! The driver side of a packed queue.

use std::sync::atomic::{Ordering, fence};

use super::super::host::{
    DESCRIPTOR_INDIRECT, DESCRIPTOR_NEXT, DESCRIPTOR_WRITE, HostArray, PackedDescriptor,
};
use super::super::packed::{
    Cursor, DescriptorRing, EVENT_FLAGS, EVENT_PLACE, EVENTS_AT_PLACE, EVENTS_OFF, EVENTS_ON,
};
use super::super::{QueueLayout, RingFeatures};
use super::{Buffer, Kick, Used};
use crate::memory::GuestMemory;
use crate::virtio::backend::RingLayout;

/// The driver side of a packed queue.
#[derive(Debug)]
pub struct PackedDriver {
    layout: QueueLayout,
    features: RingFeatures,
    ring: DescriptorRing,
    driver_events: HostArray<u16>,
    device_events: HostArray<u16>,
    /// Ids that no buffer in flight has.
    free_ids: Vec<u16>,
    /// How many descriptors each id holds.
    held: Vec<u16>,
    free: u16,
    next_available: Cursor,
    /// The first descriptor that was added since the last publication, and where.
    first: Option<(Cursor, PackedDescriptor)>,
    /// Descriptors added since then.
    added: u16,
    next_used: Cursor,
    memory: GuestMemory,
}

impl PackedDriver {
    /// Lay the rings out at `base` (16-byte aligned), all zero.
    ///
    /// # Panics
    ///
    /// If the rings do not fit into guest memory there, or are misaligned.
    pub fn new(memory: &GuestMemory, base: u64, size: u16, features: RingFeatures) -> Self {
        let events = base + 16 * u64::from(size);
        let layout = QueueLayout {
            size,
            descriptor_table: base,
            available_ring: events,
            used_ring: events + 4,
            format: RingLayout::Packed,
        };
        // SAFETY: no array outlives the clone of `memory` in the same struct.
        let queue = unsafe {
            let place = "rings lie in guest memory";
            Self {
                layout,
                features,
                ring: DescriptorRing::resolve(memory, base, size).expect(place),
                driver_events: HostArray::resolve(memory, events, 2).expect(place),
                device_events: HostArray::resolve(memory, events + 4, 2).expect(place),
                free_ids: (0..size).rev().collect(),
                held: vec![0; usize::from(size)],
                free: size,
                next_available: Cursor::START,
                first: None,
                added: 0,
                next_used: Cursor::START,
                memory: memory.clone(),
            }
        };
        for position in 0..size {
            let zero = PackedDescriptor { address: 0, length: 0, id: 0, flags: 0 };
            queue.ring.write(Cursor::START.after(position, size), zero);
        }
        for field in [EVENT_PLACE, EVENT_FLAGS] {
            queue.driver_events.write(field, 0);
            queue.device_events.write(field, 0);
        }
        queue
    }

    /// See [`super::DriverQueue`].
    pub fn layout(&self) -> QueueLayout {
        self.layout
    }

    /// See [`super::DriverQueue`].
    pub fn free_descriptors(&self) -> usize {
        self.free.into()
    }

    /// See [`super::DriverQueue`].
    pub fn add(&mut self, buffers: &[Buffer]) -> Option<u16> {
        if buffers.is_empty() || usize::from(self.free) < buffers.len() {
            return None;
        }
        let id = self.free_ids.pop()?;
        for (position, buffer) in buffers.iter().enumerate() {
            let mut descriptor = raw(*buffer);
            // Only the last one has to have it, so the others show that nobody looks.
            descriptor.id = u16::MAX;
            if position + 1 == buffers.len() {
                descriptor.id = id;
            } else {
                descriptor.flags |= DESCRIPTOR_NEXT;
            }
            self.put(descriptor);
        }
        self.held[usize::from(id)] = buffers.len() as u16;
        Some(id)
    }

    /// See [`super::DriverQueue`].
    pub fn add_indirect(&mut self, table: u64, buffers: &[Buffer]) -> Option<u16> {
        if self.free == 0 {
            return None;
        }
        // SAFETY: the array is used only here, while `self` holds the memory.
        let entries: HostArray<PackedDescriptor> =
            unsafe { HostArray::resolve(&self.memory, table, buffers.len()) }?;
        for (position, buffer) in buffers.iter().enumerate() {
            entries.write(position, raw(*buffer));
        }
        let id = self.free_ids.pop()?;
        let length = 16 * buffers.len() as u32;
        self.put(PackedDescriptor { address: table, length, id, flags: DESCRIPTOR_INDIRECT });
        self.held[usize::from(id)] = 1;
        Some(id)
    }

    /// See [`super::DriverQueue`].
    pub fn publish(&mut self) -> Kick {
        let Some((at, descriptor)) = self.first.take() else {
            return Kick::NotWanted;
        };
        self.ring.write(at, descriptor);
        let added = std::mem::take(&mut self.added);
        fence(Ordering::SeqCst);
        let wanted = match self.device_events.atomic(EVENT_FLAGS).load(Ordering::Acquire) {
            EVENTS_OFF => false,
            EVENTS_AT_PLACE if self.features.event_idx => {
                let place = self.device_events.atomic(EVENT_PLACE).load(Ordering::Relaxed);
                self.next_available.passed(place, added, self.layout.size)
            }
            _ => true,
        };
        if wanted { Kick::Wanted } else { Kick::NotWanted }
    }

    /// See [`super::DriverQueue`].
    pub fn has_used(&self) -> bool {
        self.next_used.is_used(self.ring.flags(self.next_used))
    }

    /// See [`super::DriverQueue`].
    pub fn used_waiting(&self) -> u16 {
        let (mut at, mut buffers, mut passed) = (self.next_used, 0, 0);
        // No more than the ring has; an id that nobody holds is for `take_used` to find.
        while passed < self.layout.size && at.is_used(self.ring.flags(at)) {
            let id = usize::from(self.ring.read(at).id);
            let count = self.held.get(id).copied().unwrap_or(0).max(1);
            at = at.after(count, self.layout.size);
            passed += count;
            buffers += 1;
        }
        buffers
    }

    /// See [`super::DriverQueue`].
    ///
    /// # Panics
    ///
    /// If the device gave back what it did not have.
    pub fn take_used(&mut self) -> Option<Used> {
        if !self.has_used() {
            return None;
        }
        let PackedDescriptor { id, length, flags, .. } = self.ring.read(self.next_used);
        let count = std::mem::take(&mut self.held[usize::from(id)]);
        assert!(count > 0, "{id} was given back twice");
        self.next_used = self.next_used.after(count, self.layout.size);
        self.free += count;
        self.free_ids.push(id);
        let written = if flags & DESCRIPTOR_WRITE == 0 { 0 } else { length };
        Some(Used { head: id, written })
    }

    /// See [`super::DriverQueue`].
    #[must_use]
    pub fn enable_interrupts(&mut self) -> bool {
        let flags = if self.features.event_idx {
            let place = self.next_used.bits();
            self.driver_events.atomic(EVENT_PLACE).store(place, Ordering::Relaxed);
            EVENTS_AT_PLACE
        } else {
            EVENTS_ON
        };
        self.driver_events.atomic(EVENT_FLAGS).store(flags, Ordering::Release);
        fence(Ordering::SeqCst);
        self.has_used()
    }

    /// See [`super::DriverQueue`].
    pub fn disable_interrupts(&mut self) {
        self.driver_events.atomic(EVENT_FLAGS).store(EVENTS_OFF, Ordering::Relaxed);
    }

    /// The next descriptor; the device sees none before the first.
    fn put(&mut self, mut descriptor: PackedDescriptor) {
        let at = self.next_available;
        descriptor.flags |= at.available_flags();
        if self.first.is_none() {
            self.first = Some((at, descriptor));
        } else {
            self.ring.write(at, descriptor);
        }
        self.next_available = at.after(1, self.layout.size);
        self.added += 1;
        self.free -= 1;
    }
}

fn raw(buffer: Buffer) -> PackedDescriptor {
    let (address, length, flags) = match buffer {
        Buffer::Readable { address, length } => (address, length, 0),
        Buffer::Writable { address, length } => (address, length, DESCRIPTOR_WRITE),
    };
    PackedDescriptor { address, length, id: 0, flags }
}
