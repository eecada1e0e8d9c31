//! The ACPI tables (ACPI 6.5, chapter 5): how the operating system learns of processors, interrupt
//! controllers, the PCI root and the few devices that are not on PCI.
//!
//! ```text
//!  RSDP ─▶ XSDT ─┬─▶ FADT ─┬─▶ FACS
//!                │         └─▶ DSDT: PCI root, COM1, RTC, keyboard, pvpanic, \_S5
//!                ├─▶ MADT: local APICs, I/O APIC
//!                ├─▶ MCFG: ECAM
//!                └─▶ WDAT: watchdog, if there is one
//! ```
//!
//! The machine is a full ACPI one, not hardware-reduced: it has the PM1 event and control blocks,
//! the power management timer and a system control interrupt, because guests power off, see the
//! power button and reset through them.

mod dsdt;
mod fadt;
mod madt;
mod wdat;

#[cfg(test)]
mod tests;

use acpi_tables::Aml;
use acpi_tables::facs::FACS;
use acpi_tables::mcfg::MCFG;
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;

use super::layout::ACPI_TABLES;
use crate::memory::{Blob, GuestAddress, GuestRange};

/// Who made the tables, in their headers.
const OEM_ID: [u8; 6] = *b"VMM   ";
const OEM_TABLE_ID: [u8; 8] = *b"VMM     ";
const OEM_REVISION: u32 = 1;
/// Length of the header that all tables but RSDP and FACS begin with (ACPI 6.5, 5.2.6).
const HEADER_LENGTH: u32 = 36;
/// ECAM has this much for each bus (PCI Express 6.0, 7.2.2).
const ECAM_PER_BUS: u64 = 1 << 20;
/// The most processors the tables have room for. An entry of the MADT has up to 16 bytes.
pub const MAX_PROCESSORS: u32 = 1024;

/// Whether the machine has some optional device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It is there.
    Present,
    /// It is not; the operating system need not look for it.
    Absent,
}

/// What the tables describe. Ports and interrupts are those of [`layout`](super::layout).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AcpiConfig {
    /// How many processors there are; their APIC ids count from 0.
    pub processors: u32,
    /// The window of 32-bit PCI BARs.
    pub mmio32: GuestRange,
    /// The window of 64-bit PCI BARs.
    pub mmio64: GuestRange,
    /// PCI Express configuration space, 1 MiB for each bus from bus 0 on.
    pub ecam: GuestRange,
    /// The keyboard controller. Linux spends many exits on one that is present.
    pub keyboard: Presence,
    /// The watchdog, if there is one.
    pub watchdog: Option<Watchdog>,
}

/// What the watchdog's timeout may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watchdog {
    /// Milliseconds of what its registers count.
    pub period_ms: u32,
    /// The shortest timeout.
    pub min_periods: u32,
    /// The longest timeout.
    pub max_periods: u32,
}

/// Why there can be no tables for a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AcpiError {
    /// Not 1 to [`MAX_PROCESSORS`] of them.
    #[error("a machine has 1 to {MAX_PROCESSORS} processors, not {count}")]
    Processors {
        /// How many were asked for.
        count: u32,
    },
    /// Not whole buses, or more than 256.
    #[error("the ECAM range {ecam} is not 1 to 256 buses of 1 MiB each")]
    Ecam {
        /// What was asked for.
        ecam: GuestRange,
    },
    /// A window that is empty or, if the 32-bit one, beyond 4 GiB.
    #[error("{window} is not a window for PCI memory")]
    Window {
        /// What was asked for.
        window: GuestRange,
    },
    /// The tables are larger than the place for them.
    #[error("the ACPI tables take {length} bytes, there is room for {}", ACPI_TABLES.length())]
    TooLarge {
        /// Their length together.
        length: u64,
    },
}

/// All tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcpiTables {
    /// The bytes to be in guest memory.
    pub blobs: Vec<Blob>,
    /// Where the RSDP is.
    pub rsdp: GuestAddress,
}

