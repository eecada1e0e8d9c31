//! The record of what a queue has in flight, in memory that outlives the back end.
//!
//! When a back end process dies, its successor attaches to the same record and repeats exactly the
//! requests that were taken from the available ring and not yet published as used, in the order in
//! which they were taken.
//!
//! ```text
//!   InflightRegion (a memfd of the VMM)
//!   +----------+------------------------------+------------------------------+----
//!   |  header  |  record of queue 0           |  record of queue 1           | ...
//!   +----------+------------------------------+------------------------------+----
//!
//!   header     magic, shape, a mark of the device that outlives its processes, whether it syncs, what the driver chose
//!   record     word 0      live: 0, or LIVE | PACKED if it is | queue size
//!              word 1      where a packed ring stands
//!              word 8 + h  slot of buffer h: 0, or bit 63     done, waits to be published
//!                                               bits 62..47 used index, if done
//!                                               bits 46..0  order in which it was taken
//!              after these, for packed rings: the chains of the buffers and their descriptors
//! ```
//!
//! What follows is about split rings; what is different for packed ones is in `packed::record`.
//!
//! # Why any instruction may be the last
//!
//! A process that dies leaves memory as its program order wrote it, so only that order matters; all
//! stores that it rests on are release stores. In the life of a buffer:
//!
//! 1. `take`: the slot gets the order. *Before:* the buffer is still available and is taken anew.
//!    *After:* it is in flight. Nothing has been done for it yet, so no request is done unrecorded.
//! 2. The request is executed, any number of times.
//! 3. `done`: the slot gets the used index that the buffer will have.
//! 4. The ring's used index is stored: this is the commit. *Before:* the slot's index is not below
//!    the ring's, so the buffer is in flight and is repeated; the driver has not seen it complete.
//!    *After:* the slot's index is below the ring's, so the buffer is the driver's again.
//! 5. `release`: the slot is zero. Until then no buffer is taken, so no slot is mixed up with a
//!    later use of the same buffer.
//!
//! The next available index needs no record: everything taken is either used or in flight, so it is
//! the used index plus the number of slots that are in flight.
//!
//! A record may be written by a hostile process. Reading one yields each buffer at most once and
//! nothing out of range, whatever it holds.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{MemfdFlags, SealFlags};
use thiserror::Error;

use super::error::QueueError;
use super::words::SharedWords;
use crate::simulation::{Bug, is_planted};
use crate::virtio::backend::RingLayout;

/// The word of the header that [`InflightRegion::mark`] sets.
const MARK: usize = 2;
/// That which [`InflightRegion::syncs_begin`] sets.
const SYNCS: usize = 3;
/// That which [`InflightRegion::keep_choice`] sets.
const CHOICE: usize = 4;
const MAGIC: u64 = 0x7669_6e66_6c67_6802;
/// Words before the slots: a cache line, so that slots of different queues share none.
const RECORD_HEADER_WORDS: usize = 8;
const LIVE: u64 = 1 << 16;
const PACKED: u64 = 1 << 17;
/// Words of a buffer: its slot, its chain and two for a descriptor.
const BUFFER_WORDS: usize = 4;
const DONE: u64 = 1 << 63;
const POSITION_SHIFT: u32 = 47;
/// At ten million requests per second these last for 160 days; then the order starts again, which
/// matters only to a crash within that same moment.
const ORDER_MASK: u64 = (1 << POSITION_SHIFT) - 1;

/// Why a region could not be made or attached to.
#[derive(Debug, Error)]
pub enum InflightError {
    /// A system call on the region's memory failed.
    #[error("cannot {action} the in-flight record's memory")]
    System {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The memory is not such a region, or is one for other queues.
    #[error("the in-flight record's memory does not hold {queues} queues of up to {max_size}")]
    Mismatch {
        /// What was asked for.
        queues: u16,
        /// What was asked for.
        max_size: u16,
    },
}

/// Memory with one [`InflightRecord`] for each queue of a device.
#[derive(Debug, Clone)]
pub struct InflightRegion {
    words: Arc<SharedWords>,
    file: Arc<OwnedFd>,
    queues: u16,
    max_size: u16,
}

impl InflightRegion {
    /// New memory for `queues` queues of up to `max_size` buffers, none of them live.
    pub fn create(queues: u16, max_size: u16) -> Result<Self, InflightError> {
        let system = |action| {
            move |error: rustix::io::Errno| InflightError::System { action, source: error.into() }
        };
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = rustix::fs::memfd_create("inflight", flags).map_err(system("create"))?;
        let length = Self::words(queues, max_size) * size_of::<u64>();
        rustix::fs::ftruncate(&file, length as u64).map_err(system("size"))?;
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&file, seals).map_err(system("seal"))?;
        let region = Self::map(file, queues, max_size)?;
        region.words.store(0, MAGIC);
        region.words.store(1, Self::shape(queues, max_size));
        Ok(region)
    }

