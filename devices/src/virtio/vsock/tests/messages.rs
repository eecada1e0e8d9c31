use super::bed::*;
use crate::virtio::vsock::SocketKind;
use crate::virtio::vsock::protocol::{END_OF_MESSAGE, Header, Op};

/// What the device gives each connection.
const ROOM: usize = 128 << 10;
/// A packet that fits into a place of the driver.
const PACKET: usize = 64 << 10;

#[test]
fn a_message_of_all_room_behind_a_short_one_is_not_stuck() {
    on_both(|| async {
        let mut bed = Bed::active().await;
        let (guest, host) = bed.open_from_guest(1, SocketKind::Seqpacket, 64 << 10).await;
        let host = attach(host);
        let short = pattern(1000, 1);
        bed.send(whole(guest), &short).await;
        assert!(receive_once(&host).await == short);
        // As much as the guest knows to have room for.
        let long = pattern(ROOM, 2);
        let (known, rest) = long.split_at(ROOM - short.len());
        for part in known.chunks(PACKET) {
            bed.send(guest.header(Op::Rw), part).await;
        }
        let update = bed.packet().await;
        assert_eq!(update.op(), Op::CreditUpdate);
        assert_eq!(update.header.fwd_cnt.get() as usize, short.len());
        bed.send(whole(guest), rest).await;
        assert!(receive_once(&host).await == long);
    });
}

/// The header of what ends a message.
fn whole(guest: Guest) -> Header {
    Header { flags: END_OF_MESSAGE.into(), ..guest.header(Op::Rw) }
}
