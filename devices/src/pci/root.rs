//! The root of the bus: configuration accesses by port and by memory, and the windows of the BARs.
//!
//! BARs move while the guest runs. The root keeps a table of where they answer, made anew whenever a
//! device says that it [`Changed`](Decoding::Changed), and looks each access to a window up there. No
//! lock is held while a device works, since a device may take its time.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::{
    BarAllocator, BarIndex, Decoding, HostBridge, PciAddress, PciDevice, PciError, Window,
};
use crate::bus::{Bus, BusDevice, BusError, BusRange};
use crate::sync::{Lock, SharedLock};

/// Functions of one bus.
const FUNCTIONS: usize = 256;
const CONFIG_BYTES: u64 = 256;
/// Ports: configuration address and data.
const CONFIG_ADDRESS_PORT: u64 = 0xcf8;
const CONFIG_DATA_PORT: u64 = 0xcfc;
/// Configuration address register: accesses to the data port are configuration accesses.
const CONFIG_ADDRESS_ENABLE: u32 = 1 << 31;
/// Bytes of configuration space for each function in ECAM.
const ECAM_FUNCTION_BYTES: u64 = 4096;
const HEADER_TYPE: u64 = 0x0e;
const HEADER_TYPE_MULTI_FUNCTION: u8 = 1 << 7;

/// Where the PCI bus answers in guest physical memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Windows {
    /// 32-bit BARs.
    pub low: Window,
    /// 64-bit BARs.
    pub high: Window,
    /// Configuration space, 1 MiB a bus.
    pub ecam: Window,
}

/// The root of the PCI bus. A clone is another handle of the same.
#[derive(Clone)]
pub struct PciRoot {
    shared: Arc<Shared>,
}

struct Shared {
    windows: Windows,
    allocator: Lock<BarAllocator>,
    topology: SharedLock<Topology>,
    config_address: AtomicU32,
}

struct Topology {
    functions: Box<[Option<Arc<dyn PciDevice>>]>,
    /// Ascending, disjoint.
    mapped: Vec<MappedBar>,
}

struct MappedBar {
    address: u64,
    last: u64,
    bar: BarIndex,
    device: Arc<dyn PciDevice>,
}

