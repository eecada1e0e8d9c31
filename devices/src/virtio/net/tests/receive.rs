//! Frames to the driver.

use std::time::Duration;

use super::super::protocol::*;
use super::super::{LinkState, NetBackend, Offloads, Tap};
use super::bed::*;
use crate::virtio::backend::BackendEvent;
use crate::virtio::control::Change;

#[test]
fn small_frames_take_one_buffer_each() {
    on_both(|| async {
        for without in [0, MERGEABLE] {
            let mut bed = Bed::active(options(256), 1, OPTIONAL | without).await;
            let given = bed.give(RECEIVE, 100, 2048);
            for number in 0..100 {
                let sent = plain(OWN, 46 + number as usize, number);
                bed.inject(0, &sent).await;
                let received = bed.receive(RECEIVE, &given).await;
                assert_eq!(received[12..], sent[12..], "frame {number}");
                assert_eq!(received[10..12], [1, 0]);
            }
            bed.finish().await;
        }
    });
}

#[test]
fn a_large_frame_takes_as_many_buffers_as_it_needs() {
    on_both(|| async {
        let mut bed = Bed::active(options(1024), 1, OPTIONAL).await;
        let given = bed.give(RECEIVE, 1024, 1536);
        let header = Header {
            flags: FLAG_NEEDS_CSUM,
            gso_type: GSO_TCPV6,
            hdr_len: 74,
            gso_size: 1428,
            csum_start: 54,
            csum_offset: 16,
            num_buffers: 7777,
        };
        let sizes = [65000, 1, 1510, 1511, 65536, 40000, 0, 1524 - 14, 1525 - 14, 3060, 50];
        for (number, size) in sizes.into_iter().enumerate() {
            let sent = if size > 1600 {
                with(header, &frame(OWN, size, number as u32))
            } else {
                plain(OWN, size, number as u32)
            };
            bed.inject(0, &sent).await;
            let received = bed.receive(RECEIVE, &given).await;
            assert_eq!(received[..10], sent[..10]);
            let buffers = sent.len().div_ceil(1536) as u16;
            assert_eq!(received[10..12], buffers.to_le_bytes(), "of {size}");
            assert_eq!(received[12..], sent[12..]);
        }
        bed.finish().await;
    });
}

#[test]
fn a_buffer_without_room_for_a_tag_holds_the_largest_frame_without_one() {
    on_both(|| async {
        for without in [0, MERGEABLE] {
            // No offloads, and so no frames that are larger than the MTU.
            let offloads = Offloads::all().features();
            let mut bed = Bed::active(options(256), 1, OPTIONAL | without | offloads).await;
            let given = bed.give(RECEIVE, 1, 1526);
            let mut tagged = plain(OWN, 1504, 1);
            tagged[24..26].copy_from_slice(&[0x81, 0x00]);
            bed.inject(0, &tagged).await;
            let sent = plain(OWN, 1500, 2);
            bed.inject(0, &sent).await;
            let received = bed.receive(RECEIVE, &given).await;
            assert_eq!(received[12..], sent[12..]);
            assert_eq!(bed.statistics().await.received.dropped, 1);
            bed.finish().await;
        }
    });
}

#[test]
fn a_burst_arrives_whole_and_in_order() {
    on_both(|| async {
        let mut bed = Bed::active(options(256), 1, OPTIONAL).await;
        let mut given = bed.give(RECEIVE, 256, 4096);
        let (mut next, mut seen) = (0u32, 0u32);
        while seen < 3000 {
            while next < 3000 && next - seen < 50 {
                let sent = plain(OWN, 60, next);
                let peer = &bed.peers[0];
                let flags = rustix::net::SendFlags::DONTWAIT;
                if rustix::net::send(peer, &sent, flags).is_err() {
                    break;
                }
                next += 1;
            }
            let used = bed.used(RECEIVE).await;
            let (_, address) = *given.iter().find(|(head, _)| *head == used.head).unwrap();
            let received = bed.read(address, used.written as usize);
            assert_eq!(received[12..], plain(OWN, 60, seen)[12..], "frame {seen}");
            seen += 1;
            given.retain(|(head, _)| *head != used.head);
            let head = bed.driver(RECEIVE).add(&[writable(address, 4096)]).unwrap();
            given.push((head, address));
            bed.publish(RECEIVE);
        }
        bed.finish().await;
    });
}

#[test]
fn frames_wait_until_there_are_buffers() {
    on_both(|| async {
        let mut bed = Bed::active(options(64), 1, OPTIONAL | MERGEABLE).await;
        for number in 0..3 {
            bed.inject(0, &plain(OWN, 100, number)).await;
        }
        for _ in 0..10 {
            executor::yield_now().await;
        }
        for number in 0..3 {
            let given = bed.give(RECEIVE, 1, 2048);
            let received = bed.receive(RECEIVE, &given).await;
            assert_eq!(received[12..], plain(OWN, 100, number)[12..]);
        }
        bed.finish().await;
    });
}

#[test]
fn few_mergeable_buffers_serve_ordinary_frames() {
    on_both(|| async {
        let mut bed = Bed::active(options(64), 1, OPTIONAL).await;
        let given = bed.give(RECEIVE, 4, 1024);
        // One that fills all buffers may have been cut; what follows is whole.
        bed.inject(0, &plain(OWN, 8000, 1)).await;
        let sent = plain(OWN, 1500, 2);
        bed.inject(0, &sent).await;
        let received = bed.receive(RECEIVE, &given).await;
        assert_eq!(received[12..], sent[12..]);
        assert_eq!(received[10], 2);
        // Two buffers are left, then one more comes.
        let sent = plain(OWN, 1400, 3);
        bed.inject(0, &sent).await;
        let received = bed.receive(RECEIVE, &given).await;
        assert_eq!(received[12..], sent[12..]);
        bed.finish().await;
    });
}

