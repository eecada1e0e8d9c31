//! The host bridge at 00:00.0: it is there to be found, and does nothing.

use super::{BarIndex, BarSpec, DecodedBar, Decoding, Identity, PciConfig, PciDevice};
use crate::sync::Lock;

/// Red Hat's generic PCI Express host bridge: guests know it and have no quirks for it.
const IDENTITY: Identity = Identity {
    vendor: 0x1b36,
    device: 0x0008,
    revision: 0,
    class: 0x06_00_00,
    subsystem_vendor: 0,
    subsystem: 0,
};

/// The host bridge.
#[derive(Debug)]
pub struct HostBridge {
    config: Lock<PciConfig>,
}

impl Default for HostBridge {
    fn default() -> HostBridge {
        HostBridge { config: Lock::new(PciConfig::new(&IDENTITY)) }
    }
}

impl PciDevice for HostBridge {
    fn read_config(&self, offset: u16, data: &mut [u8]) {
        self.config.lock().read(offset, data);
    }

    fn write_config(&self, offset: u16, data: &[u8]) -> Decoding {
        self.config.lock().write(offset, data)
    }

    fn bars(&self) -> Vec<BarSpec> {
        Vec::new()
    }

    fn place_bar(&self, _index: BarIndex, _address: u64) {}

    fn decoded_bars(&self) -> Vec<DecodedBar> {
        Vec::new()
    }

    fn read_bar(&self, _bar: BarIndex, _offset: u64, _data: &mut [u8]) {}

    fn write_bar(&self, _bar: BarIndex, _offset: u64, _data: &[u8]) {}
}