/// Builds all tables.
pub fn build(config: &AcpiConfig) -> Result<AcpiTables, AcpiError> {
    let last_bus = check(config)?;

    // The RSDP comes first but points at the XSDT, so its bytes are filled in last.
    let mut area = Area { bytes: vec![0; Rsdp::len()] };
    let facs = area.append(&FACS::new(), FACS_ALIGNMENT);
    let dsdt = area.append_bytes(dsdt::build(config, last_bus).as_slice(), ALIGNMENT);
    let mut tables = vec![
        area.append(&fadt::build(facs, dsdt, config.keyboard), ALIGNMENT),
        area.append_bytes(madt::build(config.processors).as_slice(), ALIGNMENT),
        area.append(&mcfg(config.ecam, last_bus), ALIGNMENT),
    ];
    tables.extend(config.watchdog.map(|it| area.append(&wdat::build(&it), ALIGNMENT)));
    let mut xsdt = XSDT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    for table in tables {
        xsdt.add_entry(table.0);
    }
    let xsdt = area.append(&xsdt, ALIGNMENT);
    let rsdp = serialise(&Rsdp::new(OEM_ID, xsdt.0));
    area.bytes[..rsdp.len()].copy_from_slice(&rsdp);

    let blob = Blob::new(ACPI_TABLES.start(), area.bytes);
    if !ACPI_TABLES.covers(blob.range()) {
        return Err(AcpiError::TooLarge { length: blob.range().length() });
    }
    Ok(AcpiTables { rsdp: blob.address, blobs: vec![blob] })
}

/// Checks the ranges and returns the number of the last PCI bus.
fn check(config: &AcpiConfig) -> Result<u8, AcpiError> {
    let count = config.processors;
    if !(1..=MAX_PROCESSORS).contains(&count) {
        return Err(AcpiError::Processors { count });
    }
    for (window, end) in [(config.mmio32, 1 << 32), (config.mmio64, u64::MAX)] {
        if window.is_empty() || window.end().0 > end {
            return Err(AcpiError::Window { window });
        }
    }
    let ecam = config.ecam;
    let whole = ecam.length().is_multiple_of(ECAM_PER_BUS) && ecam.end().0 <= 1 << 32;
    (ecam.length() / ECAM_PER_BUS)
        .checked_sub(1)
        .and_then(|last| u8::try_from(last).ok())
        .filter(|_| whole)
        .ok_or(AcpiError::Ecam { ecam })
}

/// PCI Firmware Specification 3.3, 4.1.2.
fn mcfg(ecam: GuestRange, last_bus: u8) -> MCFG {
    let mut table = MCFG::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    table.add_ecam(ecam.start().0, 0, 0, last_bus);
    table
}

/// A table with the usual header and `body`.
fn table(signature: [u8; 4], revision: u8, body: &[u8]) -> Sdt {
    let mut table =
        Sdt::new(signature, HEADER_LENGTH, revision, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    table.append_slice(body);
    table
}

fn serialise(aml: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    aml.to_aml_bytes(&mut bytes);
    bytes
}

/// Most tables may be anywhere; this keeps their fields aligned.
const ALIGNMENT: usize = 16;
/// ACPI 6.5, 5.2.10.
const FACS_ALIGNMENT: usize = 64;

/// The tables so far, one behind the other.
struct Area {
    bytes: Vec<u8>,
}

impl Area {
    fn append(&mut self, table: &dyn Aml, alignment: usize) -> GuestAddress {
        self.append_bytes(&serialise(table), alignment)
    }

    /// Adds a table and returns its address.
    fn append_bytes(&mut self, table: &[u8], alignment: usize) -> GuestAddress {
        let offset = self.bytes.len().next_multiple_of(alignment);
        self.bytes.resize(offset, 0);
        self.bytes.extend_from_slice(table);
        GuestAddress(ACPI_TABLES.start().0 + offset as u64)
    }
}
