//! The Multiple APIC Description Table (ACPI 6.5, 5.2.12): processors and interrupt controllers.

use acpi_tables::madt::{EnabledStatus, IoApic, ProcessorLocalApic};
use acpi_tables::sdt::Sdt;

use super::{serialise, table};
use crate::x86_64::layout::{IOAPIC, LOCAL_APIC, ports};

/// The revision that belongs to ACPI 6.3 and later.
const REVISION: u8 = 5;
/// `PCAT_COMPAT`: there are two 8259 as well, to be masked.
const PCAT_COMPAT: u32 = 1 << 0;
/// APIC ids from here on need the x2APIC structures: 255 is the broadcast to all local APICs.
const FIRST_X2APIC_ID: u32 = 255;
/// The I/O APIC's id. It is on no bus that would need it to differ from the processors'.
const IOAPIC_ID: u8 = 0;

/// Structure types (ACPI 6.5, table 5.21).
const INTERRUPT_SOURCE_OVERRIDE: u8 = 2;
const LOCAL_APIC_NMI: u8 = 4;
const LOCAL_X2APIC: u8 = 9;
const LOCAL_X2APIC_NMI: u8 = 10;

/// MPS INTI flags (ACPI 6.5, table 5.26): as usual on the bus, which is edge and active high on ISA.
const CONFORMS: u16 = 0;
/// Edge-triggered, active high, said explicitly: Linux takes the SCI for level, active low if not.
const EDGE_ACTIVE_HIGH: u16 = 0b0101;
/// Local interrupt 1 is the one that NMIs come in by.
const LINT1: u8 = 1;

pub(super) fn build(processors: u32) -> Sdt {
    let mut body = Vec::new();
    body.extend_from_slice(&(LOCAL_APIC.start().0 as u32).to_le_bytes());
    body.extend_from_slice(&PCAT_COMPAT.to_le_bytes());

    for id in 0..processors.min(FIRST_X2APIC_ID) {
        let entry = ProcessorLocalApic::new(id as u8, id as u8, EnabledStatus::Enabled);
        body.extend(serialise(&entry));
    }
    for id in FIRST_X2APIC_ID..processors {
        body.extend(local_x2apic(id));
    }
    body.extend(serialise(&IoApic::new(IOAPIC_ID, IOAPIC.start().0 as u32, 0)));
    // The timer (PIT) is wired to input 2, as on every PC since the I/O APIC.
    body.extend(interrupt_source_override(0, 2, CONFORMS));
    let sci = ports::ACPI_SCI_IRQ;
    body.extend(interrupt_source_override(sci, u32::from(sci), EDGE_ACTIVE_HIGH));
    body.extend(local_apic_nmi());
    if processors > FIRST_X2APIC_ID {
        body.extend(local_x2apic_nmi());
    }
    table(*b"APIC", REVISION, &body)
}

/// ACPI 6.5, 5.2.12.12.
fn local_x2apic(id: u32) -> [u8; 16] {
    let mut entry = [0; 16];
    entry[..2].copy_from_slice(&[LOCAL_X2APIC, 16]);
    entry[4..8].copy_from_slice(&id.to_le_bytes());
    entry[8..12].copy_from_slice(&(EnabledStatus::Enabled as u32).to_le_bytes());
    entry[12..].copy_from_slice(&id.to_le_bytes());
    entry
}

/// ACPI 6.5, 5.2.12.5. Bus 0 is ISA.
fn interrupt_source_override(source: u8, gsi: u32, flags: u16) -> [u8; 10] {
    let mut entry = [0; 10];
    entry[..4].copy_from_slice(&[INTERRUPT_SOURCE_OVERRIDE, 10, 0, source]);
    entry[4..8].copy_from_slice(&gsi.to_le_bytes());
    entry[8..].copy_from_slice(&flags.to_le_bytes());
    entry
}

/// ACPI 6.5, 5.2.12.7: for all processors.
fn local_apic_nmi() -> [u8; 6] {
    let [low, high] = CONFORMS.to_le_bytes();
    [LOCAL_APIC_NMI, 6, 0xff, low, high, LINT1]
}

/// ACPI 6.5, 5.2.12.13: for all processors.
fn local_x2apic_nmi() -> [u8; 12] {
    let mut entry = [0; 12];
    entry[..2].copy_from_slice(&[LOCAL_X2APIC_NMI, 12]);
    entry[2..4].copy_from_slice(&CONFORMS.to_le_bytes());
    entry[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    entry[8] = LINT1;
    entry
}
