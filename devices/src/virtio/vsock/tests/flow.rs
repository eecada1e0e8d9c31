use std::cell::Cell;
use std::rc::Rc;

use super::bed::*;
use crate::virtio::vsock::SocketKind;
use crate::virtio::vsock::protocol::Op;

const TOTAL: usize = 1 << 20;

#[test]
fn bytes_flow_both_ways_within_credit() {
    on_both(|| async {
        let mut bed = Bed::active().await;
        let (mut guest, host) = bed.open_from_guest(1, SocketKind::Stream, 64 << 10).await;
        let host = attach(host);
        let to_guest = pattern(TOTAL, 1);
        let to_host = pattern(TOTAL, 2);
        let sender = host.clone();
        let bytes = to_guest.clone();
        let sending = executor::spawn(async move { send_all(&sender, &bytes).await });
        let receiver = host.clone();
        let receiving = executor::spawn(async move { receive(&receiver, TOTAL).await });
        let (mut got, mut sent, mut room) = (Vec::new(), 0, 256 << 10);
        let mut told = 0u32;
        while got.len() < TOTAL || sent < TOTAL {
            if sent < TOTAL && room > sent as u32 - told {
                let most = (room - (sent as u32 - told)).min(60_000) as usize;
                let piece = &to_host[sent..TOTAL.min(sent + most)];
                sent += piece.len();
                guest.taken = got.len() as u32;
                bed.send(guest.header(Op::Rw), piece).await;
                while bed.driver(RX).has_used() {
                    absorb(&mut bed, &guest, &mut got, &mut room, &mut told).await;
                }
                continue;
            }
            absorb(&mut bed, &guest, &mut got, &mut room, &mut told).await;
            guest.taken = got.len() as u32;
            bed.send(guest.header(Op::CreditUpdate), &[]).await;
        }
        sending.await;
        assert!(got == to_guest);
        assert!(receiving.await == to_host);
        assert_eq!(bed.counts(TX).bytes, TOTAL as u64);
        assert_eq!(bed.metrics.as_ref().unwrap().read()[RX].bytes, TOTAL as u64);
    });
}

async fn absorb(bed: &mut Bed, guest: &Guest, got: &mut Vec<u8>, room: &mut u32, told: &mut u32) {
    let packet = bed.packet().await;
    (*room, *told) = (packet.header.buf_alloc.get(), packet.header.fwd_cnt.get());
    assert!(matches!(packet.op(), Op::Rw | Op::CreditUpdate | Op::CreditRequest));
    got.extend(packet.data);
    let under_way = got.len() as u32 - guest.taken;
    assert!(under_way <= guest.room, "more than the credit");
}

#[test]
fn a_slow_program_of_the_host_stalls_nobody_else() {
    on_both(|| async {
        let mut bed = Bed::active().await;
        let (slow, slow_host) = bed.open_from_guest(1, SocketKind::Stream, 100).await;
        let (fast, fast_host) = bed.open_from_guest(2, SocketKind::Stream, 100).await;
        // All that its credit allows, of which its socket takes a part.
        let data = pattern(64 << 10, 5);
        let mut credit = 128 << 10;
        let mut sent = 0;
        let (slow_host, fast_host) = (attach(slow_host), attach(fast_host));
        while sent < credit {
            bed.send(slow.header(Op::Rw), &data).await;
            sent += data.len() as u32;
            while bed.driver(RX).has_used() {
                let header = bed.packet().await.header;
                credit = header.fwd_cnt.get() + header.buf_alloc.get();
            }
        }
        for _ in 0..50 {
            bed.send(fast.header(Op::Rw), &data).await;
            assert!(receive(&fast_host, data.len()).await == data);
        }
        // Nothing of the slow one is lost.
        for _ in 0..sent as usize / data.len() {
            assert!(receive(&slow_host, data.len()).await == data);
        }
    });
}

#[test]
fn a_slow_program_of_the_guest_stalls_nobody_else() {
    on_both(|| async {
        let mut bed = Bed::active().await;
        let (_slow, slow_host) = bed.open_from_guest(1, SocketKind::Stream, 1000).await;
        let (mut fast, fast_host) = bed.open_from_guest(2, SocketKind::Stream, 64 << 10).await;
        let (slow_host, fast_host) = (attach(slow_host), attach(fast_host));
        let sent = Rc::new(Cell::new(0));
        let flood = {
            let sent = sent.clone();
            executor::spawn(async move {
                for _ in 0..16 {
                    send_all(&slow_host, &[7; 1000]).await;
                    sent.set(sent.get() + 1000);
                }
                slow_host
            })
        };
        let mut from_slow = 0;
        for round in 0..50u32 {
            let data = pattern(8000, round);
            send_all(&fast_host, &data).await;
            let mut got = Vec::new();
            while got.len() < data.len() {
                let packet = bed.next().await;
                if packet.header.dst_port.get() == 1 {
                    from_slow += packet.data.len();
                } else {
                    got.extend(packet.data);
                }
            }
            assert!(got == data);
            fast.taken += 8000;
            bed.send(fast.header(Op::CreditUpdate), &[]).await;
        }
        assert_eq!(from_slow, 1000, "as much as the credit");
        drop(flood.await);
    });
}

#[test]
fn the_guest_is_asked_for_credit_once_and_answers_questions_of_credit() {
    on_both(|| async {
        let mut bed = Bed::active().await;
        let (mut guest, host) = bed.open_from_guest(1, SocketKind::Stream, 100).await;
        let host = attach(host);
        send_all(&host, &[1; 250]).await;
        assert_eq!(bed.packet().await.data.len(), 100);
        assert_eq!(bed.packet().await.op(), Op::CreditRequest);
        guest.taken = 100;
        bed.send(guest.header(Op::CreditUpdate), &[]).await;
        assert_eq!(bed.packet().await.data.len(), 100);
        assert_eq!(bed.packet().await.op(), Op::CreditRequest);
        bed.send(guest.header(Op::CreditRequest), &[]).await;
        assert_eq!(bed.packet().await.op(), Op::CreditUpdate);
    });
}

#[test]
fn a_driver_without_receive_buffers_gets_all_when_it_gives_some() {
    on_both(|| async {
        let mut bed = Bed::with(crate::virtio::vsock::VsockOptions::new(CID));
        bed.activate().await;
        bed.give(1);
        let (_guest, host) = bed.open_from_guest(1, SocketKind::Stream, 64 << 10).await;
        let host = attach(host);
        let data = pattern(20_000, 9);
        send_all(&host, &data).await;
        let mut got = Vec::new();
        while got.len() < data.len() {
            got.extend(bed.next().await.data);
        }
        assert!(got == data);
    });
}

#[test]
fn a_pause_keeps_connections() {
    on_both(|| async {
        let mut bed = Bed::active().await;
        let (guest, host) = bed.open_from_guest(1, SocketKind::Stream, 100).await;
        let host = attach(host);
        assert_eq!(bed.pause().await.len(), 3);
        send_all(&host, b"while paused").await;
        bed.resume().await;
        assert_eq!(bed.next().await.data, b"while paused");
        bed.send(guest.header(Op::Rw), b"and back").await;
        assert_eq!(receive(&host, 8).await, b"and back");
    });
}
