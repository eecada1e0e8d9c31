//! Address spaces: which device answers at an address.
//!
//! A [`Bus`] is filled while the machine is assembled and read-only afterwards, so vCPU threads
//! look devices up without a lock. What moves at run time (PCI BARs) is looked up behind one entry
//! of the bus, by the device that owns the window.

use std::fmt;
use std::sync::Arc;

/// A device that answers reads and writes in a range of addresses.
///
/// Any size, alignment and overlap of the end of the range may come; a device must take all of it.
/// What a device does not fill in of `data` reads as ones.
pub trait BusDevice: Send + Sync {
    /// Reads `data.len()` bytes, `offset` bytes from the start of the device's range.
    fn read(&self, offset: u64, data: &mut [u8]);
    /// Writes `data`, `offset` bytes from the start of the device's range.
    fn write(&self, offset: u64, data: &[u8]);
}

/// A range of addresses on a bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct BusRange {
    /// First address.
    pub base: u64,
    /// Number of addresses, at least one.
    pub length: u64,
}

impl fmt::Display for BusRange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:#x}+{:#x}", self.base, self.length)
    }
}

impl BusRange {
    /// The last address; none when the range is empty or wraps.
    fn last(self) -> Option<u64> {
        self.base.checked_add(self.length.checked_sub(1)?)
    }
}

/// Why a device was not put on a bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BusError {
    /// The range is empty or wraps around.
    #[error("bus range {0} is empty or wraps around")]
    BadRange(BusRange),
    /// Another device is there.
    #[error("bus range {new} overlaps {existing}")]
    Overlap {
        /// The range that was to be inserted.
        new: BusRange,
        /// The range that is there.
        existing: BusRange,
    },
}

struct Entry {
    range: BusRange,
    device: Arc<dyn BusDevice>,
}

/// An address space of devices.
#[derive(Default)]
pub struct Bus {
    /// Sorted by base, disjoint.
    entries: Vec<Entry>,
}

impl fmt::Debug for Bus {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.entries.iter().map(|entry| entry.range)).finish()
    }
}

impl Bus {
    /// An empty bus.
    pub fn new() -> Bus {
        Bus::default()
    }

    /// Puts a device on the bus.
    pub fn insert(&mut self, range: BusRange, device: Arc<dyn BusDevice>) -> Result<(), BusError> {
        let last = range.last().ok_or(BusError::BadRange(range))?;
        let index = self.entries.partition_point(|entry| entry.range.base <= range.base);
        let before = index.checked_sub(1).and_then(|index| self.entries.get(index));
        if let Some(Entry { range: existing, .. }) =
            before.filter(|entry| entry.range.last() >= Some(range.base))
        {
            return Err(BusError::Overlap { new: range, existing: *existing });
        }
        if let Some(Entry { range: existing, .. }) =
            self.entries.get(index).filter(|entry| entry.range.base <= last)
        {
            return Err(BusError::Overlap { new: range, existing: *existing });
        }
        self.entries.insert(index, Entry { range, device });
        Ok(())
    }

    /// Reads from the device at `address`; all ones where there is none.
    pub fn read(&self, address: u64, data: &mut [u8]) {
        data.fill(0xff);
        if let Some((device, offset)) = self.find(address) {
            device.read(offset, data);
        }
    }

    /// Writes to the device at `address`; nothing happens where there is none.
    pub fn write(&self, address: u64, data: &[u8]) {
        if let Some((device, offset)) = self.find(address) {
            device.write(offset, data);
        }
    }

    fn find(&self, address: u64) -> Option<(&dyn BusDevice, u64)> {
        let index = self.entries.partition_point(|entry| entry.range.base <= address);
        let entry = self.entries.get(index.checked_sub(1)?)?;
        let offset = address - entry.range.base;
        (offset < entry.range.length).then(|| (&*entry.device, offset))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    struct Recorder {
        writes: Mutex<Vec<(u64, Vec<u8>)>>,
    }

    impl BusDevice for Recorder {
        fn read(&self, offset: u64, data: &mut [u8]) {
            data.fill(offset as u8);
        }
        fn write(&self, offset: u64, data: &[u8]) {
            self.writes.lock().unwrap().push((offset, data.to_vec()));
        }
    }

    fn range(base: u64, length: u64) -> BusRange {
        BusRange { base, length }
    }

    #[test]
    fn the_base_address_of_an_access_selects_the_device() {
        let (first, second) = (Arc::new(Recorder::default()), Arc::new(Recorder::default()));
        let mut bus = Bus::new();
        bus.insert(range(0x20, 0x10), second.clone()).unwrap();
        bus.insert(range(0x10, 0x10), first.clone()).unwrap();
        bus.write(0x1f, &[1, 2, 3, 4]);
        bus.write(0x20, &[5]);
        assert_eq!(*first.writes.lock().unwrap(), [(0xf, vec![1, 2, 3, 4])]);
        assert_eq!(*second.writes.lock().unwrap(), [(0, vec![5])]);
    }

    #[test]
    fn unclaimed_addresses_read_as_ones_and_take_writes() {
        let mut bus = Bus::new();
        bus.insert(range(0x10, 1), Arc::new(Recorder::default())).unwrap();
        for address in [0, 0xf, 0x11, u64::MAX] {
            let mut data = [0; 8];
            bus.read(address, &mut data);
            assert_eq!(data, [0xff; 8]);
            bus.write(address, &data);
        }
    }

    #[test]
    fn overlapping_empty_and_wrapping_ranges_are_refused() {
        let device = || Arc::new(Recorder::default());
        let mut bus = Bus::new();
        bus.insert(range(0x10, 0x10), device()).unwrap();
        for bad in [range(0x10, 1), range(0x1f, 1), range(0, 0x11), range(0x15, 0x100)] {
            assert!(matches!(bus.insert(bad, device()), Err(BusError::Overlap { .. })), "{bad}");
        }
        for bad in [range(0, 0), range(u64::MAX, 2)] {
            assert_eq!(bus.insert(bad, device()), Err(BusError::BadRange(bad)));
        }
        bus.insert(range(0x20, 1), device()).unwrap();
        bus.insert(range(0, 0x10), device()).unwrap();
        bus.insert(range(u64::MAX, 1), device()).unwrap();
    }
}
