//! How often the kernel is visited for a request. Counts, not times: the driver runs between the
//! turns of the same executor, so it is always as prompt as a driver that polls.

use std::time::Duration;

use executor::{Config, DriverChoice, Executor};

use super::super::{BlockBackend, BlockImage};
use super::bed::*;
use crate::virtio::backend::RingLayout;
use crate::virtio::worker::Patience;

const ROUNDS: u64 = 500;

/// What it took to read at a depth, warm.
#[derive(Debug)]
struct Count {
    reads: u64,
    /// System calls of the executor; the driver's kicks are none of them.
    visits: u64,
    kicks: u64,
}

/// How the file is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    Mapped,
    ByCalls,
}

/// Read 4 KiB a time from a file in the page cache, with a driver that polls.
fn count(layout: RingLayout, reading: Reading, depth: u64) -> Count {
    over(layout, || count_here(reading, depth))
}

fn count_here(reading: Reading, depth: u64) -> Count {
    // However slow this machine is, the driver is prompt.
    let for_ever = Patience {
        spin: Duration::from_hours(1),
        gap: Duration::from_hours(1),
        nap: Duration::from_hours(1),
        prompt: Duration::from_hours(1),
    };
    let config = Config { driver: DriverChoice::Uring, ..Config::default() };
    Executor::new(&config).unwrap().block_on(async {
        let disk = Disk::new(4 << 20);
        let options = disk.options();
        let image = BlockImage::open(&options).unwrap();
        let mut backend = BlockBackend::new(image).with_patience(for_ever);
        if reading == Reading::ByCalls {
            backend = backend.without_mapping();
        }
        let mut bed = Bed::start(backend, 1, options.queue_size);
        bed.activate().await;
        let mut free: Vec<u64> = (0..depth).collect();
        let mut heads = std::collections::HashMap::new();
        let mut before = 0;
        // The device learns with the first two batches that the driver is prompt.
        let warm = 4 * depth;
        let (mut done, mut kicks) = (0, 0);
        while done < ROUNDS * depth {
            while let Some(place) = free.pop() {
                let data = [writable(Bed::data(place), 4096)];
                let frame = bed.frame(place, IN, place * 8, &data);
                let head = bed.driver(0).add(&frame).unwrap();
                heads.insert(head, place);
                kicks += u64::from(bed.publish(0));
            }
            bed.driver(0).disable_interrupts();
            executor::yield_now().await;
            while let Some(used) = bed.driver(0).take_used() {
                free.push(heads.remove(&used.head).unwrap());
                done += 1;
                if done == warm {
                    before = executor::stats().unwrap().system_calls;
                    kicks = 0;
                }
            }
        }
        let visits = executor::stats().unwrap().system_calls - before;
        let reads = done - warm;
        Count { reads, visits, kicks }
    })
}

#[test]
fn a_read_at_depth_one_takes_two_visits_at_most() {
    for layout in [RingLayout::Split, RingLayout::Packed] {
        let count = count(layout, Reading::ByCalls, 1);
        assert!(10 * count.visits <= 21 * count.reads, "{layout:?}: {count:?}");
        assert_eq!(count.kicks, 0);
    }
}

#[test]
fn reads_at_depth_share_their_visits() {
    for (layout, depth) in [RingLayout::Split, RingLayout::Packed]
        .into_iter()
        .flat_map(|layout| [(layout, 32), (layout, 42)])
    {
        let count = count(layout, Reading::ByCalls, depth);
        assert!(100 * count.visits <= 6 * count.reads, "{layout:?}, {depth}: {count:?}");
        assert_eq!(count.kicks, 0);
    }
}

#[test]
fn reads_from_a_mapping_take_no_visits() {
    for (layout, depth) in [RingLayout::Split, RingLayout::Packed]
        .into_iter()
        .flat_map(|layout| [(layout, 1), (layout, 32)])
    {
        let count = count(layout, Reading::Mapped, depth);
        assert!(100 * count.visits <= count.reads, "{layout:?}, {depth}: {count:?}");
        assert_eq!(count.kicks, 0);
    }
}
