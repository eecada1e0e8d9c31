//! The device side of a split virtqueue (virtio 1.3 section 2.7).
//!
//! ```text
//!   descriptor table   16 bytes each: address, length, flags, next
//!   available ring     flags | idx | ring[size] | used_event     driver writes, device reads
//!   used ring          flags | idx | ring[size] | avail_event    device writes, driver reads
//!
//!   pop:       avail.idx ──acquire──► ring entry ──► chain
//!   push_used: used.ring[next_used] = (head, written)               nothing visible yet
//!   publish:   used.idx = next_used ──release── SeqCst fence ──► read used_event: interrupt?
//!   enable:    avail_event = next_available ── SeqCst fence ──► read avail.idx: more work?
//! ```
//!
//! Both fences pair with the driver's own full barrier between its index and the other side's event
//! field: without them each side could read the other's old value, and both would sleep.

mod ahead;

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::atomic::{Ordering, fence};

use super::chain::Chain;
use super::error::{QueueError, RingPart};
use super::host::{DESCRIPTOR_INDIRECT, DESCRIPTOR_NEXT, HostArray, RawDescriptor, UsedElement};
use super::inflight::InflightRecord;
use super::{Availability, Interrupt, QueueLayout, RingFeatures};
use crate::memory::GuestMemory;
use crate::simulation::{Bug, is_planted, point};
use crate::virtio::backend::{RingLayout, RingPosition};

/// Largest split queue (virtio 1.3 section 2.7).
const MAX_SIZE: u16 = 32768;
/// `avail.flags`: the driver wants no interrupts.
const AVAILABLE_NO_INTERRUPT: u16 = 1;
/// `used.flags`: the device wants no kicks.
const USED_NO_NOTIFY: u16 = 1;
/// Where `flags`, `idx` and `ring` are in both rings, in units of two bytes.
const FLAGS: usize = 0;
const INDEX: usize = 1;
const RING: usize = 2;

/// What the driver was told last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kicks {
    On,
    Off,
}

/// A split virtqueue.
#[derive(Debug)]
pub struct SplitQueue {
    size: u16,
    features: RingFeatures,
    descriptors: HostArray<RawDescriptor>,
    /// The whole available ring as 16-bit fields.
    available: HostArray<u16>,
    /// `flags` and `idx` of the used ring.
    used_header: HostArray<u16>,
    used_ring: HostArray<UsedElement>,
    /// `avail_event` after the used ring, if notifications go by index.
    available_event: Option<HostArray<u16>>,
    next_available: u16,
    /// The last value read from `avail.idx`.
    seen_available: u16,
    /// The next used element to write; ahead of `published_used` by the batch.
    next_used: u16,
    published_used: u16,
    /// Whether the driver may hold a `used_event` from before this queue was served here.
    first_batch: bool,
    batch: Vec<u16>,
    kicks: Kicks,
    /// Buffers that a predecessor took and did not give back.
    recovered: VecDeque<u16>,
    taken_over: bool,
    record: InflightRecord,
    /// Keeps the rings mapped; the last field that needs to go.
    memory: Rc<GuestMemory>,
}

impl SplitQueue {
    /// Resolve and check the rings. A live record wins over `position`.
    pub fn new(
        memory: &Rc<GuestMemory>,
        layout: &QueueLayout,
        features: RingFeatures,
        mut record: InflightRecord,
        position: Option<RingPosition>,
    ) -> Result<Self, QueueError> {
        let size = layout.size;
        if !size.is_power_of_two() || size > MAX_SIZE {
            let rule = "a split queue has a power of two up to 32768";
            return Err(QueueError::InvalidSize { size, rule });
        }
        let count = usize::from(size);
        let used_event = usize::from(features.event_idx);
        // SAFETY: none of the arrays outlives the clone of `memory` in the same struct.
        let (descriptors, available, used_header, used_ring, available_event) = unsafe {
            let (table, driver) = (RingPart::Descriptors, RingPart::Available);
            let (device, used) = (RingPart::Used, layout.used_ring);
            let ring_at = used.wrapping_add(4);
            let event_at = ring_at.wrapping_add(8 * u64::from(size));
            (
                HostArray::resolve_ring(memory, table, layout.descriptor_table, count, 16)?,
                HostArray::resolve_ring(
                    memory,
                    driver,
                    layout.available_ring,
                    RING + count + used_event,
                    2,
                )?,
                HostArray::resolve_ring(memory, device, used, RING, 4)?,
                HostArray::resolve_ring(memory, device, ring_at, count, 4)?,
                features
                    .event_idx
                    .then(|| HostArray::resolve_ring(memory, device, event_at, 1, 2))
                    .transpose()?,
            )
        };
        let ring_used = used_header.atomic(INDEX).load(Ordering::Acquire);
        let taken_over = record.is_live(size, RingLayout::Split);
        let (next_available, next_used, recovered) = if taken_over {
            let heads = record.recover(size, ring_used);
            let in_flight = if is_planted(Bug::StaleIndex) { 0 } else { heads.len() as u16 };
            let taken = ring_used.wrapping_add(in_flight);
            (taken, ring_used, heads)
        } else {
            record.start(size, RingLayout::Split, 0)?;
            match position {
                None => (0, 0, Vec::new()),
                Some(RingPosition::Split { next_available, next_used })
                    if next_available == next_used =>
                {
                    (next_available, next_used, Vec::new())
                }
                Some(RingPosition::Split { .. }) => {
                    let what = "buffers are in flight, but there is no record of which";
                    return Err(QueueError::InvalidPosition(what));
                }
                Some(RingPosition::Packed { .. }) => {
                    let what = "it is of a packed queue";
                    return Err(QueueError::InvalidPosition(what));
                }
            }
        };
        Ok(Self {
            size,
            features,
            descriptors,
            available,
            used_header,
            used_ring,
            available_event,
            next_available,
            seen_available: next_available,
            next_used,
            published_used: next_used,
            first_batch: true,
            batch: Vec::with_capacity(count),
            // As the driver finds the ring, or as a predecessor left it.
            kicks: Kicks::On,
            recovered: recovered.into(),
            taken_over,
            record,
            memory: memory.clone(),
        })
    }

