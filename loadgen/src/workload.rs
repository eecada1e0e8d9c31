//! What is asked of a disk.

use std::time::Duration;

/// What requests do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// They read.
    Read,
    /// They write.
    Write,
    /// So many of a hundred read, the others write.
    Mixed {
        /// 0 to 100.
        reads: u8,
    },
}

/// Whether what is read is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// It is not.
    Nothing,
    /// What this load has written has to come back.
    Contents,
}

/// Where they go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Anywhere.
    Random,
    /// One block after the other; each queue has a part of the disk.
    Sequential,
}

/// What a driver does while it waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Polling {
    /// Sleeps until there is an interrupt.
    Off,
    /// Looks for a moment, then sleeps.
    Adaptive,
    /// Looks.
    Always,
}

impl Polling {
    /// For how long to look.
    pub(crate) fn spin(self) -> Duration {
        match self {
            Self::Off => Duration::ZERO,
            // As long as a kick and an interrupt may take to wake somebody up, where processors are virtual:
            // looking for less than that loses both the time and the wake-up.
            Self::Adaptive => Duration::from_micros(200),
            Self::Always => Duration::MAX,
        }
    }
}

/// Requests, and for how long to make them.
#[derive(Debug, Clone, Copy)]
pub struct Workload {
    /// What they do.
    pub access: Access,
    /// Whether a driver looks at what it reads; each queue has a part of the disk then.
    pub check: Check,
    /// Where they go.
    pub order: Order,
    /// Bytes of each; a multiple of 512.
    pub block_size: u32,
    /// Requests under way at a time on each queue.
    pub depth: u16,
    /// Queues.
    pub queues: u16,
    /// Threads of the driver that share them: more than there are queues are as many.
    pub threads: u16,
    /// What the driver does while it waits.
    pub polling: Polling,
    /// How long before figures are taken.
    pub warm_up: Duration,
    /// How long figures are taken.
    pub duration: Duration,
}

/// The next block, and whether it is read.
pub(crate) struct Blocks {
    random: fastrand::Rng,
    access: Access,
    order: Order,
    first: u64,
    count: u64,
    next: u64,
}

impl Blocks {
    /// The part of a queue on a disk of so many blocks.
    pub(crate) fn new(workload: &Workload, queue: u16, blocks: u64) -> Self {
        let (first, count) = match (workload.order, workload.check) {
            (Order::Random, Check::Nothing) => (0, blocks),
            (Order::Sequential, _) | (_, Check::Contents) => {
                let count = (blocks / u64::from(workload.queues)).max(1);
                ((count * u64::from(queue)).min(blocks - count), count)
            }
        };
        let random = fastrand::Rng::with_seed(u64::from(queue) + 1);
        let (access, order) = (workload.access, workload.order);
        Self { random, access, order, first, count, next: 0 }
    }

    /// The first block of the part, and how many there are.
    pub(crate) fn part(&self) -> (u64, u64) {
        (self.first, self.count)
    }

    #[inline]
    pub(crate) fn next(&mut self) -> (u64, bool) {
        let block = match self.order {
            Order::Random => self.random.u64(0..self.count),
            Order::Sequential => {
                let block = self.next;
                self.next = if block + 1 == self.count { 0 } else { block + 1 };
                block
            }
        };
        let reads = match self.access {
            Access::Read => true,
            Access::Write => false,
            Access::Mixed { reads } => self.random.u8(0..100) < reads,
        };
        (self.first + block, reads)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(access: Access, order: Order, queues: u16) -> Workload {
        Workload {
            access,
            check: Check::Nothing,
            order,
            block_size: 4096,
            depth: 1,
            queues,
            threads: queues,
            polling: Polling::Off,
            warm_up: Duration::ZERO,
            duration: Duration::ZERO,
        }
    }

    #[test]
    fn sequences_stay_in_the_part_of_their_queue_and_begin_again() {
        let workload = workload(Access::Write, Order::Sequential, 2);
        let mut blocks = Blocks::new(&workload, 1, 7);
        let taken: Vec<_> = (0..4).map(|_| blocks.next()).collect();
        assert_eq!(taken, [(3, false), (4, false), (5, false), (3, false)]);
        assert_eq!(Blocks::new(&workload, 1, 1).next(), (0, false), "a disk of one block");
    }

    #[test]
    fn random_blocks_are_on_the_disk_and_mixtures_are_mixed() {
        let mut blocks =
            Blocks::new(&workload(Access::Mixed { reads: 70 }, Order::Random, 1), 0, 10);
        let taken: Vec<_> = (0..1000).map(|_| blocks.next()).collect();
        assert!(taken.iter().all(|(block, _)| *block < 10));
        let reads = taken.iter().filter(|(_, reads)| *reads).count();
        assert!((600..800).contains(&reads), "{reads}");
    }
}
