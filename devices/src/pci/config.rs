//! The configuration space of one function: 256 bytes, each with a mask of what the guest may write.
//!
//! ```text
//!   00 vendor, device      10 BAR 0 .. BAR 5
//!   04 command, status     2c subsystem vendor, subsystem
//!   08 revision, class     34 first capability
//!   0c .., header type     40 capabilities ─► next ─► ...
//! ```
//!
//! Write masks do most of the work: the low bits of a BAR are read-only, so writing ones and reading
//! back gives its size, as PCI Local Bus 3.0 section 6.2.5.1 has it.

use super::{BarIndex, BarKind, BarSpec, DecodedBar, Decoding, PciError};

const CONFIG_BYTES: usize = 256;
const COMMAND: usize = 0x04;
const STATUS: usize = 0x06;
const BARS: usize = 0x10;
const BARS_END: usize = 0x28;
const CAPABILITY_POINTER: usize = 0x34;
const FIRST_CAPABILITY: usize = 0x40;

const COMMAND_MEMORY: u8 = 1 << 1;
/// Memory space, bus master, interrupt disable. No port BARs exist, so port decoding stays off.
const COMMAND_WRITABLE: u16 = 1 << 1 | 1 << 2 | 1 << 10;
const STATUS_CAPABILITIES: u8 = 1 << 4;
/// BAR bits 2:1 of a memory BAR that takes two registers.
const BAR_TYPE_64: u32 = 0b100;
/// Type bits of a memory BAR.
const BAR_TYPE_MASK: u64 = 0xf;

/// Who a function is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Vendor.
    pub vendor: u16,
    /// Device.
    pub device: u16,
    /// Revision.
    pub revision: u8,
    /// Base class, sub-class and programming interface, as in `0x01_80_00`.
    pub class: u32,
    /// Subsystem vendor.
    pub subsystem_vendor: u16,
    /// Subsystem.
    pub subsystem: u16,
}

/// The configuration space of one function.
#[derive(Debug, Clone)]
pub struct PciConfig {
    bytes: [u8; CONFIG_BYTES],
    writable: [u8; CONFIG_BYTES],
    bars: Vec<BarSpec>,
    /// Where the pointer to the next capability goes.
    last_link: usize,
    /// First free byte for a capability.
    free: usize,
}

impl PciConfig {
    /// A function without BARs and capabilities, header type 0, no legacy interrupt pin.
    pub fn new(identity: &Identity) -> PciConfig {
        let mut config = PciConfig {
            bytes: [0; CONFIG_BYTES],
            writable: [0; CONFIG_BYTES],
            bars: Vec::new(),
            last_link: CAPABILITY_POINTER,
            free: FIRST_CAPABILITY,
        };
        config.set(0x00, &identity.vendor.to_le_bytes());
        config.set(0x02, &identity.device.to_le_bytes());
        config.set(0x08, &(identity.class << 8 | u32::from(identity.revision)).to_le_bytes());
        config.set(0x2c, &identity.subsystem_vendor.to_le_bytes());
        config.set(0x2e, &identity.subsystem.to_le_bytes());
        config.allow(COMMAND, &COMMAND_WRITABLE.to_le_bytes());
        // Cache line size and interrupt line are scratch registers for the guest.
        config.allow(0x0c, &[0xff]);
        config.allow(0x3c, &[0xff]);
        config
    }

    /// Adds a BAR at address 0.
    pub fn add_bar(&mut self, spec: BarSpec) -> Result<(), PciError> {
        let bad = PciError::BadBar { index: spec.index.get(), size: spec.size };
        let (registers, limit) = match spec.kind {
            BarKind::Memory32 => (1, 1 << 31),
            BarKind::Memory64 => (2, 1 << 62),
        };
        let registers = spec.index.get()..spec.index.get() + registers;
        let taken = self
            .bars
            .iter()
            .any(|bar| bar.registers().any(|register| registers.contains(&register)));
        if !spec.size.is_power_of_two()
            || !(16..=limit).contains(&spec.size)
            || registers.end > 6
            || taken
        {
            return Err(bad);
        }
        let offset = spec.offset();
        let mask = !(spec.size - 1);
        match spec.kind {
            BarKind::Memory32 => self.allow(offset, &(mask as u32).to_le_bytes()),
            BarKind::Memory64 => {
                self.set(offset, &BAR_TYPE_64.to_le_bytes());
                self.allow(offset, &mask.to_le_bytes());
            }
        }
        self.bars.push(spec);
        Ok(())
    }

