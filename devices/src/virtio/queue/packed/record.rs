//! The in-flight record of a packed ring.
//!
//! Used descriptors overwrite the ring wherever the device stands, also descriptors of buffers that
//! are still in flight. So the record has a copy of these, and it knows where the ring stands, which
//! a packed ring does not say.
//!
//! ```text
//!   word 1          stand: the next used descriptor, as the driver has seen it published
//!   slot of id      0, or taken in this order [, done: its used descriptor will be at this place]
//!   chain of id     first entry | number of descriptors
//!   entry           address | length, flags, next entry of the chain
//! ```
//!
//! # Why any instruction may be the last
//!
//! As for split rings only the order of the stores matters. In the life of a buffer:
//!
//! 1. Its descriptors are copied to free entries, then `chain` names them. *Before:* its slot is
//!    zero and nobody looks at either.
//! 2. `take`: the slot gets the order. *Before:* the buffer is still available. *After:* it is in
//!    flight, and the ring is no longer needed for it.
//! 3. `done`: the slot gets the place of its used descriptor. The used descriptors of a batch are
//!    written to the ring, all but the first one: the driver looks at none beyond the first.
//! 4. The first used descriptor is written, by one store: this is the commit.
//! 5. `stand`: the place after the batch.
//! 6. `release`: the slots of the batch are zero. Until then no buffer is taken.
//!
//! A successor finds the stand and the slots that are done:
//!
//! - Slots before the stand: the batch is committed, it died between 5 and 6. They become free.
//! - Slots from the stand on: the first of them is at the stand, and the descriptor there tells
//!   whether the batch was committed. While it is not, the descriptor is as the driver made it
//!   available, with `USED` the opposite of the wrap counter. (When the chain was taken that was
//!   checked.) The commit makes them equal, and so they stay if the driver makes the descriptor
//!   available again for the next pass. If it was committed, the successor does 5 and 6. Otherwise
//!   all of them are in flight.
//!
//! What is in flight lies from the stand on without a gap, so the next available descriptor follows
//! from the number of descriptors in flight. Used descriptors that were written in 3 and not
//! committed must not be taken for real when the successor comes there with another batch: it makes
//! everything in flight look available again before it commits anything.
//!
//! A successor that dies in the middle of this leaves a state of the same kind.
//!
//! A record that a hostile process wrote gives an error, or buffers each at most once and nothing
//! out of range.

use super::super::error::QueueError;
use super::super::host::PackedDescriptor;
use super::super::inflight::InflightRecord;
use super::Cursor;
use crate::virtio::backend::RingLayout;

/// The entries of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Place {
    first: u16,
    last: u16,
    /// Zero while the buffer is not in flight.
    count: u16,
}

/// What was in flight when the predecessor died.
#[derive(Debug)]
pub(super) struct Recovered {
    /// Buffers in the order in which they were taken.
    pub(super) ids: Vec<u16>,
    /// Where the ring stands.
    pub(super) stand: Cursor,
    /// Descriptors of these buffers.
    pub(super) descriptors: u16,
}

/// The record of a packed queue. What it needs to find its way is kept here; the shared memory is
/// for the successor.
#[derive(Debug)]
pub(super) struct PackedRecord {
    record: InflightRecord,
    size: u16,
    /// By buffer id.
    places: Box<[Place]>,
    /// The next entry of a chain, or the next free one.
    links: Box<[u16]>,
    free: u16,
    /// A chain that is being copied, and its next entry.
    staged: Place,
    next_entry: u16,
}

impl PackedRecord {
    /// For a queue of `size`, with nothing known of what is in it.
    pub(super) fn new(record: InflightRecord, size: u16) -> Self {
        Self {
            record,
            size,
            places: vec![Place::default(); usize::from(size)].into_boxed_slice(),
            links: (1..=size).collect(),
            free: 0,
            staged: Place::default(),
            next_entry: 0,
        }
    }

    pub(super) fn is_live(&self) -> bool {
        self.record.is_live(self.size, RingLayout::Packed)
    }

    pub(super) fn start(&mut self, stand: Cursor) -> Result<(), QueueError> {
        self.record.start(self.size, RingLayout::Packed, stand.bits())
    }

    /// Begin to copy a chain.
    #[inline]
    pub(super) fn stage(&mut self) {
        self.staged = Place { first: self.free, last: self.free, count: 0 };
        self.next_entry = self.free;
    }

    /// Copy the next descriptor. There is an entry for each descriptor of the ring that is not in
    /// flight.
    #[inline]
    pub(super) fn copy(&mut self, descriptor: PackedDescriptor) {
        let entry = self.next_entry;
        let next = self.links[usize::from(entry)];
        let at = self.entry_at(entry);
        let PackedDescriptor { address, length, flags, .. } = descriptor;
        self.record.store_packed(at, address);
        let rest = u64::from(length) | u64::from(flags) << 32 | u64::from(next) << 48;
        self.record.store_packed(at + 1, rest);
        self.staged.last = entry;
        self.staged.count += 1;
        self.next_entry = next;
    }

    /// The chain that was copied is now in flight as `id`, less than the size. Fails if it was
    /// before.
    #[inline]
    pub(super) fn take(&mut self, id: u16) -> Result<(), QueueError> {
        if self.places[usize::from(id)].count != 0 {
            return Err(QueueError::HeadInFlight { head: id });
        }
        let chain = u64::from(self.staged.first) | u64::from(self.staged.count) << 16;
        self.record.store_packed(usize::from(id), chain);
        self.record.take(id)?;
        self.places[usize::from(id)] = self.staged;
        self.free = self.next_entry;
        Ok(())
    }

