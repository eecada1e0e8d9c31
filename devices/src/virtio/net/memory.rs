//! What the driver set by command, as its file has it. Whatever that says is checked like a command.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::filter::{Addresses, Filter, MAX_ADDRESSES, MODES, Switch};
use super::mac::MacAddress;
use super::offload::Offloads;
use crate::virtio::state_file::{State, StateFile};

/// No offloads were chosen.
const NOT_CHOSEN: u32 = u32::MAX;
/// More addresses than a table holds.
const ALL: u8 = u8::MAX;

const _: () = assert!(MAX_ADDRESSES < ALL as usize);

#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Table {
    count: u8,
    addresses: [[u8; 6]; MAX_ADDRESSES],
}

/// What a driver sets by command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DriverSettings {
    magic: u32,
    offloads: u32,
    mac: [u8; 6],
    pairs: u16,
    modes: [u8; MODES],
    unicast: Table,
    multicast: Table,
}

impl DriverSettings {
    pub(super) fn new(
        mac: MacAddress,
        pairs: u16,
        offloads: Option<Offloads>,
        filter: &Filter,
    ) -> Self {
        let (modes, unicast, multicast) = filter.parts();
        Self {
            magic: Self::MAGIC,
            offloads: offloads.map_or(NOT_CHOSEN, |offloads| offloads.bits()),
            mac: mac.0,
            pairs,
            modes: modes.map(|switch| u8::from(switch == Switch::On)),
            unicast: Table::new(unicast),
            multicast: Table::new(multicast),
        }
    }

    pub(super) fn mac(&self) -> Option<MacAddress> {
        Some(MacAddress(self.mac)).filter(|mac| mac.is_unicast())
    }

    pub(super) fn pairs(&self) -> u16 {
        self.pairs
    }

    pub(super) fn offloads(&self) -> Option<Offloads> {
        Offloads::from_bits(self.offloads)
    }

    pub(super) fn filter(&self) -> Filter {
        let modes = self.modes.map(|mode| if mode == 0 { Switch::Off } else { Switch::On });
        Filter::from_parts(modes, self.unicast.addresses(), self.multicast.addresses())
    }
}

impl Table {
    fn new(addresses: &Addresses) -> Self {
        let mut table = Self { count: ALL, addresses: [[0; 6]; MAX_ADDRESSES] };
        if let Addresses::Listed(list) = addresses {
            table.count = list.len().min(MAX_ADDRESSES) as u8;
            for (to, from) in table.addresses.iter_mut().zip(list) {
                *to = from.0;
            }
        }
        table
    }

    fn addresses(&self) -> Addresses {
        match self.addresses.get(..usize::from(self.count)) {
            Some(list) => Addresses::Listed(list.iter().map(|bytes| MacAddress(*bytes)).collect()),
            None => Addresses::All,
        }
    }
}

impl State for DriverSettings {
    const NAME: &'static str = "net-settings";
    const MAGIC: u32 = 0x6e65_7401;

    fn magic(&self) -> u32 {
        self.magic
    }
}

/// A file that holds [`DriverSettings`], or nothing.
pub type SettingsFile = StateFile<DriverSettings>;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::filter::Mode;
    use super::*;

    #[test]
    fn settings_come_back_as_they_were() {
        let file = SettingsFile::create().unwrap();
        assert_eq!(file.load(), None);
        let mut filter = Filter::default();
        filter.switch(Mode::Promiscuous, Switch::Off);
        let own = MacAddress([2, 0, 0, 0, 0, 7]);
        let other = MacAddress([2, 0, 0, 0, 0, 8]);
        filter.set_tables(Addresses::Listed(vec![other]), Addresses::All);
        let settings = DriverSettings::new(own, 3, Some(Offloads::CHECKSUM), &filter);
        file.store(&settings).unwrap();
        let same = file.try_clone().unwrap();
        let loaded = same.load().unwrap();
        assert_eq!(loaded, settings);
        assert_eq!((loaded.mac(), loaded.pairs()), (Some(own), 3));
        assert_eq!(loaded.offloads(), Some(Offloads::CHECKSUM));
        let restored = loaded.filter();
        assert!(restored.passes(other, own) && restored.passes(MacAddress([1; 6]), own));
        assert!(!restored.passes(MacAddress([2; 6]), own));
        file.clear().unwrap();
        assert_eq!(same.load(), None);
    }

    proptest! {
        #[test]
        fn a_hostile_file_yields_something_or_nothing(
            mut bytes in prop::collection::vec(any::<u8>(), 0..1000),
            genuine: bool,
        ) {
            if genuine && bytes.len() >= 4 {
                bytes[..4].copy_from_slice(&DriverSettings::MAGIC.to_ne_bytes());
            }
            let file = SettingsFile::create().unwrap();
            file.scribble(&bytes);
            if let Some(settings) = file.load() {
                let _ = (settings.mac(), settings.offloads(), settings.filter());
            }
        }
    }
}
