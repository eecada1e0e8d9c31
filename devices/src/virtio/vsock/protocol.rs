//! Constants and the packet header of virtio 1.3 section 5.10.

use bitflags::bitflags;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Virtio device type.
pub(super) const DEVICE_TYPE: u16 = 19;

/// Stream sockets.
pub(super) const FEATURE_STREAM: u64 = 1 << 0;
/// Sockets that keep the boundaries of messages.
pub(super) const FEATURE_SEQPACKET: u64 = 1 << 1;

/// Queue indices.
pub(super) const RX: u16 = 0;
pub(super) const TX: u16 = 1;
pub(super) const EVENT: u16 = 2;

/// The context of the host.
pub(super) const HOST_CID: u64 = 2;

/// The one event: the driver's connections are gone.
pub(super) const EVENT_TRANSPORT_RESET: u32 = 0;
/// Bytes of an event.
pub(super) const EVENT_BYTES: u32 = 4;

/// Bytes of a header.
pub(super) const HEADER_BYTES: u32 = size_of::<Header>() as u32;

/// The last packet of a message (`VIRTIO_VSOCK_SEQ_EOM`).
pub(super) const END_OF_MESSAGE: u32 = 1 << 0;
/// The last packet of a record (`VIRTIO_VSOCK_SEQ_EOR`), which Unix sockets do not know.
pub(super) const END_OF_RECORD: u32 = 1 << 1;

/// `struct virtio_vsock_hdr`.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub(super) struct Header {
    pub(super) src_cid: U64,
    pub(super) dst_cid: U64,
    pub(super) src_port: U32,
    pub(super) dst_port: U32,
    pub(super) len: U32,
    pub(super) kind: U16,
    pub(super) op: U16,
    pub(super) flags: U32,
    pub(super) buf_alloc: U32,
    pub(super) fwd_cnt: U32,
}

const _: () = assert!(size_of::<Header>() == 44);

/// What a packet is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Op {
    Request = 1,
    Response = 2,
    Rst = 3,
    Shutdown = 4,
    Rw = 5,
    CreditUpdate = 6,
    CreditRequest = 7,
}

impl Op {
    pub(super) fn from_number(number: u16) -> Option<Self> {
        Some(match number {
            1 => Self::Request,
            2 => Self::Response,
            3 => Self::Rst,
            4 => Self::Shutdown,
            5 => Self::Rw,
            6 => Self::CreditUpdate,
            7 => Self::CreditRequest,
            _ => return None,
        })
    }
}

bitflags! {
    /// What a side will not do any more.
    #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
    pub(super) struct Shut: u32 {
        const RECEIVE = 1 << 0;
        const SEND = 1 << 1;
    }
}