    /// Adds a capability; `body` is what follows the identifier and the link, `writable` its mask.
    /// Returns the offset of the identifier.
    pub fn add_capability(
        &mut self,
        id: u8,
        body: &[u8],
        writable: &[u8],
    ) -> Result<u16, PciError> {
        let offset = self.free;
        let end = offset + 2 + body.len();
        if end > CONFIG_BYTES || writable.len() > body.len() {
            return Err(PciError::NoRoomForCapability { id, length: body.len() + 2 });
        }
        self.bytes[STATUS] |= STATUS_CAPABILITIES;
        self.bytes[self.last_link] = offset as u8;
        self.set(offset, &[id, 0]);
        self.set(offset + 2, body);
        self.allow(offset + 2, writable);
        self.last_link = offset + 1;
        self.free = end.next_multiple_of(4);
        Ok(offset as u16)
    }

    /// The BARs, in the order they were added.
    pub fn bars(&self) -> &[BarSpec] {
        &self.bars
    }

    /// Presets the address of a BAR; bits that the register does not have are dropped.
    pub fn place_bar(&mut self, index: BarIndex, address: u64) {
        let Some(spec) = self.bars.iter().find(|bar| bar.index == index) else {
            return;
        };
        let (offset, bytes) = (spec.offset(), address.to_le_bytes());
        let width = 4 * spec.registers().count();
        self.write_masked(offset, &bytes[..width]);
    }

