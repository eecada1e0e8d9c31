use std::net::Shutdown;

use super::bed::*;
use crate::virtio::vsock::SocketKind;
use crate::virtio::vsock::protocol::Op;

const RECEIVE: u32 = 1;
const SEND: u32 = 2;

#[test]
fn a_guest_that_sends_no_more_still_receives() {
    on_both(|| async {
        let mut bed = Bed::active().await;
        let (guest, host) = bed.open_from_guest(1, SocketKind::Stream, 100).await;
        let host = attach(host);
        bed.send(guest.header(Op::Rw), b"last words").await;
        bed.send(guest.shutdown(SEND), &[]).await;
        assert_eq!(receive(&host, 10).await, b"last words");
        assert!(receive_once(&host).await.is_empty());
        send_all(&host, b"answer").await;
        assert_eq!(bed.next().await.data, b"answer");
        // Words after the last ones break the rules.
        bed.send(guest.header(Op::Rw), b"more").await;
        assert_eq!(bed.next().await.op(), Op::Rst);
    });
}

#[test]
fn a_host_that_sends_no_more_still_receives() {
    on_both(|| async {
        let mut bed = Bed::active().await;
        let (guest, host) = bed.open_from_host(1000).await;
        std::io::Write::write_all(&mut &host, b"last words").unwrap();
        host.shutdown(Shutdown::Write).unwrap();
        assert_eq!(bed.next().await.data, b"last words");
        let packet = bed.next().await;
        assert_eq!((packet.op(), packet.header.flags.get()), (Op::Shutdown, SEND));
        let host = attach(host);
        bed.send(guest.header(Op::Rw), b"answer").await;
        assert_eq!(receive(&host, 6).await, b"answer");
        drop(host);
        let packet = bed.next().await;
        assert_eq!((packet.op(), packet.header.flags.get()), (Op::Shutdown, SEND | RECEIVE));
    });
}

#[test]
fn a_guest_that_ends_both_ways_gets_its_rst_when_the_host_has_all_data() {
    on_both(|| async {
        let mut bed = Bed::active().await;
        let (guest, host) = bed.open_from_guest(1, SocketKind::Stream, 100).await;
        let host = attach(host);
        // More than the socket takes.
        let data = pattern(64 << 10, 3);
        for _ in 0..5 {
            bed.send(guest.header(Op::Rw), &data).await;
        }
        bed.send(guest.shutdown(SEND | RECEIVE), &[]).await;
        bed.send(guest.header(Op::CreditRequest), &[]).await;
        assert_ne!(bed.packet().await.op(), Op::Rst, "not before all is there");
        for _ in 0..5 {
            assert!(receive(&host, data.len()).await == data);
        }
        assert!(receive_once(&host).await.is_empty());
        assert_eq!(bed.next().await.op(), Op::Rst);
    });
}

#[test]
fn a_program_of_the_host_that_vanishes_ends_the_connection_after_its_data() {
    on_both(|| async {
        for kind in [SocketKind::Stream, SocketKind::Seqpacket] {
            let mut bed = Bed::active().await;
            let (guest, host) = bed.open_from_guest(1, kind, 50_000).await;
            let host = attach(host);
            let data = pattern(30_000, 4);
            send_all(&host, &data).await;
            drop(host);
            let mut got = Vec::new();
            let end = loop {
                let packet = bed.next().await;
                if packet.op() == Op::Shutdown {
                    break packet;
                }
                got.extend(packet.data);
            };
            assert!(got == data);
            if end.header.flags.get() != SEND | RECEIVE {
                let end = bed.next().await;
                assert_eq!((end.op(), end.header.flags.get()), (Op::Shutdown, SEND | RECEIVE));
            }
            // What the guest still sends goes nowhere, and does no harm.
            bed.send(guest.header(Op::Rw), b"too late").await;
            bed.send(guest.header(Op::Rst), &[]).await;
            bed.send(guest.header(Op::Rw), b"much too late").await;
            assert_eq!(bed.next().await.op(), Op::Rst);
        }
    });
}

#[test]
fn a_program_that_does_not_read_to_the_end_is_known_by_the_next_words() {
    on_both(|| async {
        let mut bed = Bed::active().await;
        let (guest, host) = bed.open_from_guest(1, SocketKind::Stream, 100).await;
        rustix::net::shutdown(&host, rustix::net::Shutdown::Read).unwrap();
        bed.send(guest.header(Op::Rw), b"words").await;
        let packet = bed.next().await;
        assert_eq!((packet.op(), packet.header.flags.get()), (Op::Shutdown, RECEIVE));
        rustix::io::write(&host, b"still here").unwrap();
        assert_eq!(bed.next().await.data, b"still here");
    });
}

#[test]
fn a_guest_that_receives_no_more_is_sent_nothing() {
    on_both(|| async {
        let mut bed = Bed::active().await;
        let (guest, host) = bed.open_from_guest(1, SocketKind::Stream, 100).await;
        bed.send(guest.shutdown(RECEIVE), &[]).await;
        bed.send(guest.header(Op::Rw), b"words").await;
        let host = attach(host);
        assert_eq!(receive(&host, 5).await, b"words");
        let (sent, _) = host.send(b"for nobody".to_vec(), executor::SendFlags::empty()).await;
        assert_eq!(sent.unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
        bed.send(guest.header(Op::CreditRequest), &[]).await;
        assert_eq!(bed.packet().await.op(), Op::CreditUpdate);
    });
}

#[test]
fn a_reset_by_the_guest_is_the_end_for_the_host() {
    on_both(|| async {
        let mut bed = Bed::active().await;
        let (guest, host) = bed.open_from_host(100).await;
        bed.send(guest.header(Op::Rst), &[]).await;
        assert!(receive_once(&attach(host)).await.is_empty());
    });
}

#[test]
fn ports_can_be_used_again() {
    on_both(|| async {
        let mut bed = Bed::active().await;
        for _ in 0..3 {
            let (guest, host) = bed.open_from_guest(1, SocketKind::Stream, 100).await;
            let host = attach(host);
            // A request on a connection that is there: the two sides disagree, so it ends.
            bed.send(guest.header(Op::Request), &[]).await;
            assert_eq!(bed.next().await.op(), Op::Rst);
            assert!(receive_once(&host).await.is_empty());
        }
    });
}

#[test]
fn a_driver_that_resets_under_load_starts_anew() {
    on_both(|| async {
        let mut bed = Bed::active().await;
        for _ in 0..5 {
            let (guest, host) = bed.open_from_guest(1, SocketKind::Stream, 1 << 20).await;
            let host = attach(host);
            let flooding = host.clone();
            let flood = executor::spawn(async move {
                loop {
                    let sent = flooding.send(vec![1; 4096], executor::SendFlags::empty()).await.0;
                    if sent.is_err() {
                        return;
                    }
                }
            });
            for _ in 0..3 {
                bed.send(guest.header(Op::Rw), &pattern(40_000, 2)).await;
            }
            bed.reset().await;
            flood.await;
            bed.forget();
            bed.activate().await;
            bed.give(128);
        }
    });
}