    /// Attach to memory that another process made with [`InflightRegion::create`].
    pub fn attach(file: OwnedFd, queues: u16, max_size: u16) -> Result<Self, InflightError> {
        let status = rustix::fs::fstat(&file)
            .map_err(|error| InflightError::System { action: "examine", source: error.into() })?;
        let length = Self::words(queues, max_size) * size_of::<u64>();
        // Without the seal, whoever shrinks the file kills whoever touches the mapping.
        let sealed =
            rustix::fs::fcntl_get_seals(&file).is_ok_and(|seals| seals.contains(SealFlags::SHRINK));
        if status.st_size as u64 != length as u64 || !sealed {
            return Err(InflightError::Mismatch { queues, max_size });
        }
        let region = Self::map(file, queues, max_size)?;
        let (magic, shape) = (region.words.load(0), region.words.load(1));
        if magic != MAGIC || shape != Self::shape(queues, max_size) {
            return Err(InflightError::Mismatch { queues, max_size });
        }
        Ok(region)
    }

    /// The memory, for another process.
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Leave a sign for all successors, which no reset takes away; what it means is the device's.
    pub fn mark(&self) {
        self.words.store(MARK, 1);
    }

    /// Whether this process or one before it has left the sign.
    pub fn is_marked(&self) -> bool {
        self.words.load(MARK) != 0
    }

    /// Syncs of the device's file begin.
    pub(in crate::virtio) fn syncs_begin(&self) {
        self.words.store(SYNCS, 1);
    }

    /// None is under way, and what came of the last ones is known.
    pub(in crate::virtio) fn syncs_are_over(&self) {
        self.words.store(SYNCS, 0);
    }

    /// Whether a process that is dead had a sync under way, or died before it could tell what came of it.
    pub(in crate::virtio) fn has_sync_under_way(&self) -> bool {
        self.words.load(SYNCS) != 0
    }

    /// The driver chose something beside its queues; what it means is the device's, and zero is no choice.
    pub(in crate::virtio) fn keep_choice(&self, choice: u64) {
        self.words.store(CHOICE, choice);
    }

    /// What the driver chose since the last reset.
    pub(in crate::virtio) fn choice(&self) -> u64 {
        self.words.load(CHOICE)
    }

    /// Forget what all queues have in flight, and what the driver chose: the device was reset while no back end
    /// was there.
    pub fn clear(&self) {
        self.keep_choice(0);
        for queue in 0..self.queues {
            if let Some(record) = self.record(queue) {
                record.retire();
            }
        }
    }

    /// The record of one queue.
    pub fn record(&self, queue: u16) -> Option<InflightRecord> {
        (queue < self.queues).then(|| InflightRecord {
            words: self.words.clone(),
            first: Self::first(queue, self.max_size),
            size: self.max_size,
            order: 0,
        })
    }

    fn map(file: OwnedFd, queues: u16, max_size: u16) -> Result<Self, InflightError> {
        let words = SharedWords::map(&file, Self::words(queues, max_size))
            .map_err(|source| InflightError::System { action: "map", source })?;
        Ok(Self { words: Arc::new(words), file: Arc::new(file), queues, max_size })
    }

    fn shape(queues: u16, max_size: u16) -> u64 {
        u64::from(queues) << 16 | u64::from(max_size)
    }

    fn record_words(max_size: u16) -> usize {
        RECORD_HEADER_WORDS
            + BUFFER_WORDS * usize::from(max_size).next_multiple_of(RECORD_HEADER_WORDS)
    }

    fn first(queue: u16, max_size: u16) -> usize {
        RECORD_HEADER_WORDS + usize::from(queue) * Self::record_words(max_size)
    }

    fn words(queues: u16, max_size: u16) -> usize {
        Self::first(queues, max_size)
    }
}

/// What one queue has in flight. See the module's text for the protocol.
#[derive(Debug)]
pub struct InflightRecord {
    words: Arc<SharedWords>,
    first: usize,
    size: u16,
    order: u64,
}

impl InflightRecord {
    /// A record in this process only: nothing survives it, but buffers that the driver makes
    /// available twice are found all the same.
    pub fn private(size: u16) -> Self {
        let words = InflightRegion::record_words(size);
        Self { words: Arc::new(SharedWords::private(words)), first: 0, size, order: 0 }
    }

    /// Whether a queue of this size and format was served and not retired: its buffers are to be
    /// taken over.
    pub fn is_live(&self, size: u16, format: RingLayout) -> bool {
        size <= self.size && self.words.load(self.first) == live(size, format)
    }

    /// The queue is no longer served; nothing is in flight.
    pub fn retire(&self) {
        if is_planted(Bug::RecordKept) {
            return;
        }
        self.words.store(self.first, 0);
    }

