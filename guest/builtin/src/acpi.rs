//! The ACPI tables (ACPI 6.5, chapter 5): found from the RSDP, checksums tested, and the few facts
//! that a guest without drivers for ACPI needs.
//!
//! ```text
//! RSDP -> XSDT -> FADT -> DSDT    power off, PM timer
//!              -> MADT            processors, local APIC
//!              -> MCFG            PCI configuration space in memory
//! ```

use alloc::{format, string::String, vec::Vec};

/// Reads memory: the bytes at an address, unless there are none.
pub(crate) type Memory<'a> = dyn Fn(u64, u64) -> Option<&'a [u8]> + 'a;

const HEADER_BYTES: u64 = 36;
/// No table of a virtual machine is larger.
const TABLE_LIMIT: u64 = 1 << 20;
const RSDP_V1_BYTES: u64 = 20;
const RSDP_BYTES: u64 = 36;

/// What the tables say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Tables {
    /// Signatures of what the XSDT lists.
    pub(crate) names: Vec<String>,
    pub(crate) pm1a_control: Option<u16>,
    pub(crate) pm_timer: Option<u16>,
    /// `SLP_TYP` of S5, from the DSDT.
    pub(crate) s5_sleep_type: Option<u8>,
    /// APIC IDs of the processors that can be used.
    pub(crate) processors: Vec<u32>,
    pub(crate) local_apic: Option<u64>,
    pub(crate) ecam: Option<Ecam>,
}

/// PCI configuration space in memory, of segment 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ecam {
    pub(crate) base: u64,
    pub(crate) first_bus: u8,
    pub(crate) last_bus: u8,
}

impl Tables {
    /// Reads all tables. The error says which one is wrong, and how.
    pub(crate) fn read(rsdp: u64, memory: &Memory<'_>) -> Result<Self, String> {
        let mut tables = Self::default();
        for address in listed_tables(rsdp, memory)? {
            let table = table_at(address, memory)?;
            tables.names.push(signature(table));
            match &table[..4] {
                b"FACP" => tables.read_fadt(table, memory)?,
                b"APIC" => tables.read_madt(table),
                b"MCFG" => tables.read_mcfg(table),
                _ => {}
            }
        }
        Ok(tables)
    }

    fn read_fadt(&mut self, fadt: &[u8], memory: &Memory<'_>) -> Result<(), String> {
        self.pm1a_control = port(fadt, 64, 172);
        self.pm_timer = port(fadt, 76, 208);
        let dsdt = u64_at(fadt, 140)
            .filter(|address| *address != 0)
            .or(u32_at(fadt, 40).map(u64::from))
            .ok_or("FADT has no DSDT")?;
        let dsdt = table_at(dsdt, memory)?;
        if &dsdt[..4] != b"DSDT" {
            return Err(format!("FADT points at {} instead of DSDT", signature(dsdt)));
        }
        self.s5_sleep_type = s5_sleep_type(dsdt);
        self.names.push(signature(dsdt));
        Ok(())
    }

    fn read_madt(&mut self, madt: &[u8]) {
        const ENABLED: u32 = 1;
        self.local_apic = u32_at(madt, 36).map(u64::from);
        let mut rest = madt.get(44..).unwrap_or_default();
        while let [kind, length, ..] = *rest {
            let Some(entry) = rest.get(..usize::from(length)).filter(|_| length >= 2) else {
                break;
            };
            let (id, flags) = match kind {
                0 => (entry.get(3).map(|id| u32::from(*id)), u32_at(entry, 4)),
                9 => (u32_at(entry, 4), u32_at(entry, 8)),
                _ => (None, None),
            };
            if let (Some(id), Some(flags)) = (id, flags)
                && flags & ENABLED != 0
            {
                self.processors.push(id);
            }
            rest = &rest[entry.len()..];
        }
    }

