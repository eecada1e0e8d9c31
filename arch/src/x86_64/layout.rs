//! The memory map and the port map of the machine.
//!
//! ```text
//!  0x0000_0000_0000  RAM (boot structures below 640 KiB, see the table of constants)
//!  0x0000_000a_0000  hole: nothing (the place of VGA memory and option ROMs)
//!  0x0000_000e_0000  firmware tables: ACPI, then SMBIOS at 0xf_0000 (RAM, but reserved)
//!  0x0000_0010_0000  RAM: kernel from here up, initrd at the top
//!  0x0000_c000_0000  PCI memory window, 32-bit BARs (512 MiB)
//!  0x0000_e000_0000  PCI Express configuration space, ECAM (256 MiB, segment 0, buses 0..=255)
//!  0x0000_fec0_0000  I/O APIC
//!  0x0000_fee0_0000  local APICs
//!  0x0000_fffb_c000  KVM's identity map page and TSS pages (Intel hosts)
//!  0x0001_0000_0000  RAM above 4 GiB
//!  ...               persistent memory, at 2 MiB boundaries
//!  ...               PCI memory window, 64-bit BARs, up to the end of the address space
//! ```

use crate::memory::{GuestAddress, GuestRange, align_down, align_up};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// A page of guest memory, in bytes.
pub const PAGE_SIZE: u64 = 4 * KIB;

/// A huge page of guest memory, in bytes.
pub const HUGE_PAGE_SIZE: u64 = 2 * MIB;

/// End of the memory that a PC calls conventional. The last KiB is left to the extended BIOS data
/// area, where operating systems expect it.
pub const CONVENTIONAL_END: GuestAddress = GuestAddress(0x9_fc00);
/// Where RAM that a kernel may be loaded into begins.
pub const HIGH_RAM_START: GuestAddress = GuestAddress(MIB);
/// Where RAM below 4 GiB ends at the latest.
pub const LOW_RAM_END: GuestAddress = GuestAddress(3 * GIB);
/// Where RAM that does not fit below the hole continues.
pub const RAM_ABOVE_4G: GuestAddress = GuestAddress(4 * GIB);
/// The least memory a machine can have: room for the tables below 1 MiB and a small kernel.
pub const MIN_MEMORY: u64 = 2 * MIB;

/// The global descriptor table of the first processor.
pub const GDT: GuestAddress = GuestAddress(0x500);
/// PVH start info, with its module list and memory map behind it.
pub const PVH_START_INFO: GuestAddress = GuestAddress(0x6000);
/// `struct boot_params`, the zero page of the Linux boot protocol.
pub const ZERO_PAGE: GuestAddress = GuestAddress(0x7000);
/// Page tables of the 64-bit entry: six pages.
pub const PAGE_TABLES: GuestAddress = GuestAddress(0x9000);
/// The kernel command line: up to 64 KiB with its terminator.
pub const COMMAND_LINE: GuestRange = GuestRange::between(0x2_0000, 0x3_0000);
/// ACPI tables: in the area that operating systems search for the RSDP (ACPI 6.5, 5.2.5.1).
pub const ACPI_TABLES: GuestRange = GuestRange::between(0xe_0000, 0xf_0000);
/// SMBIOS: in the area that operating systems search for its entry point (SMBIOS 3.7, 5.2.2).
pub const SMBIOS_TABLES: GuestRange = GuestRange::between(0xf_0000, 0x10_0000);

/// The window of 32-bit PCI BARs.
pub const PCI_MMIO32: GuestRange = GuestRange::between(0xc000_0000, 0xe000_0000);
/// PCI Express configuration space (ECAM): 1 MiB for each of the buses 0 to 255 of segment 0.
pub const ECAM: GuestRange = GuestRange::between(0xe000_0000, 0xf000_0000);
/// The I/O APIC's registers.
pub const IOAPIC: GuestRange = GuestRange::between(0xfec0_0000, 0xfec0_1000);
/// The local APIC's registers of whichever processor looks.
pub const LOCAL_APIC: GuestRange = GuestRange::between(0xfee0_0000, 0xfee0_1000);
/// The page that `KVM_SET_IDENTITY_MAP_ADDR` wants.
pub const KVM_IDENTITY_MAP: GuestRange = GuestRange::between(0xfffb_c000, 0xfffb_d000);
/// The three pages that `KVM_SET_TSS_ADDR` wants.
pub const KVM_TSS: GuestRange = GuestRange::between(0xfffb_d000, 0xfffc_0000);

