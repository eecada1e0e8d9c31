use std::io::{Read, Write};

use super::bed::*;
use crate::virtio::vsock::SocketKind;
use crate::virtio::vsock::protocol::Op;
use crate::virtio::vsock::{FIRST_HOST_PORT, VsockOptions};

#[test]
fn the_guest_learns_its_context() {
    on_both(|| async {
        let bed = Bed::active().await;
        assert_eq!(bed.config().await, CID.to_le_bytes());
        bed.bed_finish().await;
    });
}

#[test]
fn a_driver_that_sets_up_one_queue_is_left_alone() {
    on_both(|| async {
        let bed = Bed::with(VsockOptions::new(CID));
        let mut setups = bed.setups(&[]);
        setups.truncate(1);
        bed.activate_with(bed.features, setups).await.unwrap();
        assert_eq!(bed.pause().await.len(), 1);
        bed.resume().await;
        bed.reset().await;
    });
}

#[test]
fn a_program_of_the_host_connects_and_what_it_sends_at_once_arrives() {
    on_both(|| async {
        let mut bed = Bed::active().await;
        let mut host = bed.dial();
        host.write_all(b"CONNECT 99\nhello").unwrap();
        let request = bed.next().await;
        assert_eq!(request.op(), Op::Request);
        let host_port = request.header.src_port.get();
        assert!(host_port >= FIRST_HOST_PORT);
        assert_eq!(request.header.dst_port.get(), 99);
        assert_ne!(request.header.buf_alloc.get(), 0);
        let guest = Guest { port: 99, host_port, kind: SocketKind::Stream, room: 1000, taken: 0 };
        bed.send(guest.header(Op::Response), &[]).await;
        let data = bed.next().await;
        assert_eq!((data.op(), &data.data[..]), (Op::Rw, &b"hello"[..]));
        let mut line = [0; 14];
        host.read_exact(&mut line).unwrap();
        assert_eq!(line, format!("OK {host_port}\n").as_bytes());
    });
}

#[test]
fn the_guest_connects_to_who_listens_only() {
    on_both(|| async {
        let mut bed = Bed::active().await;
        for kind in [SocketKind::Stream, SocketKind::Seqpacket] {
            let (guest, host) = bed.open_from_guest(500, kind, 100).await;
            let absent = Guest { host_port: 77, ..guest };
            bed.send(absent.header(Op::Request), &[]).await;
            let packet = bed.next().await;
            assert_eq!((packet.op(), packet.header.src_port.get()), (Op::Rst, 77));
            assert_eq!(packet.header.kind.get(), kind.number());
            drop(host);
            assert_eq!(bed.next().await.op(), Op::Shutdown);
        }
    });
}

#[test]
fn nonsense_and_refusals_end_what_a_program_of_the_host_wanted() {
    on_both(|| async {
        let mut bed = Bed::active().await;
        let mut host = bed.dial();
        host.write_all(b"HELLO 1\n").unwrap();
        let host = attach(host);
        assert!(receive_once(&host).await.is_empty());
        let mut host = bed.dial();
        host.write_all(b"CONNECT 5\n").unwrap();
        let request = bed.next().await.header;
        let guest = Guest {
            port: 5,
            host_port: request.src_port.get(),
            kind: SocketKind::Stream,
            room: 0,
            taken: 0,
        };
        bed.send(guest.header(Op::Rst), &[]).await;
        assert!(receive_once(&attach(host)).await.is_empty());
    });
}

#[test]
fn messages_keep_their_boundaries_both_ways() {
    on_both(|| async {
        let mut bed = Bed::active().await;
        let host = bed.dial_seqpacket();
        rustix::io::write(&host, b"CONNECT 8\n").unwrap();
        let request = bed.next().await.header;
        assert_eq!(request.kind.get(), 2);
        let mut guest = Guest {
            port: 8,
            host_port: request.src_port.get(),
            kind: SocketKind::Seqpacket,
            room: 64 << 10,
            taken: 0,
        };
        bed.send(guest.header(Op::Response), &[]).await;
        let host = attach(host);
        assert_eq!(receive_once(&host).await, format!("OK {}\n", guest.host_port).as_bytes());

        // Longer than a buffer, and a short one behind it.
        let long = pattern(10_000, 3);
        send_all(&host, &long).await;
        send_all(&host, b"short").await;
        let mut messages = vec![Vec::new()];
        while messages.len() < 3 {
            let packet = bed.next().await;
            messages.last_mut().unwrap().extend(packet.data);
            if packet.header.flags.get() == 1 {
                messages.push(Vec::new());
            }
        }
        assert!(messages[0] == long && messages[1] == b"short");
        guest.taken = 10_005;

        let whole =
            crate::virtio::vsock::protocol::Header { flags: 1.into(), ..guest.header(Op::Rw) };
        bed.send(whole, b"one").await;
        bed.send(guest.header(Op::Rw), b"tw").await;
        bed.send(whole, b"o").await;
        bed.send(whole, b"three").await;
        for expected in [&b"one"[..], b"two", b"three"] {
            assert_eq!(receive_once(&host).await, expected);
        }
    });
}

#[test]
fn there_are_no_more_connections_than_allowed() {
    on_both(|| async {
        let options = VsockOptions { connections: 2, ..VsockOptions::new(CID) };
        let mut bed = Bed::active_with(options).await;
        let (first, _first_host) = bed.open_from_guest(1, SocketKind::Stream, 9).await;
        let (_, _second_host) = bed.open_from_guest(2, SocketKind::Stream, 9).await;
        let third = Guest { port: 3, ..first };
        bed.send(third.header(Op::Request), &[]).await;
        assert_eq!(bed.next().await.op(), Op::Rst);
        // A program of the host waits until there is room.
        let mut host = bed.dial();
        host.write_all(b"CONNECT 1\n").unwrap();
        bed.send(first.header(Op::Rst), &[]).await;
        assert_eq!(bed.next().await.op(), Op::Request);
    });
}

#[test]
fn a_thousand_connections_come_and_go() {
    on_both(|| async {
        let mut bed = Bed::active().await;
        for port in 0..1000 {
            let (guest, host) = bed.open_from_guest(port, SocketKind::Stream, 100).await;
            bed.send(guest.header(Op::Rw), b"ping").await;
            let host = attach(host);
            assert_eq!(receive(&host, 4).await, b"ping");
            bed.send(guest.header(Op::Rst), &[]).await;
            assert!(receive_once(&host).await.is_empty());
        }
    });
}

impl Bed {
    async fn bed_finish(self) {
        self.into_inner().finish().await;
    }
}