    /// Where the BARs answer now; none while memory decoding is off.
    pub fn decoded_bars(&self) -> impl Iterator<Item = DecodedBar> + '_ {
        let enabled = self.bytes[COMMAND] & COMMAND_MEMORY != 0;
        self.bars.iter().filter(move |_| enabled).map(|bar| {
            let address = self.bar_address(bar);
            // Addresses are multiples of the size, so this does not wrap.
            DecodedBar { index: bar.index, address, last: address + (bar.size - 1) }
        })
    }

    /// Reads any bytes; ones beyond the end.
    pub fn read(&self, offset: u16, data: &mut [u8]) {
        for (index, byte) in data.iter_mut().enumerate() {
            *byte = self.bytes.get(usize::from(offset) + index).copied().unwrap_or(0xff);
        }
    }

    /// Writes any bytes; only writable bits change.
    pub fn write(&mut self, offset: u16, data: &[u8]) -> Decoding {
        let offset = usize::from(offset);
        let end = offset + data.len();
        let touches = |start: usize, limit: usize| offset < limit && end > start;
        if !touches(COMMAND, COMMAND + 2) && !touches(BARS, BARS_END) {
            self.write_masked(offset, data);
            return Decoding::Unchanged;
        }
        let before: Vec<DecodedBar> = self.decoded_bars().collect();
        self.write_masked(offset, data);
        if self.decoded_bars().eq(before) { Decoding::Unchanged } else { Decoding::Changed }
    }

    /// A 16-bit register.
    pub fn read_u16(&self, offset: u16) -> u16 {
        let mut bytes = [0; 2];
        self.read(offset, &mut bytes);
        u16::from_le_bytes(bytes)
    }

    /// A 32-bit register.
    pub fn read_u32(&self, offset: u16) -> u32 {
        let mut bytes = [0; 4];
        self.read(offset, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    fn bar_address(&self, bar: &BarSpec) -> u64 {
        let low = u64::from(self.read_u32(bar.offset() as u16)) & !BAR_TYPE_MASK;
        match bar.kind {
            BarKind::Memory32 => low,
            BarKind::Memory64 => low | u64::from(self.read_u32(bar.offset() as u16 + 4)) << 32,
        }
    }

    fn write_masked(&mut self, offset: usize, data: &[u8]) {
        let registers = self.bytes.iter_mut().zip(&self.writable).skip(offset);
        for ((byte, mask), value) in registers.zip(data) {
            *byte = *byte & !mask | value & mask;
        }
    }

    fn set(&mut self, offset: usize, value: &[u8]) {
        self.bytes[offset..offset + value.len()].copy_from_slice(value);
    }

    fn allow(&mut self, offset: usize, mask: &[u8]) {
        self.writable[offset..offset + mask.len()].copy_from_slice(mask);
    }
}

impl BarSpec {
    /// Offset of the register in configuration space.
    fn offset(&self) -> usize {
        BARS + 4 * usize::from(self.index.get())
    }

    /// The registers it takes.
    fn registers(&self) -> std::ops::Range<u8> {
        let count = match self.kind {
            BarKind::Memory32 => 1,
            BarKind::Memory64 => 2,
        };
        self.index.get()..self.index.get() + count
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BAR0: BarIndex = BarIndex::new(0).unwrap();
    const BAR2: BarIndex = BarIndex::new(2).unwrap();

    fn config() -> PciConfig {
        let mut config = PciConfig::new(&Identity {
            vendor: 0x1af4,
            device: 0x1042,
            revision: 1,
            class: 0x01_80_00,
            subsystem_vendor: 0x1af4,
            subsystem: 0x40,
        });
        config.add_bar(BarSpec { index: BAR0, kind: BarKind::Memory64, size: 0x8000 }).unwrap();
        config.add_bar(BarSpec { index: BAR2, kind: BarKind::Memory32, size: 0x1000 }).unwrap();
        config
    }

    fn write_u32(config: &mut PciConfig, offset: u16, value: u32) -> Decoding {
        config.write(offset, &value.to_le_bytes())
    }

    #[test]
    fn identity_is_read_only() {
        let mut config = config();
        let _ = config.write(0, &[0xff; 4]);
        let _ = config.write(8, &[0xff; 4]);
        assert_eq!(config.read_u32(0), 0x1042_1af4);
        assert_eq!(config.read_u32(8), 0x0180_0001);
        assert_eq!(config.read_u32(0x2c), 0x0040_1af4);
    }

    #[test]
    fn writing_ones_to_a_bar_gives_its_size() {
        let mut config = config();
        for offset in [0x10, 0x14, 0x18, 0x1c, 0x20, 0x24, 0x30] {
            let _ = write_u32(&mut config, offset, 0xffff_ffff);
        }
        assert_eq!(config.read_u32(0x10), 0xffff_8004);
        assert_eq!(config.read_u32(0x14), 0xffff_ffff);
        assert_eq!(config.read_u32(0x18), 0xffff_f000);
        for offset in [0x1c, 0x20, 0x24, 0x30] {
            assert_eq!(config.read_u32(offset), 0, "no BAR at {offset:#x}");
        }
    }

    #[test]
    fn bars_decode_only_with_the_enable_bit_and_follow_the_register() {
        let mut config = config();
        assert_eq!(write_u32(&mut config, 0x10, 0x1234_8000), Decoding::Unchanged);
        assert_eq!(write_u32(&mut config, 0x14, 0x80), Decoding::Unchanged);
        assert_eq!(config.decoded_bars().count(), 0);
        assert_eq!(config.write(4, &[2]), Decoding::Changed);
        let bar = config.decoded_bars().next().unwrap();
        assert_eq!((bar.address, bar.last), (0x80_1234_8000, 0x80_1234_ffff));
        assert_eq!(config.write(0x14, &[0x81]), Decoding::Changed);
        assert_eq!(config.decoded_bars().next().unwrap().address, 0x81_1234_8000);
        assert_eq!(config.write(0x14, &[0x81]), Decoding::Unchanged);
        assert_eq!(config.write(4, &[0]), Decoding::Changed);
        assert_eq!(config.decoded_bars().count(), 0);
    }

    #[test]
    fn capabilities_form_a_list() {
        let mut config = config();
        assert_eq!(config.read_u16(6) & 0x10, 0);
        let first = config.add_capability(9, &[1; 14], &[]).unwrap();
        let second = config.add_capability(0x11, &[2; 9], &[0, 0xc0]).unwrap();
        assert_eq!(config.read_u16(6) & 0x10, 0x10);
        assert_eq!(config.read_u16(0x34), first);
        assert_eq!(config.read_u16(first), second << 8 | 9);
        assert_eq!(config.read_u16(second), 0x11);
        assert!(second.is_multiple_of(4));
        let _ = config.write(second, &[0xff; 16]);
        assert_eq!(config.read_u32(second), 0xc202_0011);
    }

    #[test]
    fn capabilities_that_do_not_fit_are_refused() {
        let mut config = config();
        config.add_capability(9, &[0; 180], &[]).unwrap();
        let error = config.add_capability(9, &[0; 10], &[]).unwrap_err();
        assert!(matches!(error, PciError::NoRoomForCapability { id: 9, length: 12 }), "{error}");
    }

    #[test]
    fn impossible_bars_are_refused() {
        let mut config = config();
        let bar = |index, kind, size| BarSpec { index: BarIndex::new(index).unwrap(), kind, size };
        for spec in [
            bar(1, BarKind::Memory32, 0x1000),
            bar(2, BarKind::Memory32, 0x1000),
            bar(5, BarKind::Memory64, 0x1000),
            bar(3, BarKind::Memory32, 0x1800),
            bar(3, BarKind::Memory32, 8),
            bar(3, BarKind::Memory32, 1 << 32),
            bar(3, BarKind::Memory64, 1 << 63),
        ] {
            config.add_bar(spec).unwrap_err();
        }
    }

    proptest! {
        #[test]
        fn any_access_is_harmless_and_keeps_read_only_bits(
            accesses in proptest::collection::vec((any::<u16>(), proptest::collection::vec(any::<u8>(), 0..16)), 1..50)
        ) {
            let fresh = config();
            let mut config = fresh.clone();
            for (offset, data) in accesses {
                let offset = offset % 300;
                let _ = config.write(offset, &data);
                let mut read = data.clone();
                config.read(offset, &mut read);
                for bar in config.decoded_bars() {
                    prop_assert!(bar.last > bar.address);
                }
            }
            for index in 0..CONFIG_BYTES {
                let kept = !config.writable[index];
                prop_assert_eq!(config.bytes[index] & kept, fresh.bytes[index] & kept);
            }
        }
    }
}
