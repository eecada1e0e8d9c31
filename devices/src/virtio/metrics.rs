//! What the queues of a device have done, in memory that outlives its back end.
//!
//! ```text
//!   MetricsRegion (a memfd of the VMM)
//!   +----------+------------------------------+------------------------------+----
//!   |  header  |  words of queue 0            |  words of queue 1            | ...
//!   +----------+------------------------------+------------------------------+----
//!
//!   queue      kicks, interrupts, batches, requests, bytes, nanoseconds,
//!              how many batches were of which size, how many requests took how long
//! ```
//!
//! One back end at a time writes, with a load and a store of its own for each count: no locked
//! instruction, no system call. The VMM reads without asking anybody, and a successor counts on.
//! The writer may be hostile, so what is read is some numbers and nothing else.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{MemfdFlags, SealFlags};

use super::queue::words::SharedWords;

const MAGIC: u64 = 0x766d_6574_7269_6301;
/// A cache line before the first queue.
const HEADER_WORDS: usize = 8;

const KICKS: usize = 0;
const INTERRUPTS: usize = 1;
const BATCHES: usize = 2;
const REQUESTS: usize = 3;
const BYTES: usize = 4;
const NANOSECONDS: usize = 5;
/// A cache line in, where the histograms begin.
const SIZES: usize = 8;
const LATENCIES: usize = SIZES + BATCH_BUCKETS;
/// Whole cache lines, so that queues share none.
const QUEUE_WORDS: usize = LATENCIES + LATENCY_BUCKETS;

/// Batches of at most 1, 2, 4 and so on buffers; the last is for all larger ones.
pub const BATCH_BUCKETS: usize = 16;
/// Requests of at most 1, 2, 4 and so on microseconds; the last is for all longer ones.
pub const LATENCY_BUCKETS: usize = 24;

const _: () = assert!(QUEUE_WORDS.is_multiple_of(8));

/// Memory with the counts of each queue of a device.
#[derive(Debug, Clone)]
pub struct MetricsRegion {
    words: Arc<SharedWords>,
    file: Arc<OwnedFd>,
    queues: u16,
}

impl MetricsRegion {
    /// New memory for so many queues, all counts zero.
    pub fn create(queues: u16) -> io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = rustix::fs::memfd_create("metrics", flags)?;
        rustix::fs::ftruncate(&file, Self::bytes(queues))?;
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&file, seals)?;
        let region = Self::map(file, queues)?;
        region.words.store(0, MAGIC);
        region.words.store(1, queues.into());
        Ok(region)
    }

    /// Attach to memory that another process made with [`MetricsRegion::create`].
    pub fn attach(file: OwnedFd, queues: u16) -> io::Result<Self> {
        let status = rustix::fs::fstat(&file)?;
        // Without the seal, whoever shrinks the file kills whoever touches the mapping.
        let sealed = rustix::fs::fcntl_get_seals(&file)?.contains(SealFlags::SHRINK);
        if status.st_size as u64 != Self::bytes(queues) || !sealed {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let region = Self::map(file, queues)?;
        if region.words.load(0) != MAGIC || region.words.load(1) != u64::from(queues) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(region)
    }

    fn bytes(queues: u16) -> u64 {
        (Self::length(queues) * size_of::<u64>()) as u64
    }

    fn length(queues: u16) -> usize {
        HEADER_WORDS + usize::from(queues) * QUEUE_WORDS
    }

    fn map(file: OwnedFd, queues: u16) -> io::Result<Self> {
        let words = SharedWords::map(&file, Self::length(queues))?;
        Ok(Self { words: Arc::new(words), file: Arc::new(file), queues })
    }

    /// The memory, for another process.
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Where one queue counts. None if there is no such queue.
    pub fn queue(&self, index: u16) -> Option<QueueMetrics> {
        let base = HEADER_WORDS + usize::from(index) * QUEUE_WORDS;
        (index < self.queues).then(|| QueueMetrics { words: Some(Arc::clone(&self.words)), base })
    }

    /// What each queue has counted until now.
    pub fn read(&self) -> Vec<QueueCounts> {
        (0..usize::from(self.queues))
            .map(|queue| {
                let base = HEADER_WORDS + queue * QUEUE_WORDS;
                let word = |at| self.words.load(base + at);
                QueueCounts {
                    kicks: word(KICKS),
                    interrupts: word(INTERRUPTS),
                    batches: word(BATCHES),
                    requests: word(REQUESTS),
                    bytes: word(BYTES),
                    nanoseconds: word(NANOSECONDS),
                    batch_sizes: std::array::from_fn(|bucket| word(SIZES + bucket)),
                    latencies: std::array::from_fn(|bucket| word(LATENCIES + bucket)),
                }
            })
            .collect()
    }
}

