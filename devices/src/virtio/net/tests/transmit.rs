//! Frames from the driver.

use super::super::LinkState;
use super::super::protocol::*;
use super::bed::*;
use crate::virtio::control::Change;

#[test]
fn frames_leave_in_order_and_come_back_as_used() {
    on_both(|| async {
        let mut bed = Bed::active(options(64), 1, OPTIONAL).await;
        for round in 0..20 {
            let mut sent = Vec::new();
            for place in 0..7 {
                let frame = plain(PEER, 50 + 100 * place as usize, round);
                bed.add_frame(TRANSMIT, place, &frame);
                sent.push(frame);
            }
            bed.publish(TRANSMIT);
            for frame in sent {
                assert_eq!(bed.sent(0).await, frame);
                assert_eq!(bed.used(TRANSMIT).await.written, 0);
            }
        }
        bed.finish().await;
    });
}

#[test]
fn a_frame_is_gathered_from_pieces_of_any_size() {
    on_both(|| async {
        let mut bed = Bed::active(options(64), 1, OPTIONAL).await;
        let header = Header {
            flags: FLAG_NEEDS_CSUM,
            gso_type: GSO_TCPV4,
            hdr_len: 54,
            gso_size: 1448,
            csum_start: 34,
            csum_offset: 16,
            num_buffers: 0,
        };
        let large = with(header, &frame(PEER, 65000, 3));
        let cuts = [0, 1, 5, 12, 13, 40, 4000, 4001, 65000, large.len()];
        let mut buffers = Vec::new();
        for (piece, cut) in cuts.windows(2).enumerate() {
            let address = place_at(piece as u64) + piece as u64;
            bed.write(address, &large[cut[0]..cut[1]]);
            buffers.push(readable(address, (cut[1] - cut[0]) as u32));
        }
        bed.driver(TRANSMIT).add_indirect(place_at(20), &buffers).unwrap();
        bed.driver(TRANSMIT).add(&buffers).unwrap();
        bed.publish(TRANSMIT);
        assert_eq!(bed.sent(0).await, large);
        assert_eq!(bed.sent(0).await, large);
        bed.finish().await;
    });
}

#[test]
fn frames_that_cannot_be_are_dropped_and_given_back() {
    on_both(|| async {
        let mut bed = Bed::active(options(64), 1, OPTIONAL).await;
        for length in [1, 11, 12, 25, 70000, 60 << 20] {
            bed.driver(TRANSMIT).add(&[readable(0, length)]).unwrap();
        }
        bed.driver(TRANSMIT).add(&[writable(place_at(1), 100)]).unwrap();
        // Persistent memory of the guest, say.
        let elsewhere = [readable(place_at(1), 100), readable(1 << 40, 100)];
        bed.driver(TRANSMIT).add(&elsewhere).unwrap();
        let good = plain(PEER, 0, 1);
        bed.add_frame(TRANSMIT, 0, &good);
        bed.publish(TRANSMIT);
        assert_eq!(bed.sent(0).await, good);
        for _ in 0..9 {
            assert_eq!(bed.used(TRANSMIT).await.written, 0);
        }
        let statistics = bed.statistics().await;
        assert_eq!(statistics.transmitted.frames, 1);
        assert_eq!(statistics.transmitted.bytes, 14);
        assert_eq!(statistics.transmitted.dropped, 8);
        bed.finish().await;
    });
}

#[test]
fn while_the_link_is_down_frames_go_nowhere() {
    on_both(|| async {
        let mut bed = Bed::active(options(64), 1, OPTIONAL).await;
        bed.change(Change::Link(LinkState::Down)).await;
        bed.add_frame(TRANSMIT, 0, &plain(PEER, 50, 1));
        bed.publish(TRANSMIT);
        bed.used(TRANSMIT).await;
        bed.change(Change::Link(LinkState::Up)).await;
        let after = plain(PEER, 50, 2);
        bed.add_frame(TRANSMIT, 0, &after);
        bed.publish(TRANSMIT);
        assert_eq!(bed.sent(0).await, after);
        bed.finish().await;
    });
}

#[test]
fn many_more_frames_than_the_queue_has_room_for() {
    on_both(|| async {
        let mut bed = Bed::active(options(64), 1, OPTIONAL).await;
        let (mut added, mut seen) = (0u32, 0u32);
        while seen < 2000 {
            // Not more at once than the socket holds.
            while added < 2000 && added - seen < 64 && bed.driver(TRANSMIT).free_descriptors() > 0 {
                let place = u64::from(added % 64);
                bed.add_frame(TRANSMIT, place, &plain(PEER, 40, added));
                added += 1;
            }
            bed.publish(TRANSMIT);
            assert_eq!(bed.sent(0).await, plain(PEER, 40, seen));
            seen += 1;
            while bed.driver(TRANSMIT).take_used().is_some() {}
        }
        bed.finish().await;
    });
}
