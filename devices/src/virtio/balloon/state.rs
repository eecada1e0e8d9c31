//! What the queues of a balloon share.

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::time::Duration;

use executor::Instant;
use ipc::Reply;

use super::PageSize;
use super::protocol::{Config, PAGE_BYTES};
use super::statistics::{BalloonStatistics, GuestMemoryStatistics};
use super::wish::Wish;
use crate::log_limit::LogLimit;
use crate::memory::{GuestAddress, GuestMemory};
use crate::virtio::control::Statistics;

/// Those who wait for the guest's answer; more get what is known.
const MOST_WAITING: usize = 16;

/// What the driver, and whoever runs the machine, made of a balloon.
#[derive(Debug)]
pub(super) struct Balloon {
    pub(super) pages: PageSize,
    /// How often the guest is asked about its memory by itself.
    pub(super) interval: Option<Duration>,
    /// Pages that the driver shall give up.
    pub(super) target: Cell<u32>,
    /// Pages that it says it has given up.
    pub(super) actual: Cell<u32>,
    /// What it says its free pages hold.
    pub(super) poison: Cell<u32>,
    /// Bytes that left since the start, by whose word.
    pub(super) inflated: Cell<u64>,
    pub(super) reported: Cell<u64>,
    pub(super) guest: Cell<Option<(GuestMemoryStatistics, Instant)>>,
    /// There is a queue on which the guest can be asked.
    pub(super) can_ask: Cell<bool>,
    pub(super) wish: Wish,
    waiting: RefCell<Vec<Reply<Statistics>>>,
    pub(super) complaints: LogLimit,
}

impl Balloon {
    pub(super) fn new(pages: PageSize, interval: Option<Duration>, target: u32) -> Self {
        Self {
            pages,
            interval,
            target: Cell::new(target),
            actual: Cell::new(0),
            poison: Cell::new(0),
            inflated: Cell::new(0),
            reported: Cell::new(0),
            guest: Cell::new(None),
            can_ask: Cell::new(false),
            wish: Wish::default(),
            waiting: RefCell::default(),
            complaints: LogLimit::new(),
        }
    }

    pub(super) fn config(&self) -> Config {
        Config::new(self.target.get(), self.actual.get(), self.poison.get())
    }

    /// Frees pages of the balloon's unit; nothing that the driver names can be more than its own.
    pub(super) fn free_frames(&self, memory: &GuestMemory, frames: Range<u64>) {
        let bytes = (frames.end - frames.start) * PAGE_BYTES;
        self.free(memory, GuestAddress(frames.start * PAGE_BYTES), bytes, &self.inflated);
    }

    /// Frees a range and counts what left.
    pub(super) fn free(
        &self,
        memory: &GuestMemory,
        address: GuestAddress,
        bytes: u64,
        count: &Cell<u64>,
    ) {
        match memory.release(address, bytes, self.pages.bytes()) {
            Ok(freed) => {
                count.set(count.get().saturating_add(freed));
                let outside = freed < bytes && self.pages == PageSize::Small;
                if outside && memory.host_range(address, bytes as usize).is_none() {
                    self.complaints.warn(format_args!(
                        "balloon: the driver names pages outside its memory: {bytes:#x} bytes at \
                         {address}"
                    ));
                }
            }
            Err(error) => self.complaints.warn(format_args!(
                "balloon: the host does not free {bytes:#x} bytes at {address}: {error}"
            )),
        }
    }

    /// Bytes that have left.
    pub(super) fn freed(&self) -> u64 {
        self.inflated.get().saturating_add(self.reported.get())
    }

    pub(super) fn statistics(&self) -> BalloonStatistics {
        let guest = self.guest.get();
        BalloonStatistics {
            target_bytes: u64::from(self.target.get()) * PAGE_BYTES,
            actual_bytes: u64::from(self.actual.get()) * PAGE_BYTES,
            inflated_bytes: self.inflated.get(),
            reported_bytes: self.reported.get(),
            guest: guest.map(|(statistics, _)| statistics),
            guest_age: guest.map(|(_, at)| executor::now().duration_since(at)),
        }
    }

    /// Answers when the guest has, if it can be asked.
    pub(super) fn answer(&self, reply: Reply<Statistics>) {
        let mut waiting = self.waiting.borrow_mut();
        if !self.can_ask.get() || waiting.len() >= MOST_WAITING {
            reply.send(Statistics::Balloon(self.statistics()));
            return;
        }
        waiting.push(reply);
        self.wish.make();
    }

    /// Answers all who wait with what is known.
    pub(super) fn answer_all(&self) {
        self.wish.take();
        for reply in self.waiting.take() {
            reply.send(Statistics::Balloon(self.statistics()));
        }
    }
}
