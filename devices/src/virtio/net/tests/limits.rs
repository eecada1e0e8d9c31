//! Rate limits: with a rate of zero and a burst, exactly the burst goes through.

use super::super::NetOptions;
use super::bed::*;
use crate::rate_limit::{RateLimit, RateLimits};
use crate::virtio::control::{Change, LimitedTraffic};

fn only(operations: Option<u64>, bytes: Option<u64>) -> RateLimits {
    let limit = |burst| RateLimit { per_second: 0, burst };
    RateLimits { bytes: bytes.map(limit), operations: operations.map(limit) }
}

#[test]
fn frames_stop_at_the_limit_and_go_on_when_it_is_lifted() {
    on_both(|| async {
        // 60 bytes a frame.
        for limits in [only(Some(5), None), only(None, Some(300)), only(Some(5), Some(10_000))] {
            let limited = NetOptions { transmit: limits, receive: limits, ..options(64) };
            let mut bed = Bed::active(limited, 1, OPTIONAL | MERGEABLE).await;
            let given = bed.give(RECEIVE, 64, 2048);
            for number in 0..20 {
                bed.add_frame(TRANSMIT, u64::from(number), &plain(PEER, 46, number));
                bed.publish(TRANSMIT);
                bed.inject(0, &plain(OWN, 46, number)).await;
            }
            for number in 0..5 {
                assert_eq!(bed.sent(0).await, plain(PEER, 46, number));
                let received = bed.receive(RECEIVE, &given).await;
                assert_eq!(received[12..], plain(OWN, 46, number)[12..]);
            }
            for _ in 0..100 {
                executor::yield_now().await;
            }
            let statistics = bed.statistics().await;
            assert_eq!(statistics.transmitted.frames, 5);
            // Reads that were under way already bring one each.
            assert!((5..=12).contains(&statistics.received.frames), "{statistics:?}");
            let (traffic, limits) = (LimitedTraffic::Both, RateLimits::NONE);
            bed.change(Change::RateLimits { traffic, limits }).await;
            for number in 5..20 {
                assert_eq!(bed.sent(0).await, plain(PEER, 46, number));
                let received = bed.receive(RECEIVE, &given).await;
                assert_eq!(received[12..], plain(OWN, 46, number)[12..]);
            }
            bed.finish().await;
        }
    });
}

#[test]
fn a_rate_lets_frames_through_with_time() {
    on_both(|| async {
        let limit = RateLimit { per_second: 2000, burst: 1 };
        let limits = RateLimits { operations: Some(limit), bytes: None };
        let limited = NetOptions { transmit: limits, ..options(64) };
        let mut bed = Bed::active(limited, 1, OPTIONAL).await;
        for number in 0..30 {
            bed.add_frame(TRANSMIT, u64::from(number), &plain(PEER, 46, number));
        }
        let start = executor::now();
        bed.publish(TRANSMIT);
        for number in 0..30 {
            assert_eq!(bed.sent(0).await, plain(PEER, 46, number));
        }
        // The first was free, the others half a millisecond each: never faster.
        assert!(executor::now().duration_since(start).as_micros() >= 29 * 500);
        bed.finish().await;
    });
}

#[test]
fn a_limited_device_can_be_paused_and_reset() {
    on_both(|| async {
        let limits = only(Some(1), None);
        let limited = NetOptions { transmit: limits, receive: limits, ..options(64) };
        let mut bed = Bed::active(limited, 1, OPTIONAL).await;
        bed.give(RECEIVE, 64, 2048);
        for number in 0..10 {
            bed.add_frame(TRANSMIT, u64::from(number), &plain(PEER, 46, number));
            bed.inject(0, &plain(OWN, 46, number)).await;
        }
        bed.publish(TRANSMIT);
        bed.sent(0).await;
        bed.pause().await;
        bed.resume().await;
        bed.reset().await;
        bed.new_rings();
        bed.activate().await.unwrap();
        bed.pause().await;
        bed.finish().await;
    });
}