    /// Nothing is in flight, and a queue of `size` starts to be served; a packed one at `stand`.
    pub(super) fn start(
        &mut self,
        size: u16,
        format: RingLayout,
        stand: u16,
    ) -> Result<(), QueueError> {
        if size > self.size {
            return Err(QueueError::RecordMismatch("it is too small for the queue"));
        }
        self.retire();
        for head in 0..size {
            self.release(head);
        }
        self.set_stand(stand);
        self.order = 0;
        self.words.store(self.first, live(size, format));
        Ok(())
    }

    /// A buffer was taken from the available ring. Fails if it was in flight already.
    #[inline]
    pub(super) fn take(&mut self, head: u16) -> Result<(), QueueError> {
        if self.words.load(self.slot_at(head)) != 0 {
            return Err(QueueError::HeadInFlight { head });
        }
        let order = (self.order + 1) & ORDER_MASK;
        self.words.store(self.slot_at(head), order.max(1));
        self.order = order;
        Ok(())
    }

    /// A buffer's request is done; it will be published at this index of the used ring.
    #[inline]
    pub(super) fn done(&self, head: u16, used_index: u16) {
        let order = self.words.load(self.slot_at(head)) & ORDER_MASK;
        debug_assert_ne!(order, 0, "buffer {head} is given back but was not taken");
        let word = DONE | u64::from(used_index) << POSITION_SHIFT | order;
        self.words.store(self.slot_at(head), word);
    }

    /// A buffer was published as used.
    #[inline]
    pub(super) fn release(&self, head: u16) {
        self.words.store(self.slot_at(head), 0);
    }

    /// What is in flight, in the order in which it was taken, when the used index of a split ring is
    /// `used_index`. Slots of published buffers become free.
    pub(super) fn recover(&mut self, size: u16, used_index: u16) -> Vec<u16> {
        let mut in_flight = Vec::new();
        for head in 0..size.min(self.size) {
            let Some(slot) = self.slot(head) else { continue };
            // A batch is at most 2^15 long, so this tells both sides of the commit apart.
            let published = slot
                .done_at
                .is_some_and(|at| used_index.wrapping_sub(at).wrapping_sub(1) < 1 << 15);
            if published {
                self.release(head);
            } else {
                in_flight.push((slot.order, head));
            }
        }
        self.resume(in_flight)
    }

    /// Go on with these buffers, each with its order; gives them back in order.
    pub(super) fn resume(&mut self, mut in_flight: Vec<(u64, u16)>) -> Vec<u16> {
        for (order, head) in &in_flight {
            self.words.store(self.slot_at(*head), (*order).max(1));
        }
        in_flight.sort_unstable();
        self.order = in_flight.last().map_or(0, |(order, _)| *order);
        in_flight.into_iter().map(|(_, head)| head).collect()
    }

    /// The slot of a buffer, if that is in flight.
    pub(super) fn slot(&self, head: u16) -> Option<Slot> {
        let word = self.words.load(self.slot_at(head));
        let done_at = (word & DONE != 0).then_some((word >> POSITION_SHIFT) as u16);
        (word != 0).then_some(Slot { order: word & ORDER_MASK, done_at })
    }

    /// Where a packed ring stands.
    pub(super) fn stand(&self) -> u16 {
        self.words.load(self.first + 1) as u16
    }

    /// A packed ring stands there now.
    #[inline]
    pub(super) fn set_stand(&self, stand: u16) {
        self.words.store(self.first + 1, u64::from(stand));
    }

    /// A word of the part for packed rings: three for each buffer.
    #[inline]
    pub(super) fn load_packed(&self, index: usize) -> u64 {
        self.words.load(self.packed_at(index))
    }

    /// Write a word of that part.
    #[inline]
    pub(super) fn store_packed(&self, index: usize, word: u64) {
        self.words.store(self.packed_at(index), word);
    }

    /// What a hostile process may leave in a slot.
    #[cfg(test)]
    pub(super) fn overwrite(&self, head: u16, word: u64) {
        self.words.store(self.slot_at(head), word);
    }

    #[inline]
    fn slot_at(&self, head: u16) -> usize {
        assert!(head < self.size, "buffer {head} has no slot");
        self.first + RECORD_HEADER_WORDS + usize::from(head)
    }

    #[inline]
    fn packed_at(&self, index: usize) -> usize {
        let size = usize::from(self.size);
        assert!(index < (BUFFER_WORDS - 1) * size, "word {index} of the packed part is not there");
        self.first + RECORD_HEADER_WORDS + size.next_multiple_of(RECORD_HEADER_WORDS) + index
    }
}

/// What a slot says of a buffer in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot {
    /// The order in which it was taken.
    pub(super) order: u64,
    /// Where it is to be published, if its request is done.
    pub(super) done_at: Option<u16>,
}

fn live(size: u16, format: RingLayout) -> u64 {
    let packed = match format {
        RingLayout::Split => 0,
        RingLayout::Packed => PACKED,
    };
    LIVE | packed | u64::from(size)
}