/// A back end whose driver has given too few buffers for a large frame.
async fn with_few_buffers(refill: Duration) -> (Bed, Vec<(u16, u64)>) {
    let (sockets, peers) = sockets(1);
    let tap = Tap::from_sockets(sockets, 1500, Offloads::all()).unwrap();
    let backend = NetBackend::new(tap, options(256)).unwrap().with_refill_patience(refill);
    let mut bed = Bed::start_on(backend, peers);
    bed.features &= !OPTIONAL;
    bed.activate().await.unwrap();
    let given = bed.give(RECEIVE, 2, 1024);
    (bed, given)
}

#[test]
fn a_large_frame_waits_for_a_driver_that_gives_more_buffers() {
    on_both(|| async {
        let (mut bed, mut given) = with_few_buffers(Duration::from_hours(1)).await;
        let sent = plain(OWN, 60_000, 1);
        bed.inject(0, &sent).await;
        for _ in 0..10 {
            executor::yield_now().await;
        }
        for from in [2, 50] {
            given.extend(bed.give_from(RECEIVE, from, 48, 1024));
        }
        let received = bed.receive(RECEIVE, &given).await;
        assert_eq!(received[12..], sent[12..]);
        assert_eq!(bed.statistics().await.received.dropped, 0);
        bed.finish().await;
    });
}

#[test]
fn buffers_that_come_before_a_large_frame_hold_it() {
    on_both(|| async {
        let (mut bed, mut given) = with_few_buffers(Duration::ZERO).await;
        let sent = plain(OWN, 1400, 1);
        bed.inject(0, &sent).await;
        let received = bed.receive(RECEIVE, &given).await;
        assert_eq!(received[12..], sent[12..]);
        // Nothing is left of the two.
        given.clear();
        // These are too few for a large frame, and those after them enough.
        for (from, count) in [(2, 2), (4, 100)] {
            given.extend(bed.give_from(RECEIVE, from, count, 1024));
            for _ in 0..10 {
                executor::yield_now().await;
            }
        }
        let sent = plain(OWN, 60_000, 2);
        bed.inject(0, &sent).await;
        let received = bed.receive(RECEIVE, &given).await;
        assert_eq!(received[12..], sent[12..]);
        assert_eq!(bed.statistics().await.received.dropped, 0);
        bed.finish().await;
    });
}

#[test]
fn what_the_driver_must_not_see_is_dropped() {
    on_both(|| async {
        // Without TSO for IPv4.
        let mut bed = Bed::active(options(256), 1, OPTIONAL | 1 << 7).await;
        let given = bed.give(RECEIVE, 256, 2048);
        let header = Header { flags: FLAG_NEEDS_CSUM, gso_size: 1000, ..Header::default() };
        let hostile = [
            vec![0],
            vec![0xff; 11],
            vec![0; 12],
            vec![0; 25],
            with(Header { gso_type: GSO_TCPV4, ..header }, &frame(OWN, 3000, 1)),
            with(Header { gso_type: 0x55, ..header }, &frame(OWN, 3000, 1)),
            with(Header { gso_type: GSO_TCPV6, gso_size: 0, ..header }, &frame(OWN, 3000, 1)),
            with(Header { csum_start: 0xffff, ..header }, &frame(OWN, 3000, 1)),
            with(Header { csum_start: 50, csum_offset: 13, ..header }, &frame(OWN, 50, 1)),
            with(Header { flags: 0xff, ..header }, &frame(OWN, 50, 1)),
        ];
        let count = hostile.len() as u64;
        for bytes in hostile {
            bed.inject(0, &bytes).await;
        }
        let good = with(Header { csum_start: 50, csum_offset: 12, ..header }, &frame(OWN, 50, 1));
        bed.inject(0, &good).await;
        let received = bed.receive(RECEIVE, &given).await;
        assert_eq!(received[12..], good[12..]);
        let statistics = bed.statistics().await;
        assert_eq!(statistics.received.dropped, count);
        assert_eq!(statistics.received.frames, 1);
        bed.finish().await;
    });
}

#[test]
fn the_link_goes_down_and_up() {
    on_both(|| async {
        let mut bed = Bed::active(options(64), 1, OPTIONAL).await;
        let given = bed.give(RECEIVE, 64, 2048);
        for (state, status) in [(LinkState::Down, 0), (LinkState::Up, 1)] {
            bed.change(Change::Link(state)).await;
            bed.change(Change::Link(state)).await;
            let BackendEvent::ConfigChanged { config } = bed.events.recv().await.unwrap() else {
                panic!("another event");
            };
            assert_eq!(config[6..8], [status, 0]);
            assert_eq!(bed.config().await, config);
            bed.inject(0, &plain(OWN, 100, u32::from(status))).await;
            // The frame is read before the link changes again.
            loop {
                let statistics = bed.statistics().await;
                if statistics.received.dropped + statistics.received.frames > u64::from(status) {
                    break;
                }
                executor::yield_now().await;
            }
        }
        let received = bed.receive(RECEIVE, &given).await;
        assert_eq!(received[12..], plain(OWN, 100, 1)[12..]);
        assert!(bed.events.try_recv().is_err(), "one event for each change");
        bed.finish().await;
    });
}
