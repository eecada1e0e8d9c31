//! Where things lie in the one BAR.

use crate::pci::{BarIndex, MsixLocation};

/// The BAR that holds everything; it is a 64-bit one.
pub(super) const BAR: BarIndex = BarIndex::new(0).unwrap();
/// Bytes of the BAR.
pub(super) const BAR_BYTES: u64 = 0x8000;

/// Each region has a page of its own, so that a guest can map them apart.
pub(super) const REGION_BYTES: u64 = 0x1000;
pub(super) const COMMON: u64 = 0x0000;
pub(super) const ISR: u64 = 0x1000;
pub(super) const DEVICE: u64 = 0x2000;
pub(super) const NOTIFY: u64 = 0x3000;
pub(super) const MSIX_TABLE: u64 = 0x4000;
pub(super) const MSIX_PENDING: u64 = 0x5000;

/// Bytes of `struct virtio_pci_common_cfg` (virtio 1.3 section 4.1.4.3).
pub(super) const COMMON_BYTES: usize = 64;

/// Bytes between the notification addresses of two queues: a double word each, so that an address
/// alone tells the queue.
pub(super) const NOTIFY_MULTIPLIER: u32 = 4;

/// Queues a device may have: with one more vector for configuration changes, the MSI-X table fills
/// its page.
pub(super) const MAX_QUEUES: usize = 255;

/// Where the MSI-X structures lie.
pub(super) const MSIX: MsixLocation =
    MsixLocation { bar: BAR, table: MSIX_TABLE as u32, pending: MSIX_PENDING as u32 };