    /// How many descriptors a buffer in flight has.
    #[inline]
    pub(super) fn count(&self, id: u16) -> u16 {
        self.places[usize::from(id)].count
    }

    /// The descriptors of a buffer in flight.
    #[inline]
    pub(super) fn chain(&self, id: u16) -> impl Iterator<Item = PackedDescriptor> {
        let place = self.places[usize::from(id)];
        let mut entry = place.first;
        (0..place.count).map(move |_| {
            let (descriptor, _) = self.load(entry, id);
            entry = self.links[usize::from(entry)];
            descriptor
        })
    }

    #[inline]
    pub(super) fn done(&self, id: u16, at: Cursor) {
        self.record.done(id, at.bits());
    }

    /// The order in which a buffer was taken.
    pub(super) fn order(&self, id: u16) -> u64 {
        self.record.slot(id).map_or(0, |slot| slot.order)
    }

    #[inline]
    pub(super) fn stand(&self, stand: Cursor) {
        self.record.set_stand(stand.bits());
    }

    #[inline]
    pub(super) fn release(&mut self, id: u16) {
        self.record.release(id);
        let place = std::mem::take(&mut self.places[usize::from(id)]);
        if place.count > 0 {
            self.links[usize::from(place.last)] = self.free;
            self.free = place.first;
        }
    }

    pub(super) fn retire(self) -> InflightRecord {
        self.record.retire();
        self.record
    }

    /// What a predecessor left. `flags_at` reads the flags of a descriptor of the ring.
    pub(super) fn recover(
        &mut self,
        flags_at: impl FnOnce(Cursor) -> u16,
    ) -> Result<Recovered, QueueError> {
        let damaged = || QueueError::RecordMismatch("it is damaged");
        let stand = Cursor::from_bits(self.record.stand(), self.size).ok_or_else(damaged)?;
        let mut in_flight = Vec::new();
        let mut published = Vec::new();
        // The batch that was not recorded as published.
        let mut batch = Vec::new();
        let mut batch_is_at_stand = false;
        for id in 0..self.size {
            let Some(slot) = self.record.slot(id) else { continue };
            match slot.done_at {
                None => in_flight.push((slot.order, id)),
                Some(bits) => {
                    let at = Cursor::from_bits(bits, self.size).ok_or_else(damaged)?;
                    if at.distance_from(stand, self.size) < u32::from(self.size) {
                        batch.push((slot.order, id));
                        batch_is_at_stand |= at == stand;
                    } else {
                        published.push(id);
                    }
                }
            }
        }
        let mut stand = stand;
        if batch_is_at_stand && stand.was_used(flags_at(stand)) {
            let mut used = 0u16;
            for (_, id) in &batch {
                let count = (self.record.load_packed(usize::from(*id)) >> 16) as u16;
                used = used
                    .checked_add(count)
                    .filter(|used| *used <= self.size)
                    .ok_or_else(damaged)?;
                published.push(*id);
            }
            stand = stand.after(used, self.size);
            self.stand(stand);
        } else {
            in_flight.append(&mut batch);
        }
        for id in published {
            self.record.release(id);
        }
        let descriptors = self.adopt(in_flight.iter().map(|(_, id)| *id)).ok_or_else(damaged)?;
        Ok(Recovered { ids: self.record.resume(in_flight), stand, descriptors })
    }

    /// Find the chains of buffers in flight; the other entries are free. Gives the number of
    /// descriptors. None if a chain leaves the entries or meets another one.
    fn adopt(&mut self, ids: impl Iterator<Item = u16>) -> Option<u16> {
        let mut taken = vec![false; usize::from(self.size)];
        let mut descriptors = 0;
        for id in ids {
            let chain = self.record.load_packed(usize::from(id));
            let (first, count) = (chain as u16, (chain >> 16) as u16);
            if count == 0 {
                return None;
            }
            let mut entry = first;
            let mut last = first;
            for _ in 0..count {
                let mark = taken.get_mut(usize::from(entry))?;
                if std::mem::replace(mark, true) {
                    return None;
                }
                let (_, next) = self.load(entry, id);
                self.links[usize::from(entry)] = next;
                last = entry;
                entry = next;
            }
            // Each entry is in one chain, so this is the size at most.
            descriptors += count;
            self.places[usize::from(id)] = Place { first, last, count };
        }
        self.free = self.size;
        for entry in (0..self.size).rev().filter(|entry| !taken[usize::from(*entry)]) {
            self.links[usize::from(entry)] = self.free;
            self.free = entry;
        }
        Some(descriptors)
    }

    fn load(&self, entry: u16, id: u16) -> (PackedDescriptor, u16) {
        let at = self.entry_at(entry);
        let rest = self.record.load_packed(at + 1);
        let flags = (rest >> 32) as u16;
        let address = self.record.load_packed(at);
        (PackedDescriptor { address, length: rest as u32, id, flags }, (rest >> 48) as u16)
    }

    /// Entries come after the chains, of which there is one for each id.
    #[inline]
    fn entry_at(&self, entry: u16) -> usize {
        usize::from(self.size) + 2 * usize::from(entry)
    }
}
