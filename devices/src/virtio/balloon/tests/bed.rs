//! A machine with a balloon.

use std::ops::{Deref, DerefMut};

use super::super::protocol::Config;
use super::super::{BalloonParts, BalloonStatistics, Offer, PageSize};
use crate::virtio::control::Statistics;
use crate::virtio::parts::Parts;
use crate::virtio::queue::InflightRegion;
use crate::virtio::queue::driver::Buffer;
pub(super) use crate::virtio::test_bed::{TestBed, deadline, on, on_both, readable, writable};

pub(super) const INFLATE: usize = 0;
pub(super) const DEFLATE: usize = 1;
pub(super) const STATISTICS: usize = 2;
/// With statistics, in a driver that numbers the queues that it has.
pub(super) const REPORTING: usize = 3;
/// As the specification numbers it.
pub(super) const REPORTING_BY_THE_BOOK: usize = 4;

pub(super) const STATS_VQ: u64 = 1 << 1;
pub(super) const PAGE_POISON: u64 = 1 << 4;

pub(super) const MEMORY: u64 = 32 << 20;
pub(super) const PAGE: u64 = 4096;
/// Where a test puts what it sends; below are the rings.
pub(super) const SENT: u64 = 1 << 20;
/// From here on nothing but pages to free.
pub(super) const SPARE: u64 = 8 << 20;

pub(super) fn parts() -> BalloonParts {
    BalloonParts {
        reporting: Offer::Yes,
        deflate_on_oom: Offer::Yes,
        ..BalloonParts::new(PageSize::Small)
    }
}

pub(super) struct Bed(TestBed);

impl Deref for Bed {
    type Target = TestBed;

    fn deref(&self) -> &TestBed {
        &self.0
    }
}

impl DerefMut for Bed {
    fn deref_mut(&mut self) -> &mut TestBed {
        &mut self.0
    }
}

impl Bed {
    /// A back end that runs and is not active; all spare pages are there.
    pub(super) fn start(parts: BalloonParts, inflight: Option<InflightRegion>) -> Self {
        let mut bed = Self(TestBed::new(MEMORY, &parts.profile()));
        bed.replace(parts, inflight);
        for page in 0..(MEMORY - SPARE) / PAGE {
            bed.write(SPARE + page * PAGE, &[7]);
        }
        bed
    }

    /// The same, active with all features and the queues that Linux would use.
    pub(super) async fn active(parts: BalloonParts) -> Self {
        let bed = Self::start(parts, None);
        bed.activate(&[0, 1, 2, 3]).await.unwrap();
        bed
    }

    pub(super) fn replace(&mut self, parts: BalloonParts, inflight: Option<InflightRegion>) {
        self.0.run(|context| parts.run(inflight, context));
    }

    /// Activates these queues.
    pub(super) async fn activate(&self, queues: &[usize]) -> Result<(), String> {
        let mut setups = self.setups(&[]);
        setups.retain(|setup| queues.contains(&usize::from(setup.index)));
        self.activate_with(self.features, setups).await
    }

    pub(super) async fn finish(self) {
        self.0.finish().await;
    }

    /// Pages that the host keeps for the spare part of the guest's memory.
    pub(super) fn spare_pages(&self) -> u64 {
        let pages = (MEMORY - SPARE) / PAGE;
        let mut resident = vec![0_u8; pages as usize];
        let start = self.memory.host_range(crate::memory::GuestAddress(SPARE), 1).unwrap();
        // SAFETY: the range is mapped, and the vector has a byte for each page.
        let result = unsafe {
            libc::mincore(start.as_ptr().cast(), (MEMORY - SPARE) as usize, resident.as_mut_ptr())
        };
        assert_eq!(result, 0);
        resident.iter().filter(|flags| **flags & 1 != 0).count() as u64
    }

    /// Sends buffers and waits until they come back.
    pub(super) async fn exchange(&mut self, queue: usize, buffers: &[Buffer]) {
        let head = self.driver(queue).add(buffers).unwrap();
        self.publish(queue);
        let used = self.used(queue).await;
        assert_eq!((used.head, used.written), (head, 0));
    }

    /// Writes page frame numbers where they are sent from.
    pub(super) fn list(&self, frames: &[u32]) -> Buffer {
        let bytes: Vec<u8> = frames.iter().flat_map(|frame| frame.to_le_bytes()).collect();
        self.write(SENT, &bytes);
        readable(SENT, bytes.len() as u32)
    }

    /// Gives the device a buffer with one statistic.
    pub(super) fn say(&mut self, tag: u16, value: u64) -> u16 {
        let bytes = [&tag.to_le_bytes()[..], &value.to_le_bytes()].concat();
        self.write(SENT, &bytes);
        let head = self.driver(STATISTICS).add(&[readable(SENT, bytes.len() as u32)]).unwrap();
        self.publish(STATISTICS);
        head
    }

    /// The same, and the device has taken it: it gave one that was there before back.
    pub(super) async fn hold(&mut self, tag: u16, value: u64) -> u16 {
        let earlier = self.say(tag, 0);
        let head = self.say(tag, value);
        assert_eq!(self.used(STATISTICS).await.head, earlier);
        head
    }

    pub(super) async fn balloon_statistics(&self) -> BalloonStatistics {
        match self.statistics().await {
            Statistics::Balloon(statistics) => statistics,
            other => panic!("not of a balloon: {other:?}"),
        }
    }

    /// `num_pages`, `actual` and `poison_val`.
    pub(super) async fn fields(&self) -> [u32; 3] {
        let bytes = self.config().await;
        let config = Config::new(0, 0, 0).written(0, &bytes);
        [config.num_pages, config.actual, config.poison_val].map(u32::from_le_bytes)
    }

    pub(super) async fn write_config(&self, offset: u32, data: &[u8]) {
        let data = data.to_vec();
        let make =
            |reply| crate::virtio::backend::BackendRequest::WriteConfig { offset, data, reply };
        self.call(make).await;
    }
}

/// The number of a spare page.
pub(super) fn spare(page: u64) -> u32 {
    ((SPARE / PAGE) + page) as u32
}
