//! PCI configuration space, through ports CF8/CFC and through memory (ECAM), and what is on bus 0.

use alloc::{vec, vec::Vec};

use crate::{
    acpi::Ecam,
    platform::{mmio::Window, ports},
};

const ADDRESS_PORT: u16 = 0xcf8;
const DATA_PORT: u16 = 0xcfc;
const ENABLE: u32 = 1 << 31;
/// Bytes of the configuration space of a function in ECAM.
const ECAM_FUNCTION_BYTES: u64 = 4096;
const FUNCTIONS_ON_BUS: u64 = 32 * 8;
/// The longest chain of capabilities that fits.
const CAPABILITY_LIMIT: usize = 48;

pub(crate) const COMMAND: u16 = 0x04;
pub(crate) const COMMAND_MEMORY: u32 = 1 << 1;
pub(crate) const COMMAND_BUS_MASTER: u32 = 1 << 2;
pub(crate) const COMMAND_INTX_OFF: u32 = 1 << 10;
const STATUS_CAPABILITIES: u32 = 1 << 20;
const HEADER_TYPE: u16 = 0x0c;
const MULTIFUNCTION: u32 = 1 << 23;
const BAR0: u16 = 0x10;
const CAPABILITIES: u16 = 0x34;

/// A device and function on bus 0.
#[expect(clippy::struct_field_names, reason = "PCI calls both so")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Function {
    pub(crate) device: u8,
    pub(crate) function: u8,
    pub(crate) vendor: u16,
    pub(crate) id: u16,
}

impl core::fmt::Display for Function {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(out, "00:{:02x}.{}", self.device, self.function)
    }
}

/// A way to configuration space.
pub(crate) trait ConfigSpace {
    /// Reads the aligned 32 bits at an offset of a function on bus 0.
    fn read(&self, device: u8, function: u8, offset: u16) -> u32;
    fn write(&self, device: u8, function: u8, offset: u16, value: u32);
}

/// Ports CF8 and CFC.
pub(crate) struct PortConfig;

impl PortConfig {
    fn select(device: u8, function: u8, offset: u16) {
        let address = u32::from(device) << 11 | u32::from(function) << 8 | u32::from(offset & 0xfc);
        ports::write_u32(ADDRESS_PORT, ENABLE | address);
    }
}

impl ConfigSpace for PortConfig {
    fn read(&self, device: u8, function: u8, offset: u16) -> u32 {
        Self::select(device, function, offset);
        ports::read_u32(DATA_PORT)
    }

    fn write(&self, device: u8, function: u8, offset: u16, value: u32) {
        Self::select(device, function, offset);
        ports::write_u32(DATA_PORT, value);
    }
}

/// Configuration space in memory, bus 0 of it.
pub(crate) struct EcamConfig(Window);

impl EcamConfig {
    /// `None` if it has no bus 0 or cannot be mapped.
    pub(crate) fn new(ecam: Ecam) -> Option<Self> {
        if ecam.first_bus != 0 {
            return None;
        }
        Window::device(ecam.base, FUNCTIONS_ON_BUS * ECAM_FUNCTION_BYTES).map(Self)
    }

    fn offset(device: u8, function: u8, offset: u16) -> u64 {
        (u64::from(device) * 8 + u64::from(function)) * ECAM_FUNCTION_BYTES + u64::from(offset)
    }
}

impl ConfigSpace for EcamConfig {
    fn read(&self, device: u8, function: u8, offset: u16) -> u32 {
        self.0.read(Self::offset(device, function, offset))
    }

    fn write(&self, device: u8, function: u8, offset: u16, value: u32) {
        self.0.write(Self::offset(device, function, offset), value);
    }
}

/// All functions on bus 0.
pub(crate) fn scan(space: &dyn ConfigSpace) -> Vec<Function> {
    let mut found = vec![];
    for device in 0..32 {
        let mut functions = 1;
        let mut function = 0;
        while function < functions {
            let identity = space.read(device, function, 0);
            if identity & 0xffff != 0xffff {
                let (vendor, id) = (identity as u16, (identity >> 16) as u16);
                found.push(Function { device, function, vendor, id });
                if function == 0 && space.read(device, 0, HEADER_TYPE) & MULTIFUNCTION != 0 {
                    functions = 8;
                }
            }
            function += 1;
        }
    }
    found
}

/// Offsets of the capabilities of a function, with their identifiers.
pub(crate) fn capabilities(space: &dyn ConfigSpace, function: Function) -> Vec<(u8, u16)> {
    let read = |offset| space.read(function.device, function.function, offset);
    let mut found = vec![];
    if read(COMMAND) & STATUS_CAPABILITIES == 0 {
        return found;
    }
    let mut next = read(CAPABILITIES) as u16 & 0xfc;
    while next >= 0x40 && found.len() < CAPABILITY_LIMIT {
        let header = read(next);
        found.push((header as u8, next));
        next = (header >> 8) as u16 & 0xfc;
    }
    found
}

/// The address of a memory BAR, `None` if it is none or has no address.
pub(crate) fn bar(space: &dyn ConfigSpace, function: Function, index: u8) -> Option<u64> {
    const IO: u32 = 1;
    const TYPE: u32 = 0b110;
    const TYPE_64: u32 = 0b100;
    if index > 5 {
        return None;
    }
    let offset = BAR0 + u16::from(index) * 4;
    let low = space.read(function.device, function.function, offset);
    if low & IO != 0 {
        return None;
    }
    let mut address = u64::from(low & !0xf);
    if low & TYPE == TYPE_64 && index < 5 {
        let high = space.read(function.device, function.function, offset + 4);
        address |= u64::from(high) << 32;
    }
    Some(address).filter(|address| *address != 0)
}
