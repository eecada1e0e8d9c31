//! The driver side of a split queue.

use std::sync::atomic::{Ordering, fence};

use super::super::host::{
    DESCRIPTOR_INDIRECT, DESCRIPTOR_NEXT, DESCRIPTOR_WRITE, HostArray, RawDescriptor, UsedElement,
};
use super::super::split::crosses;
use super::super::{QueueLayout, RingFeatures};
use super::{Buffer, Kick, Used};
use crate::memory::GuestMemory;
use crate::virtio::backend::RingLayout;

/// The driver side of a split queue.
#[derive(Debug)]
pub struct SplitDriver {
    layout: QueueLayout,
    features: RingFeatures,
    descriptors: HostArray<RawDescriptor>,
    available: HostArray<u16>,
    used_header: HostArray<u16>,
    used_ring: HostArray<UsedElement>,
    available_event: HostArray<u16>,
    free: Vec<u16>,
    /// The descriptors that each head holds.
    held: Vec<Vec<u16>>,
    next_available: u16,
    published_available: u16,
    next_used: u16,
    memory: GuestMemory,
}

impl SplitDriver {
    /// Lay the rings out at `base` (16-byte aligned), all zero.
    ///
    /// # Panics
    ///
    /// If the rings do not fit into guest memory there, or are misaligned.
    pub fn new(memory: &GuestMemory, base: u64, size: u16, features: RingFeatures) -> Self {
        let count = usize::from(size);
        let available_ring = base + 16 * u64::from(size);
        let used_ring = (available_ring + 6 + 2 * u64::from(size)).next_multiple_of(4);
        let layout = QueueLayout {
            size,
            descriptor_table: base,
            available_ring,
            used_ring,
            format: RingLayout::Split,
        };
        // SAFETY: no array outlives the clone of `memory` in the same struct.
        let queue = unsafe {
            let place = "rings lie in guest memory";
            Self {
                layout,
                features,
                descriptors: HostArray::resolve(memory, base, count).expect(place),
                available: HostArray::resolve(memory, available_ring, count + 3).expect(place),
                used_header: HostArray::resolve(memory, used_ring, 2).expect(place),
                used_ring: HostArray::resolve(memory, used_ring + 4, count).expect(place),
                available_event: HostArray::resolve(memory, used_ring + 4 + 8 * u64::from(size), 1)
                    .expect(place),
                free: (0..size).rev().collect(),
                held: vec![Vec::new(); count],
                next_available: 0,
                published_available: 0,
                next_used: 0,
                memory: memory.clone(),
            }
        };
        for index in 0..count {
            let zero = UsedElement { id: 0, length: 0 };
            queue.used_ring.write(index, zero);
        }
        for index in 0..count + 3 {
            queue.available.write(index, 0);
        }
        queue.used_header.write(0, 0);
        queue.used_header.write(1, 0);
        queue.available_event.write(0, 0);
        queue
    }

    /// Where the rings are.
    pub fn layout(&self) -> QueueLayout {
        self.layout
    }

    /// Descriptors that are free.
    pub fn free_descriptors(&self) -> usize {
        self.free.len()
    }

    /// Chain `buffers` and put them into the available ring; the device sees them after
    /// [`SplitDriver::publish`]. None if there are not enough free descriptors.
    pub fn add(&mut self, buffers: &[Buffer]) -> Option<u16> {
        if buffers.is_empty() || self.free.len() < buffers.len() {
            return None;
        }
        let head = self.free.pop()?;
        let mut index = head;
        for (position, buffer) in buffers.iter().enumerate() {
            let next = if position + 1 < buffers.len() { self.free.pop() } else { None };
            self.descriptors.write(index.into(), raw(*buffer, next));
            // Kept per head, so that a driver under load allocates nothing.
            self.held[usize::from(head)].push(index);
            index = next.unwrap_or(index);
        }
        self.enter(head);
        Some(head)
    }

    /// As [`SplitDriver::add`], but through an indirect table that is written to `table`.
    pub fn add_indirect(&mut self, table: u64, buffers: &[Buffer]) -> Option<u16> {
        self.write_table(table, buffers)?;
        self.add_table(table, buffers.len())
    }

    /// Write an indirect table. None if there is no memory for it.
    pub fn write_table(&self, table: u64, buffers: &[Buffer]) -> Option<()> {
        // SAFETY: the array is used only here, while `self` holds the memory.
        let entries: HostArray<RawDescriptor> =
            unsafe { HostArray::resolve(&self.memory, table, buffers.len()) }?;
        for (position, buffer) in buffers.iter().enumerate() {
            let next = (position + 1 < buffers.len()).then_some(position as u16 + 1);
            entries.write(position, raw(*buffer, next));
        }
        Some(())
    }

