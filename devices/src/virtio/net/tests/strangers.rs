//! Frames of sockets, whose other ends are anybody: whatever they send, a driver sees only what suits
//! what it negotiated, and the back end goes on.

use proptest::prelude::*;

use super::super::protocol::*;
use super::bed::*;

/// Features that allow something to stand in a header.
const RECEIVE_OFFLOADS: [u64; 7] = [
    FEATURE_GUEST_CSUM,
    FEATURE_GUEST_TSO4,
    FEATURE_GUEST_TSO6,
    FEATURE_GUEST_ECN,
    FEATURE_GUEST_UFO,
    FEATURE_GUEST_USO4,
    FEATURE_GUEST_USO6,
];

/// Bytes of a header: often ones that mean something.
fn header() -> impl Strategy<Value = Vec<u8>> {
    let gso = prop_oneof![Just(0u8), 0u8..8, 0x80u8..0x88, any::<u8>()];
    let offset = prop_oneof![0u16..100, any::<u16>()];
    (prop_oneof![0u8..4, any::<u8>()], gso, any::<u16>(), offset.clone(), offset.clone(), offset)
        .prop_map(|(flags, gso, length, size, start, field)| {
            let words = [length, size, start, field, 0xffff].map(u16::to_le_bytes).concat();
            [&[flags, gso][..], &words].concat()
        })
}

/// A packet: a header and a frame, or so much of them.
fn packet() -> impl Strategy<Value = Vec<u8>> {
    let cut = prop_oneof![3 => Just(usize::MAX), 1 => 0usize..40];
    (header(), 0usize..4000, any::<u32>(), cut).prop_map(|(header, data, seed, cut)| {
        let mut packet = [header, frame(OWN, data, seed)].concat();
        packet.truncate(cut);
        packet
    })
}

/// What virtio 1.3 section 5.1.6.4 has a driver rely on, said without the words of the back end.
fn may_be_seen(features: u64, received: &[u8]) -> bool {
    let has = |feature: u64| features & feature != 0;
    let number = |at: usize| usize::from(u16::from_le_bytes([received[at], received[at + 1]]));
    let (flags, gso, length) = (received[0], received[1], received.len() - HEADER_BYTES);
    let checksum = flags == 0 || has(FEATURE_GUEST_CSUM);
    let inside = flags & FLAG_NEEDS_CSUM == 0 || number(6) + number(8) + 2 <= length;
    let segments = match gso & !GSO_ECN {
        GSO_NONE => gso == GSO_NONE,
        GSO_TCPV4 => has(FEATURE_GUEST_TSO4),
        GSO_TCPV6 => has(FEATURE_GUEST_TSO6),
        GSO_UDP => has(FEATURE_GUEST_UFO),
        GSO_UDP_L4 => has(FEATURE_GUEST_USO4) && has(FEATURE_GUEST_USO6),
        _ => false,
    };
    let congestion = gso & GSO_ECN == 0 || has(FEATURE_GUEST_ECN);
    let sized = gso == GSO_NONE || number(4) > 0 && has(FEATURE_GUEST_CSUM);
    length >= ETHERNET_HEADER && flags < 4 && checksum && inside && segments && congestion && sized
}

async fn survives(without: u64, packets: Vec<Vec<u8>>) {
    let mut bed = Bed::active(options(256), 1, OPTIONAL | without).await;
    let given = bed.give(RECEIVE, 256, 2048);
    let count = packets.len() as u64;
    for packet in packets.iter().filter(|packet| !packet.is_empty()) {
        bed.inject(0, packet).await;
    }
    let last = plain(PEER, 100, 1);
    bed.inject(0, &last).await;
    let mut seen = 0;
    loop {
        let received = bed.receive(RECEIVE, &given).await;
        seen += 1;
        assert!(may_be_seen(bed.features, &received), "{:x?}", &received[..HEADER_BYTES]);
        if received[HEADER_BYTES..] == last[HEADER_BYTES..] {
            break;
        }
        let sent = packets.iter().any(|packet| {
            packet.len() == received.len() && packet[HEADER_BYTES..] == received[HEADER_BYTES..]
        });
        assert!(sent, "nobody sent these {} bytes", received.len());
    }
    let statistics = bed.statistics().await.received;
    assert_eq!((statistics.frames, statistics.errors), (seen, 0));
    assert!(statistics.frames + statistics.dropped <= count + 1);
    bed.finish().await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_driver_sees_only_what_it_negotiated(
        missing in 0usize..128,
        packets in proptest::collection::vec(packet(), 1..24),
    ) {
        let features = RECEIVE_OFFLOADS.iter().enumerate();
        let without = features.filter(|(bit, _)| missing >> bit & 1 != 0).fold(0, |all, (_, feature)| all | feature);
        on_both(|| survives(without, packets.clone()));
    }
}
