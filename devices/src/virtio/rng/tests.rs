use executor::{DriverChoice, Either};

use super::*;
use crate::rate_limit::RateLimit;
use crate::virtio::queue::driver::Buffer;
use crate::virtio::test_bed::{TestBed, on_both, readable, writable};

const PLACE: u64 = 1 << 20;

fn backend() -> RngBackend {
    RngBackend::new(RateLimits::NONE)
}

fn bed(backend: RngBackend) -> TestBed {
    let mut bed = TestBed::new(4 << 20, &RngBackend::profile());
    bed.run(|context| backend.run(context));
    bed
}

async fn active(backend: RngBackend) -> TestBed {
    let bed = bed(backend);
    bed.activate_with(bed.features, bed.setups(&[])).await.unwrap();
    bed
}

/// One request: how much the device says that it wrote.
async fn ask(bed: &mut TestBed, buffers: &[Buffer]) -> u32 {
    let head = bed.driver(0).add(buffers).unwrap();
    bed.publish(0);
    let used = bed.used(0).await;
    assert_eq!(used.head, head);
    used.written
}

#[test]
fn buffers_are_filled_and_nothing_beside_them() {
    on_both(|| async {
        let mut bed = active(backend()).await;
        for length in [1, 7, 64, 4096] {
            bed.write(PLACE, &vec![0; 8192]);
            assert_eq!(ask(&mut bed, &[writable(PLACE, length)]).await, length);
            let bytes = bed.read(PLACE, 8192);
            let (filled, rest) = bytes.split_at(length as usize);
            assert!(rest.iter().all(|byte| *byte == 0));
            assert!(length < 64 || filled.iter().any(|byte| *byte != 0));
        }
        let before = bed.read(PLACE, 4096);
        ask(&mut bed, &[writable(PLACE, 4096)]).await;
        assert_ne!(bed.read(PLACE, 4096), before);
        let counts = bed.counts(0);
        assert_eq!((counts.requests, counts.bytes), (5, 1 + 7 + 64 + 2 * 4096));
        bed.finish().await;
    });
}

#[test]
fn a_buffer_may_lie_in_pieces_behind_readable_ones() {
    on_both(|| async {
        let mut bed = active(backend()).await;
        let pieces = [readable(PLACE, 16), writable(PLACE + 4096, 3), writable(PLACE + 8192, 200)];
        assert_eq!(ask(&mut bed, &pieces).await, 203);
        assert_eq!(bed.read(PLACE, 16), [0; 16]);
        assert!(bed.read(PLACE + 8192, 200).iter().any(|byte| *byte != 0));
        bed.finish().await;
    });
}

#[test]
fn a_large_buffer_gets_a_bounded_piece() {
    on_both(|| async {
        let mut bed = active(backend()).await;
        assert_eq!(ask(&mut bed, &[writable(PLACE, 2 << 20)]).await, MOST_BYTES as u32);
        assert!(bed.read(PLACE + MOST_BYTES as u64, 4096).iter().all(|byte| *byte == 0));
        bed.finish().await;
    });
}

#[test]
fn many_buffers_all_come_back() {
    on_both(|| async {
        let mut bed = active(backend()).await;
        for _ in 0..20 {
            for index in 0..u64::from(QUEUE_SIZE) {
                bed.driver(0).add(&[writable(PLACE + index * 8192, 8192)]).unwrap();
            }
            bed.publish(0);
            for _ in 0..QUEUE_SIZE {
                assert_eq!(bed.used(0).await.written, 8192);
            }
        }
        bed.finish().await;
    });
}

#[test]
fn what_is_no_request_breaks_the_queue_until_a_reset() {
    let table: [&[Buffer]; 3] =
        [&[readable(PLACE, 16)], &[writable(u64::MAX - 4095, 4096)], &[writable(4 << 20, 1)]];
    on_both(|| async {
        let mut bed = bed(backend());
        for buffers in table {
            bed.new_rings();
            bed.activate_with(bed.features, bed.setups(&[])).await.unwrap();
            bed.driver(0).add(buffers).unwrap();
            bed.publish(0);
            let said = bed.wait_or_event(0).await;
            assert!(matches!(said, Either::Right(_)), "{buffers:?}");
            bed.reset().await;
        }
        bed.new_rings();
        bed.activate_with(bed.features, bed.setups(&[])).await.unwrap();
        assert_eq!(ask(&mut bed, &[writable(PLACE, 64)]).await, 64);
        bed.finish().await;
    });
}

#[test]
fn a_limit_that_admits_nothing_more_holds_until_it_changes() {
    on_both(|| async {
        let limit = RateLimit { per_second: 0, burst: 64 };
        let limits = RateLimits { bytes: Some(limit), operations: None };
        let mut bed = active(RngBackend::new(limits)).await;
        assert_eq!(ask(&mut bed, &[writable(PLACE, 64)]).await, 64);
        bed.driver(0).add(&[writable(PLACE, 64)]).unwrap();
        bed.publish(0);
        // It answers others meanwhile and can be paused.
        bed.pause().await;
        bed.resume().await;
        assert!(!bed.driver(0).has_used());
        let change = |traffic| Change::RateLimits { traffic, limits: RateLimits::NONE };
        assert!(bed.try_change(change(LimitedTraffic::Transmit)).await.is_err());
        bed.change(change(LimitedTraffic::Both)).await;
        assert_eq!(bed.used(0).await.written, 64);
        bed.finish().await;
    });
}

#[test]
fn a_reset_while_it_waits_is_answered() {
    on_both(|| async {
        let limit = RateLimit { per_second: 0, burst: 1 };
        let limits = RateLimits { bytes: Some(limit), operations: None };
        let mut bed = active(RngBackend::new(limits)).await;
        for _ in 0..2 {
            bed.driver(0).add(&[writable(PLACE, 64)]).unwrap();
        }
        bed.publish(0);
        assert_eq!(bed.used(0).await.written, 64);
        bed.reset().await;
        assert!(bed.driver(0).take_used().is_none());
        bed.finish().await;
    });
}

#[test]
fn a_successor_fills_what_was_taken() {
    super::super::test_bed::on(DriverChoice::Epoll, || async {
        let region = InflightRegion::create(1, QUEUE_SIZE).unwrap();
        let again = || {
            let file = region.file().try_clone_to_owned().unwrap();
            InflightRegion::attach(file, 1, QUEUE_SIZE).unwrap()
        };
        let limit = RateLimit { per_second: 0, burst: 1 };
        let limits = RateLimits { bytes: Some(limit), operations: None };
        let mut bed = active(RngBackend::new(limits).with_inflight(again())).await;
        for index in 0..8 {
            bed.driver(0).add(&[writable(PLACE + index * 64, 64)]).unwrap();
        }
        bed.publish(0);
        bed.used(0).await;
        bed.kill().await;
        let successor = backend().with_inflight(again());
        bed.run(|context| successor.run(context));
        bed.activate_with(bed.features, bed.setups(&[])).await.unwrap();
        for _ in 0..7 {
            assert_eq!(bed.used(0).await.written, 64);
        }
        bed.finish().await;
    });
}
