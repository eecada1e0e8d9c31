//! The device side of a packed virtqueue (virtio 1.3 section 2.8).
//!
//! ```text
//!   descriptor ring     address | length, id, flags       both sides write
//!   driver events       place | flags                     driver writes: interrupts wanted
//!   device events       place | flags                     device writes: kicks wanted
//!
//!     next_used                      next_available
//!         ▼                                ▼
//!   ──────┬────────────────────────────────┬──────────────────┬─────────
//!   used  │ the device's; descriptors here │ available        │ used, or never used
//!         │ may be overwritten             │                  │
//!
//!   pop:       flags ──acquire──► descriptors ──copy──► record ──► chain
//!   push_used: a used descriptor at next_used, unless it is the first of its batch
//!   publish:   the first used descriptor ──release── SeqCst fence ──► read the driver's events
//!   enable:    device events ── SeqCst fence ──► read the flags at next_available: more work?
//! ```
//!
//! The driver looks at used descriptors in order, so that the first one, written last, shows it the
//! whole batch.

mod cursor;
mod record;
mod ring;

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::atomic::{Ordering, fence};

pub(super) use cursor::Cursor;
pub(super) use ring::DescriptorRing;

use self::record::PackedRecord;
use self::ring::UsedDescriptor;
use super::chain::Chain;
use super::error::{QueueError, RingPart};
use super::host::{DESCRIPTOR_INDIRECT, DESCRIPTOR_NEXT, HostArray, PackedDescriptor};
use super::inflight::InflightRecord;
use super::{Availability, Interrupt, QueueLayout, RingFeatures};
use crate::memory::{GuestAddress, GuestMemory};
use crate::simulation::{Bug, is_planted, point};
use crate::virtio::backend::RingPosition;

/// Largest packed queue (virtio 1.3 section 2.8).
const MAX_SIZE: u16 = 32768;
/// Where the fields of an event suppression structure are, in units of two bytes.
pub(super) const EVENT_PLACE: usize = 0;
pub(super) const EVENT_FLAGS: usize = 1;
/// `RING_EVENT_FLAGS_ENABLE`: always notify.
pub(super) const EVENTS_ON: u16 = 0;
/// `RING_EVENT_FLAGS_DISABLE`: never.
pub(super) const EVENTS_OFF: u16 = 1;
/// `RING_EVENT_FLAGS_DESC`: for one descriptor; only with `VIRTIO_F_EVENT_IDX`.
pub(super) const EVENTS_AT_PLACE: u16 = 2;

/// What the driver was told last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kicks {
    On,
    Off,
}

/// Descriptors from the next available one on that were seen to be available.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    descriptors: u16,
    buffers: u16,
}

/// A packed virtqueue.
#[derive(Debug)]
pub struct PackedQueue {
    size: u16,
    features: RingFeatures,
    ring: DescriptorRing,
    driver_events: HostArray<u16>,
    device_events: HostArray<u16>,
    next_available: Cursor,
    seen: Seen,
    /// Ahead of what was published by the batch.
    next_used: Cursor,
    /// Descriptors that were taken and not yet published.
    held: u16,
    /// Buffers that were taken and not yet published, without those still to be recovered.
    in_flight: u16,
    batch: Vec<u16>,
    batch_descriptors: u16,
    /// The first used descriptor of the batch.
    first: Option<UsedDescriptor>,
    /// Whether the driver may hold an event place from before this queue was served here.
    first_batch: bool,
    kicks: Kicks,
    /// Buffers that a predecessor took and did not give back.
    recovered: VecDeque<u16>,
    taken_over: bool,
    record: PackedRecord,
    /// Keeps the rings mapped; the last field that needs to go.
    memory: Rc<GuestMemory>,
}

impl PackedQueue {
    /// Resolve and check the rings. A live record wins over `position`.
    pub fn new(
        memory: &Rc<GuestMemory>,
        layout: &QueueLayout,
        features: RingFeatures,
        record: InflightRecord,
        position: Option<RingPosition>,
    ) -> Result<Self, QueueError> {
        let size = layout.size;
        if size == 0 || size > MAX_SIZE {
            let rule = "a packed queue has 1 to 32768 descriptors";
            return Err(QueueError::InvalidSize { size, rule });
        }
        let (driver, device) = (RingPart::Available, RingPart::Used);
        // SAFETY: none of the arrays outlives the clone of `memory` in the same struct.
        let (ring, driver_events, device_events) = unsafe {
            (
                DescriptorRing::resolve(memory, layout.descriptor_table, size)?,
                HostArray::resolve_ring(memory, driver, layout.available_ring, 2, 4)?,
                HostArray::resolve_ring(memory, device, layout.used_ring, 2, 4)?,
            )
        };
        let record = PackedRecord::new(record, size);
        let is_live = record.is_live();
        // A live record knows better.
        let start = Cursor::start(position.filter(|_| !is_live), size)?;
        let mut queue = Self {
            size,
            features,
            ring,
            driver_events,
            device_events,
            next_available: start,
            seen: Seen::default(),
            next_used: start,
            held: 0,
            in_flight: 0,
            batch: Vec::with_capacity(usize::from(size)),
            batch_descriptors: 0,
            first: None,
            first_batch: true,
            // As the driver finds the ring, or as a predecessor left it.
            kicks: Kicks::On,
            recovered: VecDeque::new(),
            taken_over: false,
            record,
            memory: memory.clone(),
        };
        if is_live {
            queue.take_over()?;
        } else {
            queue.record.start(start)?;
        }
        Ok(queue)
    }

