//! Limits, sizes and counts of a disk that runs.

use super::super::{BlockBackend, BlockImage};
use super::bed::*;
use crate::rate_limit::{RateLimit, RateLimits};
use crate::virtio::backend::BackendEvent;
use crate::virtio::control::{Change, LimitedTraffic};
use crate::virtio::parts::Parts;

/// With a rate of zero and a burst, exactly the burst goes through.
fn only(operations: Option<u64>, bytes: Option<u64>) -> RateLimits {
    let limit = |burst| RateLimit { per_second: 0, burst };
    RateLimits { bytes: bytes.map(limit), operations: operations.map(limit) }
}

fn limits(limits: RateLimits) -> Change {
    Change::RateLimits { traffic: LimitedTraffic::Both, limits }
}

#[test]
fn requests_stop_at_the_limit_and_go_on_when_it_is_lifted() {
    on_both(|| async {
        let disk = Disk::new(1 << 20);
        for limit in [only(Some(5), None), only(None, Some(5 * 4096)), only(Some(5), Some(1 << 20))]
        {
            let mut options = disk.options();
            options.limits = limit;
            let mut bed = running(&options).await;
            for place in 0..20 {
                let data = [writable(Bed::data(place), 4096)];
                let frame = bed.frame(place, IN, place * 8, &data);
                bed.driver(0).add(&frame).unwrap();
            }
            bed.publish(0);
            for _ in 0..5 {
                bed.used(0).await;
            }
            for _ in 0..100 {
                executor::yield_now().await;
            }
            assert!(bed.driver(0).take_used().is_none());
            // A pause does not wait for what is not admitted.
            bed.pause().await;
            bed.resume().await;
            assert!(bed.driver(0).take_used().is_none());
            bed.change(limits(RateLimits::NONE)).await;
            for _ in 5..20 {
                bed.used(0).await;
            }
            let counts = bed.counts(0);
            assert_eq!((counts.requests, counts.bytes), (20, 20 * 4096));
            assert_eq!(counts.batch_sizes.iter().sum::<u64>(), counts.batches);
            // A device that looks for what it is owed need not take note of a kick.
            assert!(counts.interrupts >= 1);
            bed.finish().await;
        }
    });
}

#[test]
fn a_rate_lets_requests_through_with_time() {
    on_both(|| async {
        let disk = Disk::new(1 << 20);
        let mut options = disk.options();
        let limit = RateLimit { per_second: 2000, burst: 1 };
        options.limits = RateLimits { operations: Some(limit), bytes: None };
        let mut bed = running(&options).await;
        let start = executor::now();
        for _ in 0..30 {
            let data = [writable(Bed::data(0), 512)];
            assert_eq!(bed.request(IN, 0, &data).await, (STATUS_OK, 513));
        }
        // The first was free, the others half a millisecond each: never faster.
        assert!(executor::now().duration_since(start).as_micros() >= 29 * 500);
        bed.finish().await;
    });
}

#[test]
fn a_disk_grows_and_shrinks_under_its_driver() {
    on_both(|| async {
        let disk = Disk::new(1 << 20);
        let mut bed = running(&disk.options()).await;
        let (first_new, data) = ((1 << 20) / SECTOR, [writable(Bed::data(0), 512)]);
        assert_eq!(bed.request(IN, first_new, &data).await.0, STATUS_IOERR);
        disk.file.set_len(2 << 20).unwrap();
        for (bytes, status) in [(2_u64 << 20, STATUS_OK), (1 << 20, STATUS_IOERR)] {
            bed.change(Change::Size { bytes }).await;
            let BackendEvent::ConfigChanged { config } = bed.events.recv().await.unwrap() else {
                panic!("another event");
            };
            assert_eq!(config[..8], (bytes / SECTOR).to_le_bytes());
            assert_eq!(bed.config().await, config);
            assert_eq!(bed.request(IN, first_new, &data).await.0, status);
        }
        for bytes in [0, 1, (1 << 20) + 1, u64::MAX] {
            assert!(bed.try_change(Change::Size { bytes }).await.is_err());
        }
        bed.finish().await;
    });
}

#[test]
fn a_successor_starts_with_what_was_changed() {
    let disk = Disk::new(1 << 20);
    let mut image = BlockImage::open(&disk.options()).unwrap();
    image.remember(&Change::Size { bytes: 512 });
    image.remember(&limits(only(Some(1), None)));
    let successor = image.try_clone().unwrap();
    assert_eq!(successor.size(), 512);
    assert_eq!(successor.limits, only(Some(1), None));
    assert_eq!(BlockBackend::new(successor).profile().config[..8], 1_u64.to_le_bytes());
}