/// I/O ports, and the interrupts (GSIs) of the devices behind them.
pub mod ports {
    /// COM1, a 16550: eight ports.
    pub const COM1: u16 = 0x3f8;
    /// COM1's interrupt.
    pub const COM1_IRQ: u8 = 4;
    /// CMOS RAM and real-time clock: index and data port.
    pub const CMOS: u16 = 0x70;
    /// The real-time clock's interrupt.
    pub const RTC_IRQ: u8 = 8;
    /// Keyboard controller, data port.
    pub const I8042_DATA: u16 = 0x60;
    /// Keyboard controller, command and status port.
    pub const I8042_COMMAND: u16 = 0x64;
    /// The keyboard's interrupt.
    pub const KEYBOARD_IRQ: u8 = 1;
    /// Debug console: each byte written is a character.
    pub const DEBUGCON: u16 = 0x402;
    /// The debug console, where early code of kernels and hypervisors looks for it.
    pub const DEBUGCON_E9: u16 = 0xe9;
    /// The pvpanic device.
    pub const PVPANIC: u16 = 0x505;
    /// ACPI PM1 event block: status word, enable word.
    pub const ACPI_PM1_EVENT: u16 = 0x600;
    /// ACPI PM1 control word.
    pub const ACPI_PM1_CONTROL: u16 = 0x604;
    /// ACPI power management timer, a double word.
    pub const ACPI_PM_TIMER: u16 = 0x608;
    /// The interrupt of ACPI events (SCI).
    pub const ACPI_SCI_IRQ: u8 = 9;
    /// The value of `SLP_TYP` in PM1 control that powers the machine off (`_S5`).
    pub const ACPI_S5_SLEEP_TYPE: u8 = 5;
    /// The watchdog, four double words.
    pub const WATCHDOG: u16 = 0x620;
    /// The reset register.
    pub const RESET: u16 = 0xcf9;
    /// What to write to [`RESET`] to reset the machine.
    pub const RESET_VALUE: u8 = 0x06;
    /// PCI configuration address, a double word.
    pub const PCI_CONFIG_ADDRESS: u16 = 0xcf8;
    /// PCI configuration data, a double word.
    pub const PCI_CONFIG_DATA: u16 = 0xcfc;
}

/// The 64-bit window takes this part of the address space...
const MMIO64_SHARE: u64 = 4;
/// ...but not more than this: enough for the largest accelerators' BARs many times over.
const MMIO64_MAX: u64 = 1 << 40;
/// A window below this size is of no use, and its bounds are multiples of it.
const MMIO64_MIN: u64 = GIB;
/// The widest address the window uses: what four-level paging kernels can reach.
const MMIO64_ADDRESS_BITS: u8 = 46;

/// Why a memory size makes no machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// Less than [`MIN_MEMORY`].
    #[error("{size} bytes of memory are too few: the machine needs at least {MIN_MEMORY}")]
    TooSmall {
        /// What was asked for, in bytes.
        size: u64,
    },
    /// Not a whole number of pages.
    #[error("{size} bytes of memory are not a multiple of the page size ({PAGE_SIZE} bytes)")]
    NotPages {
        /// What was asked for, in bytes.
        size: u64,
    },
    /// No place for the memory and a PCI window in the processor's physical address space.
    #[error(
        "{size} bytes of memory and a PCI window do not fit into the {address_bits}-bit physical \
         address space of the processor"
    )]
    TooLarge {
        /// What was asked for, in bytes.
        size: u64,
        /// Width of a guest physical address.
        address_bits: u8,
    },
}

/// The machine's RAM: one range below the 32-bit hole and, where there is more, one above 4 GiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ram {
    size: u64,
}

impl Ram {
    /// RAM of `size` bytes, a multiple of the page size.
    pub fn new(size: u64) -> Result<Self, LayoutError> {
        if size < MIN_MEMORY {
            return Err(LayoutError::TooSmall { size });
        }
        if !size.is_multiple_of(PAGE_SIZE) {
            return Err(LayoutError::NotPages { size });
        }
        if size > 1 << MMIO64_ADDRESS_BITS {
            return Err(LayoutError::TooLarge { size, address_bits: MMIO64_ADDRESS_BITS });
        }
        Ok(Self { size })
    }

    /// Its size in bytes.
    #[must_use]
    pub fn size(self) -> u64 {
        self.size
    }

    /// The part below the hole; it begins at address 0.
    #[must_use]
    pub fn low(self) -> GuestRange {
        GuestRange::between(0, self.size.min(LOW_RAM_END.0))
    }

    /// The part above 4 GiB.
    #[must_use]
    pub fn high(self) -> Option<GuestRange> {
        let length = self.size.checked_sub(LOW_RAM_END.0).filter(|&length| length > 0)?;
        GuestRange::new(RAM_ABOVE_4G, length)
    }

    /// Both parts, lowest first.
    pub fn ranges(self) -> impl Iterator<Item = GuestRange> {
        std::iter::once(self.low()).chain(self.high())
    }