    /// Take the next buffer. False if there is none.
    pub fn pop(&mut self, chain: &mut Chain) -> Result<bool, QueueError> {
        let id = match self.recovered.pop_front() {
            Some(id) => id,
            None if self.has_fresh() => self.take()?,
            None => return Ok(false),
        };
        self.in_flight += 1;
        self.fill(id, chain)?;
        Ok(true)
    }

    /// Give a buffer back with `written` bytes in its writable part. The driver sees it after
    /// [`PackedQueue::publish`].
    #[inline]
    pub fn push_used(&mut self, id: u16, written: u32) {
        let count = self.record.count(id);
        debug_assert_ne!(count, 0, "buffer {id} is given back but was not taken");
        self.record.done(id, self.next_used);
        let used = UsedDescriptor { at: self.next_used, id, written };
        match self.first {
            None => self.first = Some(used),
            Some(_) => self.ring.write_used(used),
        }
        self.batch.push(id);
        self.batch_descriptors += count;
        self.next_used = self.next_used.after(count, self.size);
    }

    /// Leave a buffer that was taken for a later [`PackedQueue::pop`]: nothing was done with it.
    pub fn put_back(&mut self, id: u16) {
        self.in_flight -= 1;
        self.recovered.push_back(id);
    }

    /// How many buffers were given back since the driver was shown any.
    pub fn unpublished(&self) -> u16 {
        self.batch.len() as u16
    }

    /// Show the driver all buffers that were given back; says whether it wants an interrupt.
    pub fn publish(&mut self) -> Interrupt {
        let Some(first) = self.first.take() else {
            return Interrupt::NotWanted;
        };
        // The rest of the batch is there before the descriptor that leads to it.
        self.ring.write_used(first);
        self.record.stand(self.next_used);
        self.in_flight -= self.batch.len() as u16;
        for id in self.batch.drain(..) {
            self.record.release(id);
        }
        let descriptors = std::mem::take(&mut self.batch_descriptors);
        self.held -= descriptors;
        // The batch is visible before the driver's wish is read; pairs with the driver, which
        // writes its wish before it looks at the ring again.
        fence(Ordering::SeqCst);
        let first_batch = std::mem::replace(&mut self.first_batch, false);
        let wanted = match self.driver_events.atomic(EVENT_FLAGS).load(Ordering::Acquire) {
            EVENTS_OFF => false,
            EVENTS_AT_PLACE if self.features.event_idx => {
                let place = self.driver_events.atomic(EVENT_PLACE).load(Ordering::Relaxed);
                first_batch || self.next_used.passed(place, descriptors, self.size)
            }
            _ => true,
        };
        if wanted { Interrupt::Wanted } else { Interrupt::NotWanted }
    }

    /// Whether the driver made something available, by one load. May say so for a broken ring.
    #[inline]
    pub fn has_available(&self) -> bool {
        !self.recovered.is_empty() || self.has_fresh()
    }

    /// How many buffers wait to be taken; a broken ring may say anything. Looks only at descriptors
    /// that were not seen before and at the one after them.
    pub fn available(&mut self) -> u16 {
        while self.seen.descriptors < self.size - self.held {
            let cursor = self.next_available.after(self.seen.descriptors, self.size);
            let flags = self.ring.flags(cursor);
            if !cursor.is_available(flags) {
                break;
            }
            self.seen.descriptors += 1;
            self.seen.buffers += u16::from(flags & DESCRIPTOR_NEXT == 0);
        }
        self.seen.buffers.saturating_add(self.recovered.len() as u16)
    }

    /// Have the beginning of what was just made available brought near. Nothing of it is believed.
    #[inline]
    pub(super) fn bring_near(&self) {
        let address = self.ring.read(self.next_available).address;
        self.memory.prefetch_for_write(GuestAddress(address));
    }

    /// The driver need not kick: the device looks by itself.
    #[inline]
    pub fn disable_kicks(&mut self) {
        if self.kicks == Kicks::On {
            self.kicks = Kicks::Off;
            self.device_events.store(EVENT_FLAGS, EVENTS_OFF, Ordering::Relaxed);
        }
    }

