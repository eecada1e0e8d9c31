//! SMBIOS tables (DMTF DSP0134, 3.7): what the machine is called, and strings for the software in it.
//!
//! ```text
//!  0xf_0000  entry point "_SM3_" (5.2.2) ─▶ 0xf_0020  type 0   firmware
//!                                                      type 1   system
//!                                                      type 11  OEM strings, if there are any
//!                                                      type 127 end of table
//! ```

use super::layout::SMBIOS_TABLES;
use crate::memory::{Blob, GuestAddress};

/// What the tables say. Empty strings are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SmbiosConfig {
    /// Who made the machine.
    pub manufacturer: String,
    /// What it is.
    pub product: String,
    /// Which version of that.
    pub version: String,
    /// Its serial number.
    pub serial: String,
    /// Its identity: a UUID in the order in which it is written (RFC 9562).
    pub uuid: [u8; 16],
    /// Strings that mean something to the software in the machine, such as credentials.
    pub oem_strings: Vec<String>,
}

/// Why there can be no such tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SmbiosError {
    /// A zero byte would end the string early.
    #[error("an SMBIOS string has a zero byte")]
    StringHasNul,
    /// An OEM string without a character cannot be represented.
    #[error("SMBIOS OEM string number {number} is empty")]
    EmptyOemString {
        /// Which one, counted from 1.
        number: usize,
    },
    /// Strings are numbered by a byte.
    #[error("{count} SMBIOS OEM strings are too many, at most 255 are possible")]
    TooManyOemStrings {
        /// How many there are.
        count: usize,
    },
    /// The place for the tables is smaller.
    #[error("the SMBIOS tables take {length} bytes, there is room for {}", SMBIOS_TABLES.length())]
    TooLarge {
        /// Their length with the entry point.
        length: usize,
    },
}

const ENTRY_POINT_LENGTH: usize = 24;
/// The structures begin here, counted from the entry point.
const TABLE_OFFSET: usize = 32;

const TYPE_FIRMWARE: u8 = 0;
const TYPE_SYSTEM: u8 = 1;
const TYPE_OEM_STRINGS: u8 = 11;
const TYPE_END: u8 = 127;

/// Type 0, characteristics (7.1.1): bit 3, characteristics are not supported.
const CHARACTERISTICS_NOT_SUPPORTED: u64 = 1 << 3;
/// Type 0, second extension byte (7.1.2.2): the tables describe a virtual machine.
const VIRTUAL_MACHINE: u8 = 1 << 4;
/// Type 1, wake-up type (7.2.2): power switch.
const POWER_SWITCH: u8 = 6;
/// Where firmware of a PC begins, as a real-mode segment.
const FIRMWARE_SEGMENT: u16 = 0xf000;
/// The firmware is the product's; it has no date of its own. The format is fixed (7.1).
const FIRMWARE_DATE: &str = "01/01/2000";

/// Builds entry point and structures, as one piece.
pub fn build(config: &SmbiosConfig) -> Result<Blob, SmbiosError> {
    let mut table = Table::default();
    table.add(TYPE_FIRMWARE, |fields| {
        fields.string(&config.manufacturer)?;
        fields.string(&config.version)?;
        fields.word(FIRMWARE_SEGMENT);
        fields.string(FIRMWARE_DATE)?;
        // ROM size 0: 64 KiB.
        fields.byte(0);
        fields.bytes(&CHARACTERISTICS_NOT_SUPPORTED.to_le_bytes());
        fields.bytes(&[0, VIRTUAL_MACHINE]);
        // No releases of firmware and embedded controller; size as above.
        fields.bytes(&[0xff; 4]);
        fields.word(0);
        Ok(())
    })?;
    table.add(TYPE_SYSTEM, |fields| {
        for text in [&config.manufacturer, &config.product, &config.version, &config.serial] {
            fields.string(text)?;
        }
        fields.bytes(&wire_uuid(config.uuid));
        fields.byte(POWER_SWITCH);
        // No SKU number, no family.
        fields.word(0);
        Ok(())
    })?;
    let count = config.oem_strings.len();
    if count > 0 {
        let in_a_byte =
            u8::try_from(count).map_err(|_| SmbiosError::TooManyOemStrings { count })?;
        table.add(TYPE_OEM_STRINGS, |fields| {
            fields.byte(in_a_byte);
            for (index, text) in config.oem_strings.iter().enumerate() {
                if text.is_empty() {
                    return Err(SmbiosError::EmptyOemString { number: index + 1 });
                }
                fields.add_string(text)?;
            }
            Ok(())
        })?;
    }
    table.add(TYPE_END, |_| Ok(()))?;

    let address = GuestAddress(SMBIOS_TABLES.start().0);
    let mut bytes = entry_point(address.0 + TABLE_OFFSET as u64, table.bytes.len() as u32).to_vec();
    bytes.resize(TABLE_OFFSET, 0);
    bytes.extend(table.bytes);
    let blob = Blob::new(address, bytes);
    if !SMBIOS_TABLES.covers(blob.range()) {
        return Err(SmbiosError::TooLarge { length: blob.bytes.len() });
    }
    Ok(blob)
}