    /// The first address behind all of it.
    #[must_use]
    pub fn end(self) -> GuestAddress {
        self.high().unwrap_or(self.low()).end()
    }

    /// Whether `range` is RAM from its first to its last byte.
    #[must_use]
    pub fn covers(self, range: GuestRange) -> bool {
        self.ranges().any(|ram| ram.covers(range))
    }

    /// The window of 64-bit PCI BARs: the top of an address space of `address_bits` bits (CPUID
    /// leaf `0x8000_0008`, EAX bits 7:0; Intel SDM volume 2A, CPUID), above the RAM.
    pub fn mmio64_window(self, address_bits: u8) -> Result<GuestRange, LayoutError> {
        self.mmio64_window_above(self.end(), address_bits)
    }

    /// Places for memory that is no RAM, of these lengths: one behind the other above 4 GiB and all
    /// RAM, at 2 MiB boundaries.
    pub fn places_above(self, lengths: &[u64]) -> Result<Vec<GuestRange>, LayoutError> {
        let address_bits = MMIO64_ADDRESS_BITS;
        let too_large = LayoutError::TooLarge { size: self.size, address_bits };
        let mut next = self.end().0.max(RAM_ABOVE_4G.0);
        let place = |length: &u64| {
            let start = align_up(next, HUGE_PAGE_SIZE)?;
            let range = GuestRange::new(GuestAddress(start), *length)?;
            next = range.end().0;
            (next <= 1 << address_bits).then_some(range)
        };
        lengths.iter().map(place).collect::<Option<_>>().ok_or(too_large)
    }

    /// As [`Ram::mmio64_window`], above `used` as well.
    pub fn mmio64_window_above(
        self,
        used: GuestAddress,
        address_bits: u8,
    ) -> Result<GuestRange, LayoutError> {
        let too_large = LayoutError::TooLarge { size: self.size, address_bits };
        let end = 1_u64 << address_bits.min(MMIO64_ADDRESS_BITS);
        let wanted = (end / MMIO64_SHARE).min(MMIO64_MAX);
        let above_ram =
            align_up(used.max(self.end()).0.max(RAM_ABOVE_4G.0), MMIO64_MIN).ok_or(too_large)?;
        let start = align_down(end - wanted, MMIO64_MIN).max(above_ram);
        if end.checked_sub(start).is_none_or(|length| length < MMIO64_MIN) {
            return Err(too_large);
        }
        Ok(GuestRange::between(start, end))
    }

    /// The memory map for the operating system, in the order of addresses (ACPI 6.5, 15.1).
    #[must_use]
    pub fn e820(self) -> Vec<E820Entry> {
        let ram = |range| E820Entry { range, kind: E820Kind::Ram };
        let reserved = |range| E820Entry { range, kind: E820Kind::Reserved };
        let mut map = vec![
            ram(GuestRange::between(0, CONVENTIONAL_END.0)),
            reserved(GuestRange::between(CONVENTIONAL_END.0, 0xa_0000)),
            reserved(GuestRange::between(ACPI_TABLES.start().0, SMBIOS_TABLES.end().0)),
            ram(GuestRange::between(HIGH_RAM_START.0, self.low().end().0)),
            // Linux uses ECAM only where the memory map or ACPI says that it is taken.
            reserved(ECAM),
            reserved(GuestRange::between(KVM_IDENTITY_MAP.start().0, KVM_TSS.end().0)),
        ];
        map.extend(self.high().map(ram));
        map
    }
}

/// What a range of the memory map is (ACPI 6.5, table 15.4); the value is the number in the map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum E820Kind {
    /// `AddressRangeMemory`: RAM for the operating system's use.
    Ram = 1,
    /// `AddressRangeReserved`: not to be used.
    Reserved = 2,
}

