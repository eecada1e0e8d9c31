//! What driver and device say to each other (virtio 1.3 section 5.1).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::mac::MacAddress;

/// Virtio device type of a network card.
pub(super) const DEVICE_TYPE: u16 = 1;

pub(super) const FEATURE_CSUM: u64 = 1 << 0;
pub(super) const FEATURE_GUEST_CSUM: u64 = 1 << 1;
pub(super) const FEATURE_CTRL_GUEST_OFFLOADS: u64 = 1 << 2;
pub(super) const FEATURE_MTU: u64 = 1 << 3;
pub(super) const FEATURE_MAC: u64 = 1 << 5;
pub(super) const FEATURE_GUEST_TSO4: u64 = 1 << 7;
pub(super) const FEATURE_GUEST_TSO6: u64 = 1 << 8;
pub(super) const FEATURE_GUEST_ECN: u64 = 1 << 9;
pub(super) const FEATURE_GUEST_UFO: u64 = 1 << 10;
pub(super) const FEATURE_HOST_TSO4: u64 = 1 << 11;
pub(super) const FEATURE_HOST_TSO6: u64 = 1 << 12;
pub(super) const FEATURE_HOST_ECN: u64 = 1 << 13;
pub(super) const FEATURE_HOST_UFO: u64 = 1 << 14;
pub(super) const FEATURE_MRG_RXBUF: u64 = 1 << 15;
pub(super) const FEATURE_STATUS: u64 = 1 << 16;
pub(super) const FEATURE_CTRL_VQ: u64 = 1 << 17;
pub(super) const FEATURE_CTRL_RX: u64 = 1 << 18;
pub(super) const FEATURE_CTRL_RX_EXTRA: u64 = 1 << 20;
pub(super) const FEATURE_MQ: u64 = 1 << 22;
pub(super) const FEATURE_CTRL_MAC_ADDR: u64 = 1 << 23;
pub(super) const FEATURE_GUEST_USO4: u64 = 1 << 54;
pub(super) const FEATURE_GUEST_USO6: u64 = 1 << 55;
pub(super) const FEATURE_HOST_USO: u64 = 1 << 56;

/// `status` of the configuration space: the link is up.
pub(super) const STATUS_LINK_UP: u16 = 1;

/// Bytes of the header before each frame, in every queue of a device with version 1.
pub(super) const HEADER_BYTES: usize = size_of::<Header>();
/// Offset of [`Header::num_buffers`].
pub(super) const NUM_BUFFERS_AT: usize = 10;

/// Addresses and type of an Ethernet frame.
pub(super) const ETHERNET_HEADER: usize = 14;
/// A frame may carry one VLAN tag beyond its MTU.
pub(super) const VLAN_TAG: usize = 4;
/// The largest IP packet with its Ethernet header, which is what large frames are limited to.
pub(super) const LARGE_FRAME: usize = 65536 + ETHERNET_HEADER + VLAN_TAG;
/// Buffers smaller than this, header included, hold no ordinary frame.
pub(super) const ORDINARY_BUFFER: usize = HEADER_BYTES + ETHERNET_HEADER + 1500;

/// The header before each frame (virtio 1.3 section 5.1.6).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub(super) struct Header {
    pub(super) flags: u8,
    pub(super) gso_type: u8,
    pub(super) hdr_len: u16,
    pub(super) gso_size: u16,
    pub(super) csum_start: u16,
    pub(super) csum_offset: u16,
    pub(super) num_buffers: u16,
}

const _: () = assert!(size_of::<Header>() == 12);

/// `flags`: the checksum has to be filled in.
pub(super) const FLAG_NEEDS_CSUM: u8 = 1;
/// `flags`: the checksum was found right.
pub(super) const FLAG_DATA_VALID: u8 = 2;
pub(super) const GSO_NONE: u8 = 0;
pub(super) const GSO_TCPV4: u8 = 1;
pub(super) const GSO_UDP: u8 = 3;
pub(super) const GSO_TCPV6: u8 = 4;
pub(super) const GSO_UDP_L4: u8 = 5;
/// A bit beside the TCP types.
pub(super) const GSO_ECN: u8 = 0x80;

/// The configuration space up to the fields that are offered (virtio 1.3 section 5.1.4).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Config {
    pub(super) mac: [u8; 6],
    pub(super) status: u16,
    pub(super) max_virtqueue_pairs: u16,
    pub(super) mtu: u16,
}

const _: () = assert!(size_of::<Config>() == 12);

/// The configuration space.
pub(super) fn config(mac: MacAddress, status: u16, pairs: u16, mtu: u16) -> Vec<u8> {
    let config = Config { mac: mac.0, status, max_virtqueue_pairs: pairs, mtu };
    config.as_bytes().to_vec()
}

/// Commands of the control queue (virtio 1.3 section 5.1.6.5): class and command.
pub(super) mod command {
    pub(in super::super) const RX_PROMISC: (u8, u8) = (0, 0);
    pub(in super::super) const RX_ALLMULTI: (u8, u8) = (0, 1);
    pub(in super::super) const RX_ALLUNI: (u8, u8) = (0, 2);
    pub(in super::super) const RX_NOMULTI: (u8, u8) = (0, 3);
    pub(in super::super) const RX_NOUNI: (u8, u8) = (0, 4);
    pub(in super::super) const RX_NOBCAST: (u8, u8) = (0, 5);
    pub(in super::super) const MAC_TABLE_SET: (u8, u8) = (1, 0);
    pub(in super::super) const MAC_ADDR_SET: (u8, u8) = (1, 1);
    pub(in super::super) const MQ_VQ_PAIRS_SET: (u8, u8) = (4, 0);
    pub(in super::super) const GUEST_OFFLOADS_SET: (u8, u8) = (5, 0);
}

/// The answer to a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Ack {
    Ok = 0,
    Error = 1,
}
