//! Which frames the driver wants to see (virtio 1.3 sections 5.1.6.5.1 and 5.1.6.5.2).

use super::mac::MacAddress;

/// Most addresses of each kind that are kept one by one; a driver that wants more gets all frames of
/// the kind.
pub(super) const MAX_ADDRESSES: usize = 64;

/// Modes that the driver switches on and off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Promiscuous,
    AllMulticast,
    AllUnicast,
    NoMulticast,
    NoUnicast,
    NoBroadcast,
}

pub(super) const MODES: usize = 6;

/// Whether a mode holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Switch {
    Off,
    On,
}

/// Addresses of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Addresses {
    Listed(Vec<MacAddress>),
    /// Too many to list.
    All,
}

impl Addresses {
    fn contains(&self, address: MacAddress) -> bool {
        match self {
            Self::Listed(list) => list.contains(&address),
            Self::All => true,
        }
    }
}

/// A receive filter.
#[derive(Debug)]
pub(super) struct Filter {
    modes: [Switch; MODES],
    unicast: Addresses,
    multicast: Addresses,
}

impl Default for Filter {
    /// As after a reset: everything goes through, as drivers that set no filter expect.
    fn default() -> Self {
        let mut modes = [Switch::Off; MODES];
        modes[Mode::Promiscuous as usize] = Switch::On;
        let nothing = || Addresses::Listed(Vec::new());
        Self { modes, unicast: nothing(), multicast: nothing() }
    }
}

impl Filter {
    pub(super) fn switch(&mut self, mode: Mode, switch: Switch) {
        self.modes[mode as usize] = switch;
    }

    pub(super) fn set_tables(&mut self, unicast: Addresses, multicast: Addresses) {
        self.unicast = unicast;
        self.multicast = multicast;
    }

    /// All that it goes by, in the order of [`Mode`].
    pub(super) fn parts(&self) -> ([Switch; MODES], &Addresses, &Addresses) {
        (self.modes, &self.unicast, &self.multicast)
    }

    /// The inverse of [`Filter::parts`].
    pub(super) fn from_parts(
        modes: [Switch; MODES],
        unicast: Addresses,
        multicast: Addresses,
    ) -> Self {
        Self { modes, unicast, multicast }
    }

    /// Whether there is nothing to look at.
    #[inline]
    pub(super) fn passes_all(&self) -> bool {
        self.is(Mode::Promiscuous)
    }

    /// Whether a frame to `destination` goes to the interface with the address `own`.
    pub(super) fn passes(&self, destination: MacAddress, own: MacAddress) -> bool {
        if self.passes_all() {
            return true;
        }
        if destination == MacAddress::BROADCAST {
            return !self.is(Mode::NoBroadcast);
        }
        if destination.is_group() {
            return !self.is(Mode::NoMulticast)
                && (self.is(Mode::AllMulticast) || self.multicast.contains(destination));
        }
        !self.is(Mode::NoUnicast)
            && (self.is(Mode::AllUnicast)
                || destination == own
                || self.unicast.contains(destination))
    }

    fn is(&self, mode: Mode) -> bool {
        self.modes[mode as usize] == Switch::On
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
    const OTHER: MacAddress = MacAddress([2, 0, 0, 0, 0, 2]);
    const GROUP: MacAddress = MacAddress([1, 0, 0x5e, 0, 0, 1]);

    fn passing(filter: &Filter) -> [bool; 4] {
        [OWN, OTHER, GROUP, MacAddress::BROADCAST].map(|to| filter.passes(to, OWN))
    }

    #[test]
    fn modes_open_and_close() {
        let mut filter = Filter::default();
        assert_eq!(passing(&filter), [true; 4]);
        filter.switch(Mode::Promiscuous, Switch::Off);
        assert_eq!(passing(&filter), [true, false, false, true]);
        filter.switch(Mode::AllMulticast, Switch::On);
        assert_eq!(passing(&filter), [true, false, true, true]);
        filter.switch(Mode::AllUnicast, Switch::On);
        assert_eq!(passing(&filter), [true; 4]);
        filter.switch(Mode::NoMulticast, Switch::On);
        filter.switch(Mode::NoUnicast, Switch::On);
        filter.switch(Mode::NoBroadcast, Switch::On);
        assert_eq!(passing(&filter), [false; 4]);
    }

    #[test]
    fn tables_open_for_what_they_list() {
        let mut filter = Filter::default();
        filter.switch(Mode::Promiscuous, Switch::Off);
        filter.set_tables(Addresses::Listed(vec![OTHER]), Addresses::Listed(vec![GROUP]));
        assert_eq!(passing(&filter), [true; 4]);
        filter.set_tables(Addresses::Listed(vec![]), Addresses::All);
        assert_eq!(passing(&filter), [true, false, true, true]);
    }
}