    /// Take the next buffer. False if there is none.
    pub fn pop(&mut self, chain: &mut Chain) -> Result<bool, QueueError> {
        if let Some(head) = self.recovered.pop_front() {
            self.walk(head, chain)?;
            return Ok(true);
        }
        if self.next_available == self.seen_available && !self.look()? {
            return Ok(false);
        }
        let slot = usize::from(self.next_available & (self.size - 1));
        let head = self.available.atomic(RING + slot).load(Ordering::Relaxed);
        if head >= self.size {
            let size = self.size;
            return Err(QueueError::HeadOutOfRange { head, size });
        }
        self.record.take(head)?;
        self.next_available = self.next_available.wrapping_add(1);
        self.look_ahead();
        self.walk(head, chain)?;
        Ok(true)
    }

    /// Give a buffer back with `written` bytes in its writable part. The driver sees it after
    /// [`SplitQueue::publish`].
    #[inline]
    pub fn push_used(&mut self, head: u16, written: u32) {
        self.record.done(head, self.next_used);
        if is_planted(Bug::MissingBarrier) {
            self.used_header.store(INDEX, self.next_used.wrapping_add(1), Ordering::Release);
        }
        let slot = usize::from(self.next_used & (self.size - 1));
        let element = UsedElement { id: u32::from(head), length: written };
        self.used_ring.write(slot, element);
        self.batch.push(head);
        self.next_used = self.next_used.wrapping_add(1);
    }

    /// Leave a buffer that was taken for a later [`SplitQueue::pop`]: nothing was done with it.
    pub fn put_back(&mut self, head: u16) {
        self.recovered.push_back(head);
    }

    /// How many buffers were given back since the driver was shown any.
    pub fn unpublished(&self) -> u16 {
        self.batch.len() as u16
    }

    /// Show the driver all buffers that were given back; says whether it wants an interrupt.
    pub fn publish(&mut self) -> Interrupt {
        let (old, new) = (self.published_used, self.next_used);
        if old == new {
            return Interrupt::NotWanted;
        }
        // Release: the elements are there before the index that names them.
        self.used_header.store(INDEX, new, Ordering::Release);
        self.published_used = new;
        for head in self.batch.drain(..) {
            self.record.release(head);
        }
        // The index is visible before the driver's wish is read; pairs with the driver, which
        // writes its wish before it reads the index again.
        fence(Ordering::SeqCst);
        let wanted = if self.features.event_idx {
            let event = self.available.atomic(RING + usize::from(self.size));
            let event = event.load(Ordering::Relaxed);
            self.first_batch || crosses(event, old, new)
        } else {
            let flags = self.available.atomic(FLAGS).load(Ordering::Relaxed);
            flags & AVAILABLE_NO_INTERRUPT == 0
        };
        self.first_batch = false;
        if wanted { Interrupt::Wanted } else { Interrupt::NotWanted }
    }

    /// Whether the driver made something available, by one load. May say so for a broken ring.
    #[inline]
    pub fn has_available(&self) -> bool {
        self.available() != 0
    }