/// The 64-bit entry point (5.2.2).
fn entry_point(table: u64, length: u32) -> [u8; ENTRY_POINT_LENGTH] {
    let mut entry = [0; ENTRY_POINT_LENGTH];
    entry[..5].copy_from_slice(b"_SM3_");
    entry[6] = ENTRY_POINT_LENGTH as u8;
    // Version 3.7 of the specification, revision 0 of the document, revision 1 of the entry point.
    entry[7..11].copy_from_slice(&[3, 7, 0, 1]);
    entry[12..16].copy_from_slice(&length.to_le_bytes());
    entry[16..].copy_from_slice(&table.to_le_bytes());
    let sum = entry.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    entry[5] = sum.wrapping_neg();
    entry
}

/// The first three fields of a UUID are numbers, stored with the low byte first (7.2.1).
fn wire_uuid(uuid: [u8; 16]) -> [u8; 16] {
    let mut wire = uuid;
    wire[..4].reverse();
    wire[4..6].reverse();
    wire[6..8].reverse();
    wire
}

/// Structures so far.
#[derive(Default)]
struct Table {
    bytes: Vec<u8>,
    /// Handles count up.
    structures: u16,
}

impl Table {
    /// Adds a structure: header, fields, strings (6.1.2, 6.1.3).
    fn add(
        &mut self,
        kind: u8,
        fill: impl FnOnce(&mut Fields) -> Result<(), SmbiosError>,
    ) -> Result<(), SmbiosError> {
        const HEADER_LENGTH: usize = 4;
        let mut fields = Fields::default();
        fill(&mut fields)?;
        self.bytes.push(kind);
        self.bytes.push((HEADER_LENGTH + fields.formatted.len()) as u8);
        self.bytes.extend_from_slice(&self.structures.to_le_bytes());
        self.bytes.extend(fields.formatted);
        if fields.strings.is_empty() {
            self.bytes.push(0);
        }
        self.bytes.extend(fields.strings);
        self.bytes.push(0);
        self.structures += 1;
        Ok(())
    }
}

/// The fields of one structure, and the strings that they name by number.
#[derive(Default)]
struct Fields {
    formatted: Vec<u8>,
    strings: Vec<u8>,
    string_count: u8,
}

impl Fields {
    fn byte(&mut self, value: u8) {
        self.formatted.push(value);
    }

    fn word(&mut self, value: u16) {
        self.bytes(&value.to_le_bytes());
    }

    fn bytes(&mut self, values: &[u8]) {
        self.formatted.extend_from_slice(values);
    }

    /// A field with the number of `text`, or 0 if it is empty.
    fn string(&mut self, text: &str) -> Result<(), SmbiosError> {
        let number = if text.is_empty() { 0 } else { self.add_string(text)? };
        self.byte(number);
        Ok(())
    }

