//! What a balloon has done, and what the guest says of its memory.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a balloon has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BalloonStatistics {
    /// Bytes that the driver shall give up.
    pub target_bytes: u64,
    /// Bytes that it says it has given up.
    pub actual_bytes: u64,
    /// Bytes that were freed because it gave them up, since the back end started.
    pub inflated_bytes: u64,
    /// Bytes that were freed because it reported them as free, since the back end started.
    pub reported_bytes: u64,
    /// What the guest said last of its memory, if it did.
    pub guest: Option<GuestMemoryStatistics>,
    /// How long ago that was.
    pub guest_age: Option<Duration>,
}

/// What a guest says of its memory (virtio 1.3 section 5.5.6.4). It need not say all of it, and
/// none of it need be true.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct GuestMemoryStatistics {
    /// Bytes swapped in.
    pub swapped_in: Option<u64>,
    /// Bytes swapped out.
    pub swapped_out: Option<u64>,
    /// Page faults that needed the disk.
    pub major_faults: Option<u64>,
    /// Page faults that did not.
    pub minor_faults: Option<u64>,
    /// Bytes that are used for nothing.
    pub free: Option<u64>,
    /// Bytes in all.
    pub total: Option<u64>,
    /// Bytes that programs could get without swapping.
    pub available: Option<u64>,
    /// Bytes of file caches, which can be had back quickly.
    pub disk_caches: Option<u64>,
    /// Huge pages that were allocated.
    pub hugetlb_allocations: Option<u64>,
    /// Huge pages that were asked for in vain.
    pub hugetlb_failures: Option<u64>,
}

/// Bytes of a statistic: a tag and a value.
pub(super) const ENTRY_BYTES: usize = 10;

impl GuestMemoryStatistics {
    /// Takes an entry; tags that are not known are for later versions.
    pub(super) fn set(&mut self, entry: [u8; ENTRY_BYTES]) {
        let [t0, t1, value @ ..] = entry;
        let value = u64::from_le_bytes(value);
        let place = match u16::from_le_bytes([t0, t1]) {
            0 => &mut self.swapped_in,
            1 => &mut self.swapped_out,
            2 => &mut self.major_faults,
            3 => &mut self.minor_faults,
            4 => &mut self.free,
            5 => &mut self.total,
            6 => &mut self.available,
            7 => &mut self.disk_caches,
            8 => &mut self.hugetlb_allocations,
            9 => &mut self.hugetlb_failures,
            _ => return,
        };
        *place = Some(value);
    }
}