    /// How many buffers wait to be taken, by one load; a broken ring may say anything.
    #[inline]
    pub fn available(&self) -> u16 {
        let index = self.available.atomic(INDEX).load(Ordering::Relaxed);
        let fresh = index.wrapping_sub(self.next_available);
        fresh.saturating_add(self.recovered.len() as u16)
    }

    /// The driver need not kick: the device looks by itself.
    #[inline]
    pub fn disable_kicks(&mut self) {
        if self.kicks == Kicks::Off {
            return;
        }
        self.kicks = Kicks::Off;
        if let Some(event) = &self.available_event {
            // One behind: the driver passes that only once in 65536 buffers.
            let passed = self.next_available.wrapping_sub(1);
            event.atomic(0).store(passed, Ordering::Relaxed);
        } else {
            let flags = self.used_header.atomic(FLAGS);
            flags.store(USED_NO_NOTIFY, Ordering::Relaxed);
        }
    }

    /// The driver has to kick from now on, unless there is work already.
    pub fn enable_kicks(&mut self) -> Availability {
        self.kicks = Kicks::On;
        match &self.available_event {
            Some(event) => {
                let event = event.atomic(0);
                event.store(self.next_available, Ordering::Relaxed);
            }
            None => self.used_header.atomic(FLAGS).store(0, Ordering::Relaxed),
        }
        // The wish is visible before the index is read again; pairs with the driver, which writes
        // the index before it reads the wish.
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
        let taken = self.next_available.wrapping_sub(self.published_used);
        taken - self.recovered.len() as u16
    }

    /// The order in which a buffer was taken that is in flight.
    pub fn order(&self, head: u16) -> u64 {
        self.record.slot(head).map_or(0, |slot| slot.order)
    }

    /// Where the queue stands.
    pub fn position(&self) -> RingPosition {
        RingPosition::Split { next_available: self.next_available, next_used: self.next_used }
    }

    /// Number of descriptors.
    pub fn size(&self) -> u16 {
        self.size
    }

    /// Nothing is in flight any more and nobody shall take the queue over.
    pub fn retire(self) -> InflightRecord {
        self.record.retire();
        self.record
    }

    /// Read the driver's index anew; says whether it moved.
    fn look(&mut self) -> Result<bool, QueueError> {
        // Acquire: the ring entries and descriptors are there before the index that names them.
        let index = self.available.atomic(INDEX).load(Ordering::Acquire);
        // A driver makes only descriptors available that it holds, and it holds those that were
        // published to it: it is never more than the size ahead of that.
        if index.wrapping_sub(self.published_used) > self.size
            || index.wrapping_sub(self.published_used)
                < self.next_available.wrapping_sub(self.published_used)
        {
            return Err(QueueError::AvailableIndexJumped {
                index,
                used: self.published_used,
                size: self.size,
            });
        }
        self.seen_available = index;
        Ok(index != self.next_available)
    }

    /// Fill `chain` from the descriptors that start at `head`.
    fn walk(&self, head: u16, chain: &mut Chain) -> Result<(), QueueError> {
        chain.begin(head);
        if let Some((address, length)) = Self::walk_table(&self.descriptors, head, head, chain)? {
            if !self.features.indirect {
                return Err(QueueError::IndirectNotNegotiated { head });
            }
            let table = chain.indirect_table(address, length)?;
            if Self::walk_table(&table, 0, head, chain)?.is_some() {
                return Err(QueueError::NestedIndirect { head });
            }
        }
        Ok(())
    }

    /// Walk one table; returns the indirect table that the chain ends with, if it does.
    fn walk_table(
        table: &HostArray<RawDescriptor>,
        first: u16,
        head: u16,
        chain: &mut Chain,
    ) -> Result<Option<(u64, u32)>, QueueError> {
        let mut index = usize::from(first);
        // Each descriptor at most once: a longer walk is a loop.
        for _ in 0..table.length() {
            let descriptor = table.read(index);
            if descriptor.flags & DESCRIPTOR_INDIRECT != 0 {
                if descriptor.flags & DESCRIPTOR_NEXT != 0 {
                    return Err(QueueError::IndirectWithNext { head });
                }
                return Ok(Some((descriptor.address, descriptor.length)));
            }
            chain.push(descriptor.address, descriptor.length, descriptor.flags)?;
            if descriptor.flags & DESCRIPTOR_NEXT == 0 {
                return Ok(None);
            }
            index = usize::from(descriptor.next);
            if index >= table.length() {
                return Err(QueueError::NextOutOfRange {
                    head,
                    next: descriptor.next,
                    size: table.length() as u32,
                });
            }
        }
        Err(QueueError::Loop { head })
    }
}

/// Whether an index that moves from `old` to `new` passes the one after `event` (virtio 1.3
/// section 2.7.10).
pub(super) fn crosses(event: u16, old: u16, new: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}
