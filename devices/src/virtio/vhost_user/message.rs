//! Messages of the vhost-user protocol, as <https://qemu-project.gitlab.io/qemu/interop/vhost-user.html>
//! has them. All numbers are in the machine's byte order.

use std::os::fd::OwnedFd;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The longest payload: a configuration space, or a table of regions.
pub(super) const LONGEST_PAYLOAD: u32 = 4096;
/// Most descriptors beside a message: one for each region of a table.
pub(super) const MOST_DESCRIPTORS: usize = 8;

/// Bits of [`Header::flags`]: the version, an answer, and the wish for one.
const VERSION: u32 = 1;
const VERSION_MASK: u32 = 3;
const REPLY: u32 = 1 << 2;
const NEED_REPLY: u32 = 1 << 3;

/// The beginning of each message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Header {
    pub(super) request: u32,
    pub(super) flags: u32,
    pub(super) size: u32,
}

impl Header {
    pub(super) fn answer(request: u32, size: usize) -> Self {
        Self { request, flags: VERSION | REPLY, size: size as u32 }
    }

    pub(super) fn request(request: Request, size: usize) -> Self {
        Self { request: request.number(), flags: VERSION, size: size as u32 }
    }

    /// The same, asking for an answer.
    pub(super) fn with_answer(self) -> Self {
        Self { flags: self.flags | NEED_REPLY, ..self }
    }

    /// Whether it begins a request of the version that all speak.
    pub(super) fn is_request(&self) -> bool {
        self.flags & (VERSION_MASK | REPLY) == VERSION && self.size <= LONGEST_PAYLOAD
    }

    pub(super) fn wants_answer(&self) -> bool {
        self.flags & NEED_REPLY != 0
    }
}

/// A request with what came beside it.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) header: Header,
    pub(super) payload: Vec<u8>,
    pub(super) descriptors: Vec<OwnedFd>,
}

impl Message {
    /// The payload as what its request says it is.
    pub(super) fn read<T: FromBytes + KnownLayout + Immutable>(&self) -> Result<T, Malformed> {
        let (value, _) = T::read_from_prefix(&self.payload).map_err(|_| Malformed::Short)?;
        Ok(value)
    }

    /// The only descriptor that came with it.
    pub(super) fn descriptor(&mut self) -> Result<OwnedFd, Malformed> {
        match (self.descriptors.pop(), self.descriptors.is_empty()) {
            (Some(descriptor), true) => Ok(descriptor),
            _ => Err(Malformed::Descriptors),
        }
    }
}

/// Why a message makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    #[error("its payload is too short")]
    Short,
    #[error("it has too many descriptors, or too few")]
    Descriptors,
}

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Request {
    GetFeatures = 1,
    SetFeatures = 2,
    SetOwner = 3,
    ResetOwner = 4,
    SetMemTable = 5,
    SetVringNum = 8,
    SetVringAddr = 9,
    SetVringBase = 10,
    GetVringBase = 11,
    SetVringKick = 12,
    SetVringCall = 13,
    SetVringErr = 14,
    GetProtocolFeatures = 15,
    SetProtocolFeatures = 16,
    GetQueueNum = 17,
    SetVringEnable = 18,
    GetConfig = 24,
    SetConfig = 25,
    GetInflightFd = 31,
    SetInflightFd = 32,
    ResetDevice = 34,
    GetMaxMemSlots = 36,
    AddMemReg = 37,
    RemMemReg = 38,
}

impl Request {
    const ALL: [Self; 24] = [
        Self::GetFeatures,
        Self::SetFeatures,
        Self::SetOwner,
        Self::ResetOwner,
        Self::SetMemTable,
        Self::SetVringNum,
        Self::SetVringAddr,
        Self::SetVringBase,
        Self::GetVringBase,
        Self::SetVringKick,
        Self::SetVringCall,
        Self::SetVringErr,
        Self::GetProtocolFeatures,
        Self::SetProtocolFeatures,
        Self::GetQueueNum,
        Self::SetVringEnable,
        Self::GetConfig,
        Self::SetConfig,
        Self::GetInflightFd,
        Self::SetInflightFd,
        Self::ResetDevice,
        Self::GetMaxMemSlots,
        Self::AddMemReg,
        Self::RemMemReg,
    ];

    pub(super) fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|request| request.number() == number)
    }

    pub(super) fn number(self) -> u32 {
        self as u32
    }

    /// Whether it is answered with more than how it went.
    pub(super) fn has_answer(self) -> bool {
        matches!(
            self,
            Self::GetFeatures
                | Self::GetProtocolFeatures
                | Self::GetQueueNum
                | Self::GetVringBase
                | Self::GetConfig
                | Self::GetInflightFd
                | Self::GetMaxMemSlots
        )
    }
}

/// The bit of the virtio features that says there are [`protocol features`](protocol).
pub(super) const FEATURE_PROTOCOL: u64 = 1 << 30;

/// Bits of the protocol's own features.
pub(super) mod protocol {
    /// Several queues.
    pub(crate) const MQ: u64 = 1 << 0;
    /// Any request may ask for an answer.
    pub(crate) const REPLY_ACK: u64 = 1 << 3;
    /// The configuration space.
    pub(crate) const CONFIG: u64 = 1 << 9;
    /// The record of what is in flight.
    pub(crate) const INFLIGHT_SHMFD: u64 = 1 << 12;
    /// The device can be reset as a whole.
    pub(crate) const RESET_DEVICE: u64 = 1 << 13;
    /// Regions of memory come and go one by one.
    pub(crate) const CONFIGURE_MEM_SLOTS: u64 = 1 << 15;
}

/// A ring and a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct RingNumber {
    pub(super) index: u32,
    pub(super) number: u32,
}

/// Where a ring lies, in the front end's address space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct RingAddresses {
    pub(super) index: u32,
    pub(super) flags: u32,
    pub(super) descriptors: u64,
    pub(super) used: u64,
    pub(super) available: u64,
    pub(super) log: u64,
}

/// The beginning of a table of [`RegionMessage`]s.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct RegionCount {
    pub(super) count: u32,
    padding: u32,
}

impl RegionCount {
    pub(super) fn of(count: u32) -> Self {
        Self { count, padding: 0 }
    }
}

/// A region of the guest's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct RegionMessage {
    pub(super) guest: u64,
    pub(super) size: u64,
    /// Where the front end has mapped it.
    pub(super) user: u64,
    /// Where it begins in its file.
    pub(super) offset: u64,
}

/// A region alone.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct SingleRegion {
    padding: u64,
    pub(super) region: RegionMessage,
}

/// A part of the configuration space; its bytes follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct ConfigPart {
    pub(super) offset: u32,
    pub(super) size: u32,
    pub(super) flags: u32,
}

/// The memory of the record of what is in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct InflightMemory {
    pub(super) size: u64,
    pub(super) offset: u64,
    pub(super) queues: u16,
    pub(super) queue_size: u16,
    pub(super) padding: [u8; 4],
}

/// A ring whose descriptor comes beside it, unless bit 8 says that there is none.
pub(super) fn ring_of(value: u64) -> (usize, bool) {
    ((value & 0xff) as usize, value & 1 << 8 == 0)
}
