//! What the guest says of its memory, when it is asked.

use std::time::Duration;

use executor::{Either, select};

use super::super::BalloonParts;
use super::bed::*;

const FREE: u16 = 4;

#[test]
fn the_guest_is_asked_when_somebody_wants_to_know() {
    on_both(|| async {
        let mut bed = Bed::active(parts()).await;
        let first = bed.hold(FREE, 111).await;
        // The question gives the buffer back; only its return answers.
        let controls = bed.controls.clone();
        let ask = |reply| crate::virtio::control::ControlRequest::Statistics { reply };
        let answer = controls.call(ask, deadline());
        let driver = async {
            assert_eq!(bed.used(STATISTICS).await.head, first);
            bed.say(FREE, 222);
            std::future::pending::<()>().await;
        };
        let Either::Left(answer) = select(answer, driver).await else { unreachable!() };
        let crate::virtio::control::Statistics::Balloon(statistics) = answer.unwrap() else {
            panic!("not of a balloon");
        };
        let guest = statistics.guest.unwrap();
        assert_eq!((guest.free, guest.total), (Some(222), None));
        assert!(statistics.guest_age.is_some());
        bed.finish().await;
    });
}

#[test]
fn without_the_queue_the_answer_is_what_is_known() {
    on_both(|| async {
        let mut bed = Bed::start(parts(), None);
        bed.features &= !STATS_VQ;
        assert_eq!(bed.balloon_statistics().await.guest, None);
        bed.activate(&[0, 1]).await.unwrap();
        let list = bed.list(&[spare(0), spare(1)]);
        bed.exchange(INFLATE, &[list]).await;
        let statistics = bed.balloon_statistics().await;
        assert_eq!((statistics.inflated_bytes, statistics.guest), (2 * PAGE, None));
        bed.finish().await;
    });
}

#[test]
fn whoever_waits_is_answered_when_the_queue_stops() {
    on_both(|| async {
        let mut bed = Bed::active(parts()).await;
        let first = bed.hold(FREE, 111).await;
        let controls = bed.controls.clone();
        let ask = |reply| crate::virtio::control::ControlRequest::Statistics { reply };
        let answer = controls.call(ask, deadline());
        let driver = async {
            assert_eq!(bed.used(STATISTICS).await.head, first);
            bed.pause().await;
            std::future::pending::<()>().await;
        };
        let Either::Left(answer) = select(answer, driver).await else { unreachable!() };
        answer.unwrap();
        bed.finish().await;
    });
}

#[test]
fn the_guest_is_asked_each_interval() {
    on_both(|| async {
        let interval = Some(Duration::from_millis(1));
        let mut bed = Bed::active(BalloonParts { statistics_interval: interval, ..parts() }).await;
        for value in 0..5 {
            let head = bed.say(FREE, value);
            assert_eq!(bed.used(STATISTICS).await.head, head);
        }
        bed.finish().await;
    });
}

#[test]
fn a_paused_device_keeps_the_buffer_and_a_second_one_releases_it() {
    on_both(|| async {
        let mut bed = Bed::active(parts()).await;
        let head = bed.say(FREE, 5);
        for _ in 0..3 {
            bed.pause().await;
            assert!(bed.driver(STATISTICS).take_used().is_none());
            bed.resume().await;
            executor::yield_now().await;
        }
        let second = bed.say(FREE, 6);
        assert_eq!(bed.used(STATISTICS).await.head, head);
        bed.say(FREE, 7);
        assert_eq!(bed.used(STATISTICS).await.head, second);
        bed.finish().await;
    });
}