impl fmt::Debug for PciRoot {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let topology = self.shared.topology.read();
        let present = topology.functions.iter().zip(0..=u8::MAX);
        let present = present.filter_map(|(device, devfn)| device.as_ref().map(|_| devfn));
        formatter
            .debug_struct("PciRoot")
            .field("windows", &self.shared.windows)
            .field("functions", &present.collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

impl PciRoot {
    /// A bus with the host bridge on it.
    pub fn new(windows: Windows) -> PciRoot {
        let mut functions: Box<[Option<Arc<dyn PciDevice>>]> = vec![None; FUNCTIONS].into();
        functions[0] = Some(Arc::new(HostBridge::default()));
        let topology = SharedLock::new(Topology { functions, mapped: Vec::new() });
        let allocator = Lock::new(BarAllocator::new(windows.low, windows.high));
        let config_address = AtomicU32::new(0);
        PciRoot { shared: Arc::new(Shared { windows, allocator, topology, config_address }) }
    }

    /// Puts a device at the next free place: function 0 of each slot first, then the others.
    pub fn attach(&self, device: Arc<dyn PciDevice>) -> Result<PciAddress, PciError> {
        let free = {
            let topology = self.shared.topology.read();
            (0..FUNCTIONS)
                // Functions are the slow digit here, the devices of 32 slots the fast one.
                .map(|order| PciAddress((order % 32 * 8 + order / 32) as u8))
                // Further functions of the host bridge would be strange to guests.
                .filter(|address| address.device() != 0)
                .find(|address| topology.functions[usize::from(address.0)].is_none())
        };
        let address = free.ok_or(PciError::BusFull)?;
        self.attach_at(address, device)?;
        Ok(address)
    }

    /// Puts a device at a place. Guests find it there if function 0 of the slot is present, too.
    pub fn attach_at(
        &self,
        address: PciAddress,
        device: Arc<dyn PciDevice>,
    ) -> Result<(), PciError> {
        let mut topology = self.shared.topology.write();
        if topology.functions[usize::from(address.0)].is_some() {
            return Err(PciError::Taken(address));
        }
        {
            let mut allocator = self.shared.allocator.lock();
            for bar in device.bars() {
                device.place_bar(bar.index, allocator.allocate(bar.kind, bar.size)?);
            }
        }
        topology.functions[usize::from(address.0)] = Some(device);
        topology.map_bars();
        Ok(())
    }

    /// Puts ports CF8 and CFC on a bus of ports.
    ///
    /// The address port takes one byte of the bus, CF8, where double words start, because CF9 is
    /// the reset register and not ours.
    pub fn insert_ports(&self, ports: &mut Bus) -> Result<(), BusError> {
        let range = BusRange { base: CONFIG_ADDRESS_PORT, length: 1 };
        ports.insert(range, Arc::new(ConfigAddressPort(self.clone())))?;
        let range = BusRange { base: CONFIG_DATA_PORT, length: 4 };
        ports.insert(range, Arc::new(ConfigDataPort(self.clone())))
    }

    /// Puts ECAM and the BAR windows on a bus of memory addresses.
    pub fn insert_memory(&self, memory: &mut Bus) -> Result<(), BusError> {
        let Windows { low, high, ecam } = self.shared.windows;
        let range = |window: Window| BusRange { base: window.base, length: window.length };
        memory.insert(range(ecam), Arc::new(Ecam(self.clone())))?;
        for window in [low, high] {
            let device = BarWindow { root: self.clone(), base: window.base };
            memory.insert(range(window), Arc::new(device))?;
        }
        Ok(())
    }

    fn function(&self, address: PciAddress) -> Option<Arc<dyn PciDevice>> {
        self.shared.topology.read().functions[usize::from(address.0)].clone()
    }

    fn read_config(&self, address: PciAddress, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        let Some(device) = self.function(address).filter(|_| offset < CONFIG_BYTES) else {
            return;
        };
        device.read_config(offset as u16, data);
        let header_type = HEADER_TYPE.checked_sub(offset).and_then(|at| data.get_mut(at as usize));
        if let Some(header_type) = header_type
            && self.has_further_functions(address)
        {
            *header_type |= HEADER_TYPE_MULTI_FUNCTION;
        }
    }

    fn write_config(&self, address: PciAddress, offset: u64, data: &[u8]) {
        let Some(device) = self.function(address).filter(|_| offset < CONFIG_BYTES) else {
            return;
        };
        if device.write_config(offset as u16, data) == Decoding::Changed {
            self.shared.topology.write().map_bars();
        }
    }

    fn has_further_functions(&self, address: PciAddress) -> bool {
        let first = usize::from(address.0);
        address.function() == 0
            && self.shared.topology.read().functions[first + 1..first + 8]
                .iter()
                .any(Option::is_some)
    }

    fn find_bar(&self, address: u64) -> Option<(Arc<dyn PciDevice>, BarIndex, u64)> {
        let topology = self.shared.topology.read();
        let index = topology.mapped.partition_point(|bar| bar.address <= address);
        let bar = topology.mapped.get(index.checked_sub(1)?)?;
        (address <= bar.last).then(|| (bar.device.clone(), bar.bar, address - bar.address))
    }
}

impl Topology {
    /// Makes the table of BARs from what the devices decode now. Where a guest lays BARs over one
    /// another, the one with the lowest address answers, then the lowest function.
    fn map_bars(&mut self) {
        let devices = self.functions.iter().flatten();
        let mut mapped: Vec<MappedBar> = devices
            .flat_map(|device| {
                device.decoded_bars().into_iter().map(|bar| MappedBar {
                    address: bar.address,
                    last: bar.last,
                    bar: bar.index,
                    device: device.clone(),
                })
            })
            .collect();
        // Stable: functions stay in order.
        mapped.sort_by_key(|bar| bar.address);
        let mut taken = None;
        mapped.retain(|bar| {
            let free = taken.is_none_or(|last| bar.address > last);
            if free {
                taken = Some(bar.last);
            }
            free
        });
        self.mapped = mapped;
    }
}

/// Port CF8: which register the data port shows.
struct ConfigAddressPort(PciRoot);

impl BusDevice for ConfigAddressPort {
    fn read(&self, _offset: u64, data: &mut [u8]) {
        if data.len() == 4 {
            let address = self.0.shared.config_address.load(Ordering::Relaxed);
            data.copy_from_slice(&address.to_le_bytes());
        }
    }

    fn write(&self, _offset: u64, data: &[u8]) {
        // Only double words reach the register (PCI Local Bus 3.0 section 3.2.2.3.2).
        if let Ok(bytes) = data.try_into() {
            self.0.shared.config_address.store(u32::from_le_bytes(bytes), Ordering::Relaxed);
        }
    }
}

/// Port CFC: the register that CF8 selects; bytes and words within it are at CFC + n.
struct ConfigDataPort(PciRoot);

impl ConfigDataPort {
    fn target(&self, offset: u64) -> Option<(PciAddress, u64)> {
        let selected = self.0.shared.config_address.load(Ordering::Relaxed);
        let [register, devfn, bus, _] = selected.to_le_bytes();
        let here = selected & CONFIG_ADDRESS_ENABLE != 0 && bus == 0;
        here.then(|| (PciAddress(devfn), u64::from(register & !3) + offset))
    }
}

impl BusDevice for ConfigDataPort {
    fn read(&self, offset: u64, data: &mut [u8]) {
        match self.target(offset) {
            Some((address, register)) => self.0.read_config(address, register, data),
            None => data.fill(0xff),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        if let Some((address, register)) = self.target(offset) {
            self.0.write_config(address, register, data);
        }
    }
}

/// Configuration space in memory: 4 KiB a function, of which the first 256 bytes exist.
struct Ecam(PciRoot);

impl Ecam {
    fn target(offset: u64) -> Option<(PciAddress, u64)> {
        let function = usize::try_from(offset / ECAM_FUNCTION_BYTES).ok()?;
        // Further buses are empty.
        (function < FUNCTIONS).then_some((PciAddress(function as u8), offset % ECAM_FUNCTION_BYTES))
    }
}

impl BusDevice for Ecam {
    fn read(&self, offset: u64, data: &mut [u8]) {
        match Ecam::target(offset) {
            Some((address, register)) => self.0.read_config(address, register, data),
            None => data.fill(0xff),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        if let Some((address, register)) = Ecam::target(offset) {
            self.0.write_config(address, register, data);
        }
    }
}

/// A range of addresses where BARs may be.
struct BarWindow {
    root: PciRoot,
    base: u64,
}

impl BusDevice for BarWindow {
    fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        if let Some((device, bar, offset)) = self.root.find_bar(self.base + offset) {
            device.read_bar(bar, offset, data);
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        if let Some((device, bar, offset)) = self.root.find_bar(self.base + offset) {
            device.write_bar(bar, offset, data);
        }
    }
}

#[cfg(test)]
mod tests;
