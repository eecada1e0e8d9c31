//! What a seed decides once for its world.

use devices::virtio::backend::{DeviceProfile, RingLayout};
use devices::virtio::queue::{FEATURE_EVENT_IDX, FEATURE_INDIRECT_DESC, FEATURE_RING_PACKED};
use executor::sim::{Faults, Numbers, PerMille};

const VERSION_1: u64 = 1 << 32;

/// What kind of things happen in a world, each of which can be left out to see whether it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Faults of the host.
    Faults,
    /// The actor dies.
    Crashes,
    /// The transport pauses, resets, and starts successors.
    Lifecycle,
    /// The driver breaks the rules.
    Hostility,
    /// The driver acts between two stores of the device.
    Races,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Faults, Self::Crashes, Self::Lifecycle, Self::Hostility, Self::Races];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Faults => "faults",
            Self::Crashes => "crashes",
            Self::Lifecycle => "lifecycle",
            Self::Hostility => "hostility",
            Self::Races => "races",
        }
    }
}

/// What a seed decides once.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Negotiated features.
    pub features: u64,
    /// Format of the rings.
    pub layout: RingLayout,
    /// Size of each queue.
    pub sizes: Vec<u16>,
    /// What goes wrong with the host's files.
    pub faults: Faults,
    /// Which kinds of things happen.
    pub kinds: Vec<Kind>,
    /// How many steps the world has.
    pub steps: u32,
}

impl Settings {
    /// Of a world with a device of this profile. `droppable` are features that the driver need not
    /// take, beside those of the rings.
    pub fn choose(random: &mut Numbers, profile: &DeviceProfile, droppable: u64) -> Self {
        let packed = random.once_in(2);
        let mut features = profile.features | VERSION_1 | FEATURE_RING_PACKED;
        if !packed {
            features &= !FEATURE_RING_PACKED;
        }
        for bit in [FEATURE_INDIRECT_DESC, FEATURE_EVENT_IDX] {
            if random.once_in(3) {
                features &= !bit;
            }
        }
        for bit in (0..64).map(|bit| 1 << bit).filter(|bit| droppable & bit != 0) {
            if random.once_in(3) {
                features &= !bit;
            }
        }
        let size = *random.pick(&[4, 8, 16, 32, 64]);
        let sizes = profile.queue_sizes.iter().map(|most| size.min(*most)).collect();
        let mut rate = |most: u64| {
            // Most worlds have few kinds of faults, so that none hides what another shows.
            if random.once_in(3) { PerMille(random.below(most) as u16) } else { PerMille(0) }
        };
        let faults = Faults {
            short: rate(300),
            io_error: rate(60),
            no_space: rate(60),
            sync_error: rate(200),
            interrupted: rate(60),
            again: rate(300),
            slow: rate(100),
            uncancelled: rate(900),
        };
        let mut kinds = Vec::new();
        for (kind, often) in [
            (Kind::Faults, [2, 3]),
            (Kind::Hostility, [1, 4]),
            (Kind::Crashes, [1, 2]),
            (Kind::Lifecycle, [1, 2]),
            (Kind::Races, [3, 4]),
        ] {
            if random.below(often[1]) < often[0] {
                kinds.push(kind);
            }
        }
        Settings {
            features,
            layout: if packed { RingLayout::Packed } else { RingLayout::Split },
            sizes,
            faults,
            kinds,
            steps: random.within(20..120) as u32,
        }
    }

    /// The same without things of these kinds.
    #[must_use]
    pub fn without(mut self, kinds: &[Kind]) -> Self {
        self.kinds.retain(|kind| !kinds.contains(kind));
        if !self.has(Kind::Faults) {
            self.faults = Faults::NONE;
        }
        self
    }

    /// Whether things of a kind happen.
    pub fn has(&self, kind: Kind) -> bool {
        self.kinds.contains(&kind)
    }
}
