use super::bed::*;
use crate::virtio::vsock::SocketKind;
use crate::virtio::vsock::protocol::{EVENT_TRANSPORT_RESET, Op};
use zerocopy::IntoBytes;

#[test]
fn a_successor_tells_the_driver_and_starts_without_connections() {
    on_both(|| async {
        let mut bed = Bed::with(crate::virtio::vsock::VsockOptions::new(CID));
        bed.keep_record();
        bed.activate().await;
        bed.give(64);
        bed.give_events(4);
        let (guest, host) = bed.open_from_guest(1, SocketKind::Stream, 100_000).await;
        let host = attach(host);
        bed.send(guest.header(Op::Rw), b"before").await;
        assert_eq!(receive(&host, 6).await, b"before");

        bed.kill().await;
        // The kernel does that for a process.
        assert!(receive_once(&host).await.is_empty());
        let second = Guest { port: 2, ..guest };
        for header in [guest.header(Op::Rw), second.header(Op::Request)] {
            bed.queue_raw(header.as_bytes());
        }
        bed.restart();
        bed.activate().await;
        assert_eq!(bed.event().await, EVENT_TRANSPORT_RESET);
        for port in [1, 2] {
            let packet = bed.next().await;
            assert_eq!((packet.op(), packet.header.dst_port.get()), (Op::Rst, port));
        }
        for _ in 0..2 {
            bed.used(TX).await;
        }
        // It goes on, and says it once.
        let (guest, host) = bed.open_from_guest(1, SocketKind::Stream, 100).await;
        bed.send(guest.header(Op::Rw), b"after").await;
        assert_eq!(receive(&attach(host), 5).await, b"after");
        bed.pause().await;
        bed.resume().await;
        assert!(!bed.driver(EVENT).has_used());
    });
}

#[test]
fn without_a_buffer_for_the_event_everything_is_refused_until_there_is_one() {
    on_both(|| async {
        let mut bed = Bed::with(crate::virtio::vsock::VsockOptions::new(CID));
        bed.keep_record();
        bed.activate().await;
        bed.give(64);
        let (guest, _host) = bed.open_from_guest(1, SocketKind::Stream, 100).await;
        bed.kill().await;
        bed.restart();
        bed.activate().await;
        bed.send(guest.header(Op::Request), &[]).await;
        assert_eq!(bed.next().await.op(), Op::Rst);
        bed.give_events(1);
        assert_eq!(bed.event().await, EVENT_TRANSPORT_RESET);
        bed.open_from_guest(1, SocketKind::Stream, 100).await;
    });
}