/// What a queue has counted. Counts that belong together may be of slightly different moments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueCounts {
    /// Notifications of the driver that woke the back end.
    pub kicks: u64,
    /// Interrupts sent.
    pub interrupts: u64,
    /// Times that buffers were given back, any number at once.
    pub batches: u64,
    /// Buffers given back.
    pub requests: u64,
    /// Bytes moved, without headers.
    pub bytes: u64,
    /// How long all requests took together.
    pub nanoseconds: u64,
    /// Batches by size, see [`BATCH_BUCKETS`].
    pub batch_sizes: [u64; BATCH_BUCKETS],
    /// Requests by how long they took, see [`LATENCY_BUCKETS`].
    pub latencies: [u64; LATENCY_BUCKETS],
}

/// Where one queue counts; the default is nowhere.
#[derive(Debug, Default)]
pub struct QueueMetrics {
    words: Option<Arc<SharedWords>>,
    base: usize,
}

impl QueueMetrics {
    #[inline]
    fn add(&self, at: usize, count: u64) {
        if let Some(words) = &self.words {
            words.add(self.base + at, count);
        }
    }

    /// The driver kicked.
    #[inline]
    pub fn kicked(&self) {
        self.add(KICKS, 1);
    }

    /// The driver gets an interrupt.
    #[inline]
    pub fn interrupted(&self) {
        self.add(INTERRUPTS, 1);
    }

    /// So many buffers are given back together.
    #[inline]
    pub fn published(&self, count: u16) {
        self.add(BATCHES, 1);
        self.add(REQUESTS, count.into());
        self.add(SIZES + bucket(count.into(), BATCH_BUCKETS), 1);
    }

    /// So many bytes were moved.
    #[inline]
    pub fn moved(&self, bytes: u64) {
        self.add(BYTES, bytes);
    }

    /// A request took so long, from when it was taken to when it is given back.
    #[inline]
    pub fn took(&self, time: Duration) {
        self.took_each(1, time);
    }

    /// So many requests took so long each.
    #[inline]
    pub fn took_each(&self, count: u16, time: Duration) {
        // 64 bits of nanoseconds last for 584 years.
        let nanoseconds = time.as_nanos() as u64;
        let count = u64::from(count);
        self.add(NANOSECONDS, nanoseconds.saturating_mul(count));
        self.add(LATENCIES + bucket(nanoseconds.div_ceil(1000), LATENCY_BUCKETS), count);
    }
}

/// The bucket of a value: the first whose bound, a power of two, is not below it.
#[inline]
fn bucket(value: u64, buckets: usize) -> usize {
    let bits = u64::BITS - value.saturating_sub(1).leading_zeros();
    (bits as usize).min(buckets - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_fall_into_the_first_bucket_that_holds_them() {
        let expected = [(0, 0), (1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (8, 3), (9, 4)];
        for (value, index) in expected {
            assert_eq!(bucket(value, 16), index, "{value}");
        }
        assert_eq!(bucket(u64::MAX, 16), 15);
        assert_eq!(bucket(1 << 14, 16), 14);
    }

    #[test]
    fn a_successor_counts_on_and_the_owner_sees_it() {
        let region = MetricsRegion::create(2).unwrap();
        for round in 1..=2 {
            let file = region.file().try_clone_to_owned().unwrap();
            let attached = MetricsRegion::attach(file, 2).unwrap();
            let queue = attached.queue(1).unwrap();
            queue.kicked();
            queue.published(3);
            queue.interrupted();
            queue.moved(4096);
            queue.took(Duration::from_micros(3));
            let [none, counts] = region.read()[..] else { panic!("two queues") };
            assert_eq!(none, QueueCounts::default());
            assert_eq!((counts.kicks, counts.interrupts, counts.batches), (round, round, round));
            assert_eq!((counts.requests, counts.bytes), (3 * round, 4096 * round));
            assert_eq!((counts.nanoseconds, counts.latencies[2]), (3000 * round, round));
            assert_eq!(counts.batch_sizes[2], round);
        }
        assert!(region.queue(2).is_none());
    }

    #[test]
    fn other_memory_is_refused() {
        let region = MetricsRegion::create(2).unwrap();
        let file = || region.file().try_clone_to_owned().unwrap();
        assert!(MetricsRegion::attach(file(), 1).is_err());
        region.words.store(0, 0);
        assert!(MetricsRegion::attach(file(), 2).is_err());
        let unsealed = rustix::fs::memfd_create("unsealed", MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&unsealed, MetricsRegion::bytes(2)).unwrap();
        assert!(MetricsRegion::attach(unsealed, 2).is_err());
    }
}
