//! PCI: configuration space, BARs that move, MSI-X, and the root that finds it all.
//!
//! ```text
//!   port CF8/CFC ─┐
//!   ECAM ─────────┼─► PciRoot ──function──► PciDevice ── PciConfig (registers, capabilities)
//!   BAR windows ──┘      └─────address────► PciDevice ── BAR contents, Msix
//! ```
//!
//! One segment, one bus, 32 devices of 8 functions; function 00:00.0 is the host bridge. A guest may
//! do anything to these registers: every access of any size and alignment is defined and harmless.

#![forbid(unsafe_code)]

mod allocator;
mod config;
mod host_bridge;
mod msix;
mod root;

use std::fmt;

pub use allocator::{BarAllocator, Window};
pub use config::{Identity, PciConfig};
pub use host_bridge::HostBridge;
pub use msix::{MSIX_CAPABILITY_ID, MSIX_ENTRY_BYTES, Msix, MsixLocation};
pub use root::{PciRoot, Windows};

use crate::interrupt::InterruptError;

/// Which function of the bus: device number and function number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PciAddress(u8);

impl PciAddress {
    /// The host bridge, 00:00.0.
    pub const HOST_BRIDGE: PciAddress = PciAddress(0);

    /// Device 0 to 31, function 0 to 7.
    pub fn new(device: u8, function: u8) -> Option<PciAddress> {
        (device < 32 && function < 8).then_some(PciAddress(device << 3 | function))
    }

    /// From the usual encoding, device number in the upper five bits.
    pub fn from_devfn(devfn: u8) -> PciAddress {
        PciAddress(devfn)
    }

    /// The usual encoding, device number in the upper five bits.
    pub fn devfn(self) -> u8 {
        self.0
    }

    /// Device number.
    pub fn device(self) -> u8 {
        self.0 >> 3
    }

    /// Function number.
    pub fn function(self) -> u8 {
        self.0 & 7
    }
}

impl fmt::Display for PciAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "0000:00:{:02x}.{}", self.device(), self.function())
    }
}

/// Which of the six base address registers; of a 64-bit BAR the lower one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BarIndex(u8);

impl BarIndex {
    /// 0 to 5.
    pub const fn new(index: u8) -> Option<BarIndex> {
        if index < 6 { Some(BarIndex(index)) } else { None }
    }

    /// The register's number.
    pub const fn get(self) -> u8 {
        self.0
    }
}

/// What a BAR decodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BarKind {
    /// Memory below 4 GiB.
    Memory32,
    /// Memory anywhere; takes two registers.
    Memory64,
}

/// A BAR as the device has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BarSpec {
    /// Which register.
    pub index: BarIndex,
    /// What it decodes.
    pub kind: BarKind,
    /// Bytes; a power of two of at least 16.
    pub size: u64,
}

/// A BAR that answers at an address now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodedBar {
    /// Which register.
    pub index: BarIndex,
    /// First address.
    pub address: u64,
    /// Last address.
    pub last: u64,
}

/// What a write to configuration space did to the addresses that a device answers at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Decoding {
    /// Nothing.
    Unchanged,
    /// BARs moved, appeared or vanished.
    Changed,
}

/// A function on the PCI bus.
///
/// Called from vCPU threads, several at a time. Offsets are within 256 bytes of configuration space
/// or within the BAR, but `offset + data.len()` may be beyond the end. `data` is at most 8 bytes from
/// a guest, yet any length must be harmless.
pub trait PciDevice: Send + Sync {
    /// Reads configuration space.
    fn read_config(&self, offset: u16, data: &mut [u8]);
    /// Writes configuration space.
    fn write_config(&self, offset: u16, data: &[u8]) -> Decoding;
    /// The BARs, for preassignment.
    fn bars(&self) -> Vec<BarSpec>;
    /// Presets the address of a BAR, before the guest runs.
    fn place_bar(&self, index: BarIndex, address: u64);
    /// Where the BARs answer now; none while memory decoding is off.
    fn decoded_bars(&self) -> Vec<DecodedBar>;
    /// Reads from a BAR.
    fn read_bar(&self, bar: BarIndex, offset: u64, data: &mut [u8]);
    /// Writes to a BAR.
    fn write_bar(&self, bar: BarIndex, offset: u64, data: &[u8]);
}

/// Why a PCI device could not be built or attached.
#[derive(Debug, thiserror::Error)]
pub enum PciError {
    /// All 256 functions of the bus are taken.
    #[error("the PCI bus is full")]
    BusFull,
    /// A function is there already.
    #[error("PCI function {0} is taken")]
    Taken(PciAddress),
    /// A BAR has a size that no register can express, or its register is taken.
    #[error("BAR {index} of {size:#x} bytes cannot be")]
    BadBar {
        /// Number of the register.
        index: u8,
        /// Size in bytes.
        size: u64,
    },
    /// A capability does not fit into 256 bytes of configuration space.
    #[error("no room for PCI capability {id:#x} of {length} bytes")]
    NoRoomForCapability {
        /// Capability identifier.
        id: u8,
        /// Length in bytes.
        length: usize,
    },
    /// The windows have no room for a BAR.
    #[error("no room for a BAR of {size:#x} bytes in the PCI memory windows")]
    NoAddressSpace {
        /// Size in bytes.
        size: u64,
    },
    /// MSI-X tables have 1 to 2048 entries.
    #[error("an MSI-X table of {0} entries")]
    VectorCount(usize),
    /// The interrupt controller refused.
    #[error("setting up the MSI-X vectors")]
    Interrupt(#[from] InterruptError),
}