    /// The driver has to kick from now on, unless there is work already.
    pub fn enable_kicks(&mut self) -> Availability {
        self.kicks = Kicks::On;
        let flags = if self.features.event_idx {
            let place = self.next_available.bits();
            self.device_events.store(EVENT_PLACE, place, Ordering::Relaxed);
            EVENTS_AT_PLACE
        } else {
            EVENTS_ON
        };
        // Release: the place is there before the flags that point to it.
        self.device_events.store(EVENT_FLAGS, flags, Ordering::Release);
        // The wish is visible before the ring is read again; pairs with the driver, which writes
        // the ring before it reads the wish.
        fence(Ordering::SeqCst);
        point();
        if is_planted(Bug::LostWakeUp) {
            return Availability::Empty;
        }
        if self.has_available() { Availability::More } else { Availability::Empty }
    }

    /// Whether buffers of a predecessor wait to be taken.
    pub fn is_recovering(&self) -> bool {
        !self.recovered.is_empty()
    }

    /// Whether the queue was taken over from a predecessor that died.
    pub fn was_taken_over(&self) -> bool {
        self.taken_over
    }

    /// Buffers that were taken and not yet published, without those still to be recovered.
    pub fn in_flight(&self) -> u16 {
        self.in_flight
    }

    /// The order in which a buffer was taken that is in flight.
    pub fn order(&self, id: u16) -> u64 {
        self.record.order(id)
    }

    /// Where the queue stands.
    pub fn position(&self) -> RingPosition {
        RingPosition::Packed {
            next_available: self.next_available.bits(),
            next_used: self.next_used.bits(),
        }
    }

    /// Number of descriptors.
    pub fn size(&self) -> u16 {
        self.size
    }

    /// Nothing is in flight any more and nobody shall take the queue over.
    pub fn retire(self) -> InflightRecord {
        self.record.retire()
    }

    /// Go on where a predecessor died.
    fn take_over(&mut self) -> Result<(), QueueError> {
        let recovered = self.record.recover(|cursor| self.ring.flags(cursor))?;
        // Used descriptors of a batch that was not published must not look used later on.
        for ahead in 0..recovered.descriptors {
            self.ring.make_available(recovered.stand.after(ahead, self.size));
        }
        self.next_used = recovered.stand;
        self.next_available = recovered.stand.after(recovered.descriptors, self.size);
        self.held = recovered.descriptors;
        self.recovered = recovered.ids.into();
        self.taken_over = true;
        Ok(())
    }

    #[inline]
    fn has_fresh(&self) -> bool {
        self.next_available.is_available(self.ring.flags(self.next_available))
    }

    /// Take the chain at the next available descriptor: its buffer id.
    fn take(&mut self) -> Result<u16, QueueError> {
        let size = self.size;
        let mut cursor = self.next_available;
        let mut count = 0;
        self.record.stage();
        let id = loop {
            // A driver makes only descriptors available that it holds.
            if count == size - self.held {
                return Err(QueueError::RingOverrun { size });
            }
            let descriptor = self.ring.read(cursor);
            let PackedDescriptor { id, flags, .. } = descriptor;
            if !cursor.is_available(flags) {
                return Err(QueueError::ChainNotAvailable { position: cursor.position() });
            }
            let ends = flags & DESCRIPTOR_NEXT == 0;
            if flags & DESCRIPTOR_INDIRECT != 0 && (count > 0 || !ends) {
                return Err(QueueError::IndirectNotAlone { head: id });
            }
            self.record.copy(descriptor);
            count += 1;
            cursor = cursor.after(1, size);
            if ends {
                // Only the last descriptor has to have it.
                break id;
            }
        };
        if id >= size {
            return Err(QueueError::IdOutOfRange { id, size });
        }
        self.record.take(id)?;
        self.held += count;
        self.next_available = cursor;
        self.seen.descriptors = self.seen.descriptors.saturating_sub(count);
        self.seen.buffers = self.seen.buffers.saturating_sub(1);
        Ok(id)
    }

    /// Fill `chain` from the descriptors of a buffer in flight.
    fn fill(&self, id: u16, chain: &mut Chain) -> Result<(), QueueError> {
        chain.begin(id);
        for descriptor in self.record.chain(id) {
            let PackedDescriptor { address, length, flags, .. } = descriptor;
            if flags & DESCRIPTOR_INDIRECT == 0 {
                chain.push(address, length, flags)?;
            } else if self.features.indirect {
                Self::fill_indirect(&chain.indirect_table(address, length)?, chain)?;
            } else {
                return Err(QueueError::IndirectNotNegotiated { head: id });
            }
        }
        Ok(())
    }

    /// In a table all descriptors belong to the chain, in order, and only `WRITE` means something.
    fn fill_indirect(
        table: &HostArray<PackedDescriptor>,
        chain: &mut Chain,
    ) -> Result<(), QueueError> {
        // As many as the chain has room for: another one is an error.
        for index in 0..table.length() {
            let PackedDescriptor { address, length, flags, .. } = table.read(index);
            if flags & DESCRIPTOR_INDIRECT != 0 {
                return Err(QueueError::NestedIndirect { head: chain.head() });
            }
            chain.push(address, length, flags)?;
        }
        Ok(())
    }
}
