//! What the loader tells: the zero page of the Linux boot protocol, as far as this guest reads it.

use core::ops::Range;

/// Bytes of the zero page.
pub(crate) const BYTES: usize = 4096;
/// The longest command line that is read; Linux reads 2048 bytes.
pub(crate) const COMMAND_LINE_LIMIT: usize = 4096;

const ACPI_RSDP: usize = 0x070;
const EXTENDED_COMMAND_LINE: usize = 0x0c8;
const E820_ENTRIES: usize = 0x1e8;
const RAMDISK_IMAGE: usize = 0x218;
const RAMDISK_SIZE: usize = 0x21c;
const COMMAND_LINE: usize = 0x228;
const E820_TABLE: usize = 0x2d0;
const E820_ENTRY_BYTES: usize = 20;
const E820_LIMIT: usize = 128;

/// The kind of usable memory in an E820 map.
pub(crate) const E820_RAM: u32 = 1;

/// A copy of the zero page.
pub(crate) struct BootParams(pub(crate) [u8; BYTES]);

/// A range of the E820 map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MemoryRange {
    pub(crate) start: u64,
    pub(crate) length: u64,
    pub(crate) kind: u32,
}

impl MemoryRange {
    /// Its addresses, unless it reaches beyond the last one.
    pub(crate) fn addresses(self) -> Option<Range<u64>> {
        Some(self.start..self.start.checked_add(self.length)?)
    }
}

impl BootParams {
    pub(crate) fn rsdp(&self) -> Option<u64> {
        Some(self.u64_at(ACPI_RSDP)).filter(|address| *address != 0)
    }

    pub(crate) fn command_line(&self) -> Option<u64> {
        let high = u64::from(self.u32_at(EXTENDED_COMMAND_LINE));
        let address = high << 32 | u64::from(self.u32_at(COMMAND_LINE));
        Some(address).filter(|address| *address != 0)
    }

    pub(crate) fn ramdisk(&self) -> Range<u64> {
        let start = u64::from(self.u32_at(RAMDISK_IMAGE));
        start..start + u64::from(self.u32_at(RAMDISK_SIZE))
    }

    pub(crate) fn memory(&self) -> impl Iterator<Item = MemoryRange> {
        let entries = usize::from(self.0[E820_ENTRIES]).min(E820_LIMIT);
        (0..entries).map(|index| {
            let entry = E820_TABLE + index * E820_ENTRY_BYTES;
            MemoryRange {
                start: self.u64_at(entry),
                length: self.u64_at(entry + 8),
                kind: self.u32_at(entry + 16),
            }
        })
    }

    /// The addresses of usable memory.
    pub(crate) fn ram(&self) -> impl Iterator<Item = Range<u64>> {
        self.memory().filter(|range| range.kind == E820_RAM).filter_map(MemoryRange::addresses)
    }

    fn u32_at(&self, offset: usize) -> u32 {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&self.0[offset..offset + 4]);
        u32::from_le_bytes(bytes)
    }

    fn u64_at(&self, offset: usize) -> u64 {
        u64::from(self.u32_at(offset + 4)) << 32 | u64::from(self.u32_at(offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(offset: usize, bytes: &[u8], params: &mut BootParams) {
        params.0[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    #[test]
    fn reads_what_a_loader_wrote() {
        let mut params = BootParams([0; BYTES]);
        assert_eq!(params.rsdp(), None);
        assert_eq!(params.command_line(), None);
        assert_eq!(params.memory().count(), 0);
        with(ACPI_RSDP, &0xe_0000_u64.to_le_bytes(), &mut params);
        with(COMMAND_LINE, &0x2_0000_u32.to_le_bytes(), &mut params);
        with(E820_ENTRIES, &[2], &mut params);
        with(E820_TABLE + 8, &0x9_fc00_u64.to_le_bytes(), &mut params);
        with(E820_TABLE + 16, &1_u32.to_le_bytes(), &mut params);
        with(E820_TABLE + 20, &(u64::MAX - 1).to_le_bytes(), &mut params);
        with(E820_TABLE + 28, &16_u64.to_le_bytes(), &mut params);
        with(E820_TABLE + 36, &1_u32.to_le_bytes(), &mut params);
        assert_eq!(params.rsdp(), Some(0xe_0000));
        assert_eq!(params.command_line(), Some(0x2_0000));
        assert_eq!(params.memory().count(), 2);
        // The second range wraps around and is no memory.
        assert_eq!(params.ram().collect::<Vec<_>>(), vec![0..0x9_fc00]);
    }

    #[test]
    fn reads_no_more_ranges_than_the_page_has_room_for() {
        let mut params = BootParams([0xff; BYTES]);
        with(E820_ENTRIES, &[255], &mut params);
        assert_eq!(params.memory().count(), E820_LIMIT);
        assert_eq!(params.ram().count(), 0);
    }
}
