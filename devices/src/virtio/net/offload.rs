//! Work that a network leaves to whoever is at the other end: checksums and large segments.
//!
//! The same things have three names: bits of the driver's receive features, bits of its transmit
//! features, and flags of the tap.

use bitflags::bitflags;
use serde::{Deserialize, Serialize};

use super::protocol::{
    FEATURE_CSUM, FEATURE_GUEST_CSUM, FEATURE_GUEST_ECN, FEATURE_GUEST_TSO4, FEATURE_GUEST_TSO6,
    FEATURE_GUEST_UFO, FEATURE_GUEST_USO4, FEATURE_GUEST_USO6, FEATURE_HOST_ECN, FEATURE_HOST_TSO4,
    FEATURE_HOST_TSO6, FEATURE_HOST_UFO, FEATURE_HOST_USO,
};

bitflags! {
    /// What a tap, or the driver, takes on.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
    #[serde(from = "u32", into = "u32")]
    pub struct Offloads: u32 {
        /// Frames whose checksum is not filled in.
        const CHECKSUM = 1 << 0;
        /// TCP over IPv4 in segments of up to 64 KiB.
        const TSO4 = 1 << 1;
        /// TCP over IPv6 in segments of up to 64 KiB.
        const TSO6 = 1 << 2;
        /// Large TCP segments with explicit congestion notification.
        const ECN = 1 << 3;
        /// UDP datagrams of up to 64 KiB, to be fragmented.
        const UFO = 1 << 4;
        /// Several UDP datagrams over IPv4 as one.
        const USO4 = 1 << 5;
        /// Several UDP datagrams over IPv6 as one.
        const USO6 = 1 << 6;
    }
}

impl From<u32> for Offloads {
    fn from(bits: u32) -> Self {
        Self::from_bits_truncate(bits)
    }
}

impl From<Offloads> for u32 {
    fn from(offloads: Offloads) -> Self {
        offloads.bits()
    }
}

/// Offload, bit of the receive features, bit of the transmit features. USO has one bit for both
/// versions of IP there.
const NAMES: [(Offloads, u64, u64); 7] = [
    (Offloads::CHECKSUM, FEATURE_GUEST_CSUM, FEATURE_CSUM),
    (Offloads::TSO4, FEATURE_GUEST_TSO4, FEATURE_HOST_TSO4),
    (Offloads::TSO6, FEATURE_GUEST_TSO6, FEATURE_HOST_TSO6),
    (Offloads::ECN, FEATURE_GUEST_ECN, FEATURE_HOST_ECN),
    (Offloads::UFO, FEATURE_GUEST_UFO, FEATURE_HOST_UFO),
    (Offloads::USO4, FEATURE_GUEST_USO4, FEATURE_HOST_USO),
    (Offloads::USO6, FEATURE_GUEST_USO6, FEATURE_HOST_USO),
];

impl Offloads {
    /// What frames to the driver may need, out of its features or of what it sets by command.
    pub(super) fn to_driver(features: u64) -> Self {
        NAMES.iter().filter(|name| features & name.1 != 0).map(|name| name.0).collect()
    }

    /// The features of a device whose tap can do this.
    pub(super) fn features(self) -> u64 {
        let has = |name: &&(Self, u64, u64)| self.contains(name.0);
        let features = NAMES.iter().filter(has).fold(0, |bits, name| bits | name.1 | name.2);
        if self.contains(Self::USO4 | Self::USO6) { features } else { features & !FEATURE_HOST_USO }
    }

    /// All bits of features that stand for frames to the driver.
    pub(super) fn all_to_driver() -> u64 {
        NAMES.iter().fold(0, |bits, name| bits | name.1)
    }

    /// Whether frames may be larger than the MTU.
    pub(super) fn has_large_frames(self) -> bool {
        self.intersects(Self::TSO4 | Self::TSO6 | Self::UFO | Self::USO4 | Self::USO6)
    }

    /// Without what needs something that is missing, as virtio 1.3 section 5.1.3.1 has it and taps
    /// do too: nothing goes without checksums, ECN not without TSO, USO only for both.
    pub(super) fn consistent(self) -> Self {
        if !self.contains(Self::CHECKSUM) {
            return Self::empty();
        }
        let mut offloads = self;
        if !self.intersects(Self::TSO4 | Self::TSO6) {
            offloads.remove(Self::ECN);
        }
        if !self.contains(Self::USO4 | Self::USO6) {
            offloads.remove(Self::USO4 | Self::USO6);
        }
        offloads
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_go_both_ways() {
        for offload in Offloads::all().iter() {
            let features = (offload | Offloads::all()).features();
            assert_ne!(features, 0);
            assert_eq!(Offloads::to_driver(offload.features()), offload);
        }
        assert_eq!(Offloads::to_driver(Offloads::all_to_driver()), Offloads::all());
        assert_eq!(Offloads::USO4.features() & FEATURE_HOST_USO, 0);
        assert_ne!((Offloads::USO4 | Offloads::USO6).features() & FEATURE_HOST_USO, 0);
    }

    #[test]
    fn what_depends_on_something_goes_with_it() {
        assert_eq!(Offloads::all().consistent(), Offloads::all());
        let without = |missing| (Offloads::all() - missing).consistent();
        assert_eq!(without(Offloads::CHECKSUM), Offloads::empty());
        assert_eq!(without(Offloads::TSO4), Offloads::all() - Offloads::TSO4);
        assert!(!without(Offloads::TSO4 | Offloads::TSO6).contains(Offloads::ECN));
        assert!(!without(Offloads::USO6).contains(Offloads::USO4));
    }
}