    fn read_mcfg(&mut self, mcfg: &[u8]) {
        let entries = mcfg.get(44..).unwrap_or_default().chunks_exact(16);
        self.ecam = entries.filter(|entry| entry[8] == 0 && entry[9] == 0).find_map(|entry| {
            let base = u64_at(entry, 0)?;
            Some(Ecam { base, first_bus: entry[10], last_bus: entry[11] })
        });
    }
}

/// The addresses in the XSDT, or in the RSDT where firmware has no more than that.
fn listed_tables(rsdp: u64, memory: &Memory<'_>) -> Result<Vec<u64>, String> {
    let unreadable = || format!("no RSDP can be read at {rsdp:#x}");
    let first = memory(rsdp, RSDP_V1_BYTES).ok_or_else(unreadable)?;
    if &first[..8] != b"RSD PTR " {
        return Err(format!("no RSDP at {rsdp:#x}"));
    }
    if sum(first) != 0 {
        return Err("RSDP: wrong checksum".into());
    }
    let (list, width) = if first[15] >= 2 {
        let whole = memory(rsdp, RSDP_BYTES).ok_or_else(unreadable)?;
        if sum(whole) != 0 {
            return Err("RSDP: wrong extended checksum".into());
        }
        (u64_at(whole, 24), 8)
    } else {
        (u32_at(first, 16).map(u64::from), 4)
    };
    let list = table_at(list.unwrap_or_default(), memory)?;
    let expected: &[u8] = if width == 8 { b"XSDT" } else { b"RSDT" };
    if &list[..4] != expected {
        return Err(format!("RSDP points at {}", signature(list)));
    }
    let entries = list[HEADER_BYTES as usize..].chunks_exact(width);
    let address = |entry| u64_at(entry, 0).or(u32_at(entry, 0).map(u64::from));
    Ok(entries.filter_map(address).collect())
}

/// A whole table, its checksum tested.
fn table_at<'a>(address: u64, memory: &Memory<'a>) -> Result<&'a [u8], String> {
    let header = memory(address, HEADER_BYTES)
        .ok_or_else(|| format!("no ACPI table can be read at {address:#x}"))?;
    let length = u64::from(u32_at(header, 4).unwrap_or_default());
    let name = signature(header);
    if !(HEADER_BYTES..=TABLE_LIMIT).contains(&length) {
        return Err(format!("{name}: length {length}"));
    }
    let table = memory(address, length).ok_or_else(|| format!("{name}: length {length}"))?;
    if sum(table) == 0 { Ok(table) } else { Err(format!("{name}: wrong checksum")) }
}

/// A port of the FADT: the old field, else the generic address.
fn port(fadt: &[u8], field: usize, extended: usize) -> Option<u16> {
    const SYSTEM_IO: u8 = 1;
    let old = u32_at(fadt, field).filter(|port| *port != 0).map(u64::from);
    let generic = || {
        fadt.get(extended).filter(|space| **space == SYSTEM_IO)?;
        u64_at(fadt, extended + 4).filter(|port| *port != 0)
    };
    u16::try_from(old.or_else(generic)?).ok()
}

/// The first element of the package `_S5_`, by its bytes: no interpreter for one constant.
fn s5_sleep_type(dsdt: &[u8]) -> Option<u8> {
    const PACKAGE: u8 = 0x12;
    const BYTE_PREFIX: u8 = 0x0a;
    let name = dsdt.windows(4).position(|bytes| bytes == b"_S5_")?;
    let rest = dsdt.get(name + 4..)?;
    if *rest.first()? != PACKAGE {
        return None;
    }
    // The package length has as many further bytes as the top two bits of its first one say.
    let first_element = 1 + 1 + usize::from(rest.get(1)? >> 6) + 1;
    match *rest.get(first_element)? {
        BYTE_PREFIX => rest.get(first_element + 1).copied(),
        constant @ (0 | 1) => Some(constant),
        _ => None,
    }
}

fn signature(table: &[u8]) -> String {
    crate::text::printable(&table[..4])
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(offset..offset + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(offset..offset + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests;