    /// As [`SplitDriver::add_indirect`], with a table of so many buffers that was written before.
    pub fn add_table(&mut self, table: u64, buffers: usize) -> Option<u16> {
        let head = self.free.pop()?;
        let descriptor = RawDescriptor {
            address: table,
            length: 16 * buffers as u32,
            flags: DESCRIPTOR_INDIRECT,
            next: 0,
        };
        // What the device has read already need not come to it again.
        if self.descriptors.read(head.into()) != descriptor {
            self.descriptors.write(head.into(), descriptor);
        }
        self.held[usize::from(head)].push(head);
        self.enter(head);
        Some(head)
    }

    /// Let the device see what was added; says whether it wants a kick.
    pub fn publish(&mut self) -> Kick {
        self.publish_first(self.next_available.wrapping_sub(self.published_available))
    }

    /// Let the device see so many of those that were added and that it has not seen, the oldest.
    ///
    /// # Panics
    ///
    /// If there are fewer.
    pub fn publish_first(&mut self, count: u16) -> Kick {
        let (old, added) = (self.published_available, self.next_available);
        assert!(count <= added.wrapping_sub(old), "only what was added can be seen");
        let new = old.wrapping_add(count);
        self.available.atomic(1).store(new, Ordering::Release);
        self.published_available = new;
        fence(Ordering::SeqCst);
        let wanted = if self.features.event_idx {
            let event = self.available_event.atomic(0).load(Ordering::Relaxed);
            crosses(event, old, new)
        } else {
            self.used_header.atomic(0).load(Ordering::Relaxed) & 1 == 0
        };
        if wanted { Kick::Wanted } else { Kick::NotWanted }
    }

    /// Whether the device gave something back; one load.
    pub fn has_used(&self) -> bool {
        self.used_header.atomic(1).load(Ordering::Acquire) != self.next_used
    }

    /// How many buffers the device gave back that were not taken yet.
    pub fn used_waiting(&self) -> u16 {
        self.used_header.atomic(1).load(Ordering::Acquire).wrapping_sub(self.next_used)
    }

    /// Take the next buffer that the device gave back.
    ///
    /// # Panics
    ///
    /// If the device gave back what it did not have.
    pub fn take_used(&mut self) -> Option<Used> {
        if !self.has_used() {
            return None;
        }
        let slot = usize::from(self.next_used % self.layout.size);
        let element = self.used_ring.read(slot);
        let head = u16::try_from(element.id).expect("a used id is a descriptor index");
        let descriptors = &mut self.held[usize::from(head)];
        assert!(!descriptors.is_empty(), "{head} was given back twice");
        self.free.extend(descriptors.drain(..).rev());
        self.next_used = self.next_used.wrapping_add(1);
        Some(Used { head, written: element.length })
    }

    /// Ask for an interrupt for the next used buffer. True if there is one already.
    #[must_use]
    pub fn enable_interrupts(&mut self) -> bool {
        if self.features.event_idx {
            let used_event = self.available.atomic(2 + usize::from(self.layout.size));
            used_event.store(self.next_used, Ordering::Relaxed);
        }
        self.available.atomic(0).store(0, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        self.has_used()
    }

    /// Ask for no interrupts: the driver polls.
    pub fn disable_interrupts(&mut self) {
        if self.features.event_idx {
            let used_event = self.available.atomic(2 + usize::from(self.layout.size));
            let passed = self.next_used.wrapping_sub(1);
            used_event.store(passed, Ordering::Relaxed);
        }
        self.available.atomic(0).store(1, Ordering::Relaxed);
    }

    fn enter(&mut self, head: u16) {
        let slot = usize::from(self.next_available % self.layout.size);
        self.available.write(2 + slot, head);
        self.next_available = self.next_available.wrapping_add(1);
    }
}

fn raw(buffer: Buffer, next: Option<u16>) -> RawDescriptor {
    let (address, length, write) = match buffer {
        Buffer::Readable { address, length } => (address, length, 0),
        Buffer::Writable { address, length } => (address, length, DESCRIPTOR_WRITE),
    };
    RawDescriptor {
        address,
        length,
        flags: write | next.map_or(0, |_| DESCRIPTOR_NEXT),
        next: next.unwrap_or(0),
    }
}
