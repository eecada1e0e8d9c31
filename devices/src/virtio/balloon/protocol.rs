//! What the specification says of a balloon (virtio 1.3 section 5.5).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Virtio device type (section 5.5.1).
pub(super) const DEVICE_TYPE: u16 = 5;

/// `VIRTIO_BALLOON_F_STATS_VQ` (section 5.5.3).
pub(super) const FEATURE_STATS_VQ: u64 = 1 << 1;
/// `VIRTIO_BALLOON_F_DEFLATE_ON_OOM`.
pub(super) const FEATURE_DEFLATE_ON_OOM: u64 = 1 << 2;
/// `VIRTIO_BALLOON_F_FREE_PAGE_HINT`: what is free, asked for now and then. It is for those who are
/// about to send all memory elsewhere: the driver may take a page back before the device has seen the
/// hint, so only a page that was not written to meanwhile may be dropped (section 5.5.6.5), which
/// nobody here tracks. It is never offered.
pub(super) const FEATURE_FREE_PAGE_HINT: u64 = 1 << 3;
/// `VIRTIO_BALLOON_F_PAGE_POISON`.
pub(super) const FEATURE_PAGE_POISON: u64 = 1 << 4;
/// `VIRTIO_BALLOON_F_PAGE_REPORTING`.
pub(super) const FEATURE_PAGE_REPORTING: u64 = 1 << 5;

/// Queues with all features (section 5.5.2).
pub(super) const QUEUES: usize = 5;

/// What a page frame number counts, whatever the guest's pages are (section 5.5.6).
pub(super) const PAGE_BYTES: u64 = 4096;

/// The configuration space (section 5.5.4).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub(super) struct Config {
    /// Pages that the driver shall give up; little-endian as all of them.
    pub(super) num_pages: [u8; 4],
    /// Pages that it says it has given up.
    pub(super) actual: [u8; 4],
    /// Of the hints that are not offered.
    free_page_hint_cmd_id: [u8; 4],
    /// What its free pages are filled with.
    pub(super) poison_val: [u8; 4],
}

impl Config {
    pub(super) fn new(num_pages: u32, actual: u32, poison_val: u32) -> Self {
        Self {
            num_pages: num_pages.to_le_bytes(),
            actual: actual.to_le_bytes(),
            free_page_hint_cmd_id: [0; 4],
            poison_val: poison_val.to_le_bytes(),
        }
    }

    /// The space after a write of the driver, whatever part of it that touches.
    pub(super) fn written(mut self, offset: u32, data: &[u8]) -> Self {
        let bytes = self.as_mut_bytes().iter_mut().skip(offset as usize);
        for (to, from) in bytes.zip(data) {
            *to = *from;
        }
        self
    }
}

/// What a queue is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Pages that the driver gives up.
    Inflate,
    /// Pages that it takes back.
    Deflate,
    /// What it says of its memory.
    Statistics,
    /// Pages that are free at the moment.
    Reporting,
}

/// The queues that a driver with these features has, in their order.
pub(super) fn roles(features: u64) -> Vec<Role> {
    let mut roles = vec![Role::Inflate, Role::Deflate];
    for (feature, role) in
        [(FEATURE_STATS_VQ, Role::Statistics), (FEATURE_PAGE_REPORTING, Role::Reporting)]
    {
        if features & feature != 0 {
            roles.push(role);
        }
    }
    roles
}