    /// Adds a string and returns its number.
    fn add_string(&mut self, text: &str) -> Result<u8, SmbiosError> {
        if text.as_bytes().contains(&0) {
            return Err(SmbiosError::StringHasNul);
        }
        self.strings.extend_from_slice(text.as_bytes());
        self.strings.push(0);
        self.string_count += 1;
        Ok(self.string_count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> SmbiosConfig {
        SmbiosConfig {
            manufacturer: "Maker".into(),
            product: "Machine".into(),
            version: "1".into(),
            serial: String::new(),
            uuid: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
            oem_strings: vec!["io.systemd.credential:a=b".into(), "second".into()],
        }
    }

    /// Type, formatted area and strings of each structure.
    fn structures(mut table: &[u8]) -> Vec<(u8, Vec<u8>, Vec<String>)> {
        let mut found = Vec::new();
        while !table.is_empty() {
            let (formatted, mut rest) = table.split_at(table[1] as usize);
            let mut strings = Vec::new();
            while rest[0] != 0 {
                let end = rest.iter().position(|&byte| byte == 0).unwrap();
                strings.push(String::from_utf8(rest[..end].to_vec()).unwrap());
                rest = &rest[end + 1..];
            }
            rest = &rest[if strings.is_empty() { 2 } else { 1 }..];
            found.push((formatted[0], formatted.to_vec(), strings));
            table = rest;
        }
        found
    }

    #[test]
    fn the_entry_point_leads_to_the_whole_table() {
        let blob = build(&config()).unwrap();
        let entry = &blob.bytes[..ENTRY_POINT_LENGTH];
        assert_eq!(&entry[..5], b"_SM3_");
        assert_eq!(entry.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)), 0);
        let length = u32::from_le_bytes(entry[12..16].try_into().unwrap()) as usize;
        let address = u64::from_le_bytes(entry[16..24].try_into().unwrap());
        assert_eq!(address, blob.address.0 + TABLE_OFFSET as u64);
        assert_eq!(blob.bytes.len(), TABLE_OFFSET + length);
    }

    #[test]
    fn the_structures_say_what_was_configured() {
        let blob = build(&config()).unwrap();
        let found = structures(&blob.bytes[TABLE_OFFSET..]);
        let kinds: Vec<_> = found.iter().map(|(kind, ..)| *kind).collect();
        assert_eq!(kinds, [TYPE_FIRMWARE, TYPE_SYSTEM, TYPE_OEM_STRINGS, TYPE_END]);

        let (_, firmware, strings) = &found[0];
        assert_eq!(firmware.len(), 0x1a);
        assert_eq!(strings, &["Maker", "1", FIRMWARE_DATE]);
        let (_, system, strings) = &found[1];
        assert_eq!(system.len(), 0x1b);
        assert_eq!(strings, &["Maker", "Machine", "1"]);
        assert_eq!(system[4..8], [1, 2, 3, 0]);
        assert_eq!(system[8..24], [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15]);
        let (_, oem, strings) = &found[2];
        assert_eq!(oem[4], 2);
        assert_eq!(strings, &["io.systemd.credential:a=b", "second"]);
    }

    #[test]
    fn without_oem_strings_there_is_no_structure_for_them() {
        let blob = build(&SmbiosConfig { oem_strings: vec![], ..config() }).unwrap();
        let found = structures(&blob.bytes[TABLE_OFFSET..]);
        assert!(found.iter().all(|(kind, ..)| *kind != TYPE_OEM_STRINGS));
    }

    #[test]
    fn strings_that_cannot_be_represented_are_refused() {
        let with = |oem_strings| build(&SmbiosConfig { oem_strings, ..config() }).unwrap_err();
        assert_eq!(with(vec!["a\0b".into()]), SmbiosError::StringHasNul);
        let second_empty = with(vec!["a".into(), String::new()]);
        assert_eq!(second_empty, SmbiosError::EmptyOemString { number: 2 });
        let many = with(vec!["a".into(); 256]);
        assert_eq!(many, SmbiosError::TooManyOemStrings { count: 256 });
        assert!(matches!(with(vec!["a".repeat(70_000)]), SmbiosError::TooLarge { .. }));
    }
}
