use std::io::{Read, Write};

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

#[test]
fn what_is_said_of_a_dead_back_ends_port_does_not_end_a_connection_of_its_successor() {
    on_both(|| async {
        let mut bed = Bed::with(crate::virtio::vsock::VsockOptions::new(CID));
        bed.keep_record();
        bed.activate().await;
        bed.give(64);
        bed.give_events(4);
        let mut lost = bed.dial();
        lost.write_all(b"CONNECT 99\n").unwrap();
        let old = bed.next().await.header.src_port.get();

        bed.kill().await;
        bed.restart();
        bed.activate().await;
        assert_eq!(bed.event().await, EVENT_TRANSPORT_RESET);
        let mut host = bed.dial();
        host.write_all(b"CONNECT 99\n").unwrap();
        let new = bed.next().await.header.src_port.get();
        assert_ne!(old, new);
        // The driver found the old request after the event, and answers both.
        let guest =
            Guest { port: 99, host_port: old, kind: SocketKind::Stream, room: 1000, taken: 0 };
        bed.send(guest.header(Op::Rst), &[]).await;
        let guest = Guest { host_port: new, ..guest };
        bed.send(guest.header(Op::Response), &[]).await;
        let mut line = [0; 14];
        host.read_exact(&mut line).unwrap();
        assert_eq!(line, format!("OK {new}\n").as_bytes());
    });
}
