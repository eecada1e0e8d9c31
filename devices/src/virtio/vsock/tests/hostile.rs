use executor::DriverChoice;
use proptest::prelude::*;
use zerocopy::IntoBytes;

use super::bed::*;
use crate::virtio::test_bed::on;
use crate::virtio::vsock::SocketKind;
use crate::virtio::vsock::protocol::{Header, Op};

#[test]
fn lies_of_the_guest_end_the_connection() {
    on_both(|| async {
        let mut bed = Bed::active().await;
        let (guest, _host) = bed.open_from_guest(1, SocketKind::Stream, 100).await;
        let longer = Header { len: 100.into(), ..guest.header(Op::Rw) };
        bed.send_raw(&[longer.as_bytes(), b"short"].concat()).await;
        assert_eq!(bed.next().await.op(), Op::Rst);

        let (guest, _host) = bed.open_from_guest(1, SocketKind::Stream, 100).await;
        let taken = Guest { taken: 1, ..guest };
        bed.send(taken.header(Op::CreditUpdate), &[]).await;
        assert_eq!(bed.next().await.op(), Op::Rst);

        for op in [0, 8, 255, Op::Response as u16] {
            let (guest, _host) = bed.open_from_guest(1, SocketKind::Stream, 100).await;
            bed.send(Header { op: op.into(), ..guest.header(Op::Rw) }, &[]).await;
            assert_eq!(bed.next().await.op(), Op::Rst);
        }
    });
}

#[test]
fn more_than_the_credit_is_not_kept() {
    on_both(|| async {
        let mut bed = Bed::active().await;
        for kind in [SocketKind::Stream, SocketKind::Seqpacket] {
            let (guest, _host) = bed.open_from_guest(1, kind, 100).await;
            // For messages: one that does not end.
            loop {
                bed.send(guest.header(Op::Rw), &pattern(65_000, 0)).await;
                if bed.driver(RX).has_used() && bed.packet().await.op() == Op::Rst {
                    break;
                }
            }
        }
    });
}

#[test]
fn packets_from_and_to_elsewhere_are_refused_or_dropped() {
    on_both(|| async {
        let mut bed = Bed::active().await;
        let (guest, host) = bed.open_from_guest(1, SocketKind::Stream, 100).await;
        bed.send(Header { src_cid: 99.into(), ..guest.header(Op::Rst) }, &[]).await;
        bed.send_raw(&[0; 43]).await;
        bed.send(Header { kind: 9.into(), ..guest.header(Op::Rw) }, b"x").await;
        let packet = bed.next().await;
        assert_eq!((packet.op(), packet.header.kind.get()), (Op::Rst, 9));
        bed.send(Header { kind: 9.into(), ..guest.header(Op::Rst) }, &[]).await;
        bed.send(Guest { port: 4, ..guest }.header(Op::Rst), &[]).await;
        // The connection has nothing to do with all that.
        bed.send(guest.header(Op::Rw), b"fine").await;
        assert_eq!(receive(&attach(host), 4).await, b"fine");
    });
}

#[test]
fn messages_are_refused_where_they_were_not_negotiated() {
    on_both(|| async {
        let mut bed = Bed::with(crate::virtio::vsock::VsockOptions::new(CID));
        bed.features &= !2;
        bed.activate().await;
        bed.give(8);
        let guest =
            Guest { port: 1, host_port: 2000, kind: SocketKind::Seqpacket, room: 9, taken: 0 };
        bed.send(guest.header(Op::Request), &[]).await;
        assert_eq!(bed.next().await.op(), Op::Rst);
    });
}

#[test]
fn refusals_that_nobody_takes_stop_the_transmit_queue() {
    on_both(|| async {
        let mut bed = Bed::with(crate::virtio::vsock::VsockOptions::new(CID));
        bed.activate().await;
        let guest = Guest { port: 1, host_port: 5, kind: SocketKind::Stream, room: 9, taken: 0 };
        let header = guest.header(Op::Rw);
        for _ in 0..256 {
            bed.send(header, &[]).await;
        }
        bed.queue_raw(header.as_bytes());
        bed.config().await;
        assert!(!bed.driver(TX).has_used());
        bed.give(8);
        bed.used(TX).await;
        for _ in 0..257 {
            assert_eq!(bed.packet().await.op(), Op::Rst);
        }
    });
}

fn hostile_header() -> impl Strategy<Value = Header> {
    let port = prop_oneof![Just(1u32), Just(2), Just(2000), any::<u32>()];
    let small = prop_oneof![Just(0u32), Just(100), any::<u32>()];
    let cids = prop_oneof![8 => Just((CID, 2)), 1 => any::<(u64, u64)>()];
    let kind = prop_oneof![4 => Just(1u16), 2 => Just(2), 1 => any::<u16>()];
    (cids, port.clone(), port, 0u32..80_000, kind, 0u16..9, 0u32..4, small.clone(), small).prop_map(
        |((src, dst), from, to, len, kind, op, flags, room, taken)| Header {
            src_cid: src.into(),
            dst_cid: dst.into(),
            src_port: from.into(),
            dst_port: to.into(),
            len: len.into(),
            kind: kind.into(),
            op: op.into(),
            flags: flags.into(),
            buf_alloc: room.into(),
            fwd_cnt: taken.into(),
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_packets_leave_a_device_that_serves(
        packets in prop::collection::vec((hostile_header(), 0usize..70_000), 1..60),
    ) {
        on(DriverChoice::Uring, || async {
            let mut bed = Bed::active().await;
            let mut hosts = Vec::new();
            for (header, bytes) in &packets {
                for kind in [SocketKind::Stream, SocketKind::Seqpacket] {
                    hosts.push(bed.listen(2000, kind));
                }
                bed.send_raw(&[header.as_bytes(), &vec![0; *bytes]].concat()).await;
                while bed.driver(RX).has_used() {
                    bed.any_packet().await;
                }
            }
            // A connection of its own works whatever went before.
            let host = bed.listen(4000, SocketKind::Stream);
            let guest =
                Guest { port: 77, host_port: 4000, kind: SocketKind::Stream, room: 9, taken: 0 };
            bed.send(guest.header(Op::Request), &[]).await;
            bed.send(guest.header(Op::CreditRequest), &[]).await;
            loop {
                let header = bed.any_packet().await;
                if header.dst_port.get() == 77 {
                    break;
                }
            }
            drop(host);
            bed.reset().await;
        });
    }
}
