//! The guest's memory as a front end hands it over.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::message::RegionMessage;
use crate::memory::{GuestAddress, GuestMemory, MemoryError, RegionSpec};

/// Most regions at a time; also what a front end is told.
pub(super) const MOST_REGIONS: usize = 32;

/// The regions that there are.
#[derive(Debug, Default)]
pub(super) struct Regions {
    regions: Vec<(RegionMessage, Arc<OwnedFd>)>,
}

impl Regions {
    /// Adds a region. False if there are too many.
    pub(super) fn add(&mut self, region: RegionMessage, file: OwnedFd) -> bool {
        if self.regions.len() == MOST_REGIONS {
            return false;
        }
        self.regions.push((region, Arc::new(file)));
        true
    }

    /// Removes a region. False if there is none like it.
    pub(super) fn remove(&mut self, region: RegionMessage) -> bool {
        let same = |known: &RegionMessage| {
            (known.guest, known.size, known.user) == (region.guest, region.size, region.user)
        };
        let before = self.regions.len();
        self.regions.retain(|(known, _)| !same(known));
        self.regions.len() < before
    }

    /// Maps them all.
    pub(super) fn map(&self) -> Result<GuestMemory, MemoryError> {
        let spec = |(region, file): &(RegionMessage, Arc<OwnedFd>)| RegionSpec {
            base: GuestAddress(region.guest),
            length: region.size,
            file: Arc::clone(file),
            file_offset: region.offset,
        };
        GuestMemory::new(self.regions.iter().map(spec).collect())
    }

    /// What the guest calls an address of the front end.
    pub(super) fn guest_address(&self, user: u64) -> Option<u64> {
        self.regions.iter().find_map(|(region, _)| {
            let offset = user.checked_sub(region.user).filter(|offset| *offset < region.size)?;
            region.guest.checked_add(offset)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    fn region(guest: u64, size: u64, user: u64) -> RegionMessage {
        RegionMessage { guest, size, user, offset: 0 }
    }

    #[test]
    fn addresses_are_found_in_their_region() {
        let file = || OwnedFd::from(File::open("/dev/null").unwrap());
        let mut regions = Regions::default();
        assert!(regions.add(region(0x1000, 0x2000, 0x7000_0000), file()));
        assert!(regions.add(region(u64::MAX - 7, 0x10, 0x9000_0000), file()));
        assert_eq!(regions.guest_address(0x7000_1fff), Some(0x2fff));
        assert_eq!(regions.guest_address(0x7000_2000), None);
        assert_eq!(regions.guest_address(0x6fff_ffff), None);
        assert_eq!(regions.guest_address(0x9000_0008), None, "beyond all addresses");
        assert!(!regions.remove(region(0x1000, 0x2000, 0)));
        assert!(regions.remove(region(0x1000, 0x2000, 0x7000_0000)));
        assert_eq!(regions.guest_address(0x7000_0000), None);
        for index in 0..MOST_REGIONS as u64 - 1 {
            assert!(regions.add(region(index << 12, 0x1000, index << 12), file()));
        }
        assert!(!regions.add(region(0, 1, 0), file()));
    }
}
