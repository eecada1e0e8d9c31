//! A back end that dies under load at any point is replaced; the driver sees every request done,
//! once, and the right data.

use super::super::{BlkError, BlockBackend, BlockImage, DiskOptions};
use super::bed::*;
use crate::virtio::queue::InflightRegion;

const DEPTH: u64 = 16;
const DEATHS: u64 = 20;

/// A small generator of numbers; a seed makes a failure repeatable.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}

/// A back end that takes over when the operations of the one before are over.
async fn successor(options: &DiskOptions, region: &InflightRegion) -> BlockBackend {
    let file = region.file().try_clone_to_owned().unwrap();
    let region = InflightRegion::attach(file, options.queues, options.queue_size).unwrap();
    loop {
        match BlockImage::open(options) {
            Ok(image) => return BlockBackend::new(image).with_inflight(region),
            // The kernel still works for the dead one.
            Err(BlkError::Locked { .. }) => executor::yield_now().await,
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn requests_survive_the_death_of_the_back_end_at_any_point() {
    on_both(|| async {
        for seed in 1..=6 {
            survive(seed).await;
        }
    });
}

async fn survive(seed: u64) {
    let mut numbers = Numbers(seed * 0x1234_5678_9abc_def1);
    let disk = Disk::new(4 << 20);
    let mut options = disk.options();
    options.queue_size = 64;
    let region = region(&options);
    let mut bed = Bed::start(successor(&options, &region).await, 1, 64);
    bed.activate().await;
    // What each place of the file holds, by the last write that was sent; one write per place at a
    // time, as a file system does.
    let mut expected: Vec<Vec<u8>> = (0..DEPTH).map(|slot| pattern(slot * 8)).collect();
    let mut in_flight: Vec<Option<(u16, u32)>> = vec![None; DEPTH as usize];
    let (mut sent, mut deaths) = (0, 0);
    while deaths < DEATHS || in_flight.iter().any(Option::is_some) {
        for slot in 0..DEPTH {
            if in_flight[slot as usize].is_some() || deaths == DEATHS {
                continue;
            }
            let kind = [IN, OUT, OUT, FLUSH][numbers.next(4) as usize];
            let address = Bed::data(slot);
            let data = match kind {
                IN => {
                    bed.write(address, &[0; 512]);
                    vec![writable(address, 512)]
                }
                OUT => {
                    let fresh = pattern(sent + 1_000_000);
                    bed.write(address, &fresh);
                    expected[slot as usize] = fresh;
                    vec![readable(address, 512)]
                }
                _ => vec![],
            };
            let frame = bed.frame(slot, kind, slot * 8, &data);
            let head = bed.driver(0).add(&frame).unwrap();
            in_flight[slot as usize] = Some((head, kind));
            sent += 1;
            if numbers.next(3) == 0 {
                bed.publish(0);
            }
        }
        bed.publish(0);
        for _ in 0..numbers.next(12) {
            executor::yield_now().await;
        }
        if deaths < DEATHS && numbers.next(3) == 0 {
            deaths += 1;
            bed.kill().await;
            bed.replace(successor(&options, &region).await);
            bed.activate().await;
        } else {
            bed.wait(0).await;
        }
        while let Some(used) = bed.driver(0).take_used() {
            let slot = in_flight
                .iter()
                .position(|entry| entry.is_some_and(|(head, _)| head == used.head))
                .expect("what comes back was sent");
            let (_, kind) = in_flight[slot].take().unwrap();
            assert_eq!(bed.status(slot as u64), STATUS_OK);
            if kind == IN {
                assert_eq!(used.written, 513);
                let data = bed.read(Bed::data(slot as u64), 512);
                assert_eq!(data, expected[slot], "slot {slot}, seed {seed}");
            }
        }
    }
    for slot in 0..DEPTH {
        assert_eq!(disk.read(slot * 8, 512), expected[slot as usize]);
    }
    bed.finish().await;
}

#[test]
fn after_a_reset_nothing_is_taken_over() {
    on_both(|| async {
        let disk = Disk::new(1 << 20);
        let options = disk.options();
        let region = region(&options);
        let mut bed = Bed::start(successor(&options, &region).await, 1, options.queue_size);
        bed.activate().await;
        let frame = bed.frame(0, IN, 1, &[writable(Bed::data(0), 512)]);
        bed.driver(0).add(&frame).unwrap();
        bed.publish(0);
        bed.kill().await;
        // The driver resets the device while no back end is there.
        region.clear();
        bed.new_rings();
        bed.replace(successor(&options, &region).await);
        bed.activate().await;
        assert_eq!(bed.driver(0).take_used(), None);
        let data = [writable(Bed::data(0), 512)];
        assert_eq!(bed.request(IN, 2, &data).await, (STATUS_OK, 513));
        assert_eq!(bed.read(Bed::data(0), 512), pattern(2));
        bed.finish().await;
    });
}