/// A range of the memory map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct E820Entry {
    /// Its addresses.
    pub range: GuestRange,
    /// What it is.
    pub kind: E820Kind,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_memory_is_one_range() {
        let ram = Ram::new(256 * MIB).unwrap();
        assert_eq!(ram.ranges().collect::<Vec<_>>(), [GuestRange::between(0, 256 * MIB)]);
        assert_eq!(ram.end(), GuestAddress(256 * MIB));
    }

    #[test]
    fn memory_beyond_the_hole_continues_at_4_gib() {
        let ram = Ram::new(6 * GIB).unwrap();
        assert_eq!(
            ram.ranges().collect::<Vec<_>>(),
            [GuestRange::between(0, 3 * GIB), GuestRange::between(4 * GIB, 7 * GIB)]
        );
        assert!(ram.covers(GuestRange::between(4 * GIB, 7 * GIB)));
        assert!(!ram.covers(GuestRange::between(3 * GIB - 1, 3 * GIB + 1)));
        assert!(!ram.covers(GuestRange::between(2 * GIB, 5 * GIB)));
    }

    #[test]
    fn exactly_3_gib_leaves_nothing_above() {
        let ram = Ram::new(3 * GIB).unwrap();
        assert_eq!(ram.high(), None);
        assert_eq!(ram.ranges().map(GuestRange::length).sum::<u64>(), 3 * GIB);
    }

    #[test]
    fn sizes_that_make_no_machine_are_refused() {
        for size in [0, 1, PAGE_SIZE, MIN_MEMORY - 1] {
            assert_eq!(Ram::new(size), Err(LayoutError::TooSmall { size }));
        }
        let size = MIN_MEMORY + 1;
        assert_eq!(Ram::new(size), Err(LayoutError::NotPages { size }));
        assert!(matches!(Ram::new(u64::MAX - 4095), Err(LayoutError::TooLarge { .. })));
    }

    #[test]
    fn the_64_bit_window_is_at_the_top_and_above_ram() {
        let ram = Ram::new(512 * MIB).unwrap();
        let window = ram.mmio64_window(39).unwrap();
        assert_eq!(window, GuestRange::between(3 << 37, 1 << 39));
        let window = ram.mmio64_window(52).unwrap();
        assert_eq!(window.end(), GuestAddress(1 << 46));
        assert_eq!(window.length(), MMIO64_MAX);
    }

    #[test]
    fn the_64_bit_window_gives_way_to_ram_until_nothing_is_left() {
        let ram = Ram::new(60 * GIB).unwrap();
        assert_eq!(ram.mmio64_window(36).unwrap(), GuestRange::between(61 * GIB, 64 * GIB));
        for size in [63 * GIB, 64 * GIB, 100 * GIB] {
            let refused = Ram::new(size).unwrap().mmio64_window(36);
            assert_eq!(refused, Err(LayoutError::TooLarge { size, address_bits: 36 }));
        }
        assert!(Ram::new(MIN_MEMORY).unwrap().mmio64_window(32).is_err());
        assert!(Ram::new(MIN_MEMORY).unwrap().mmio64_window(0).is_err());
    }

    #[test]
    fn other_memory_is_above_ram_and_below_the_window() {
        let lengths = [2 * MIB, 4096, GIB];
        for size in [MIN_MEMORY, 3 * GIB, 6 * GIB + PAGE_SIZE] {
            let ram = Ram::new(size).unwrap();
            let places = ram.places_above(&lengths).unwrap();
            let mut end = ram.end().0.max(4 * GIB);
            for (place, length) in places.iter().zip(lengths) {
                assert!(place.start().0 >= end && place.start().0.is_multiple_of(2 * MIB));
                assert_eq!(place.length(), length);
                end = place.end().0;
            }
            let window = ram.mmio64_window_above(GuestAddress(end), 36).unwrap();
            assert!(window.start().0 >= end);
        }
        let ram = Ram::new(MIN_MEMORY).unwrap();
        assert!(ram.places_above(&[]).unwrap().is_empty());
        for lengths in [vec![1 << 46], vec![u64::MAX], vec![1 << 45, 1 << 45]] {
            assert!(ram.places_above(&lengths).is_err());
        }
        assert!(ram.mmio64_window_above(GuestAddress(64 * GIB), 36).is_err());
    }

    #[test]
    fn the_memory_map_is_sorted_disjoint_and_tells_of_all_ram() {
        for size in [MIN_MEMORY, 64 * MIB, 3 * GIB, 3 * GIB + PAGE_SIZE, 1 << 40] {
            let ram = Ram::new(size).unwrap();
            let map = ram.e820();
            for pair in map.windows(2) {
                assert!(pair[0].range.end() <= pair[1].range.start(), "{pair:?}");
            }
            let told: u64 = map
                .iter()
                .filter(|entry| entry.kind == E820Kind::Ram)
                .map(|entry| entry.range.length())
                .sum();
            let below_1_mib_lost = HIGH_RAM_START.0 - CONVENTIONAL_END.0;
            assert_eq!(told, size - below_1_mib_lost);
        }
    }

    #[test]
    fn boot_structures_do_not_overlap() {
        let places = [
            GuestRange::between(GDT.0, GDT.0 + 0x100),
            GuestRange::between(PVH_START_INFO.0, PVH_START_INFO.0 + PAGE_SIZE),
            GuestRange::between(ZERO_PAGE.0, ZERO_PAGE.0 + PAGE_SIZE),
            GuestRange::between(PAGE_TABLES.0, PAGE_TABLES.0 + 6 * PAGE_SIZE),
            COMMAND_LINE,
            GuestRange::between(CONVENTIONAL_END.0, 0xa_0000),
            ACPI_TABLES,
            SMBIOS_TABLES,
        ];
        for pair in places.windows(2) {
            assert!(pair[0].end() <= pair[1].start(), "{pair:?}");
        }
    }
}
