//! The Differentiated System Description Table (ACPI 6.5, 5.2.11.1): devices that no bus enumerates.

use acpi_tables::Aml;
use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, Arg, CreateDWordField, Device, EISAName, Else, Equal, IO,
    If, Interrupt, Memory32Fixed, Method, Name, Or, Package, Path, ResourceTemplate, Return, Uuid,
};
use acpi_tables::sdt::Sdt;

use super::{AcpiConfig, Presence, serialise, table};
use crate::x86_64::layout::ports;

/// Two makes integers in the table 64 bits wide (ACPI 6.5, 5.2.11.1).
const REVISION: u8 = 2;
/// `_OSC` of a PCI host bridge (PCI Firmware Specification 3.3, 4.5.1).
const PCI_OSC_UUID: &str = "33db4d5b-1ff7-401c-9657-7441c03dd766";
/// In the first double word that `_OSC` returns: the UUID is not known (ACPI 6.5, 6.2.11).
const OSC_UNRECOGNISED_UUID: u8 = 1 << 2;
/// ACPI event, control and timer registers, with the gap between control and timer.
const PM_PORTS: u8 = (ports::ACPI_PM_TIMER + 4 - ports::ACPI_PM1_EVENT) as u8;

pub(super) fn build(config: &AcpiConfig, last_bus: u8) -> Sdt {
    let mut body = Vec::new();
    for device in [
        pci_root(config, last_bus),
        motherboard(config),
        serial_port(),
        real_time_clock(),
        pvpanic(),
    ] {
        body.extend(device);
    }
    if config.keyboard == Presence::Present {
        body.extend(keyboard());
    }
    body.extend(power_off());
    table(*b"DSDT", REVISION, &body)
}

/// A device below `\_SB` with what it consists of.
fn device(name: &str, children: Vec<&dyn Aml>) -> Vec<u8> {
    serialise(&Device::new(Path::new(&format!("\\_SB_.{name}")), children))
}

fn hid(id: &str) -> Name {
    Name::new(Path::new("_HID"), &EISAName::new(id))
}

fn number(name: &str, value: u8) -> Name {
    Name::new(Path::new(name), &value)
}

fn resources(children: Vec<&dyn Aml>) -> Name {
    Name::new(Path::new("_CRS"), &ResourceTemplate::new(children))
}

fn ports_at(first: u16, count: u8) -> IO {
    IO::new(first, first, 1, count)
}

/// An edge-triggered, active high, exclusive interrupt, as the devices of the ISA bus have.
fn isa_interrupt(line: u8) -> Interrupt {
    Interrupt::new(true, true, false, false, u32::from(line))
}

/// The PCI Express root (PCI Firmware Specification 3.3, 4.1 and 4.6). Devices signal by MSI-X only,
/// so there is no `_PRT`; no BAR is in I/O space, so there is no window for any.
fn pci_root(config: &AcpiConfig, last_bus: u8) -> Vec<u8> {
    let memory = AddressSpaceCacheable::NotCacheable;
    let (mmio32, mmio64) = (config.mmio32, config.mmio64);
    let windows = resources(vec![
        &AddressSpace::new_bus_number(0_u16, u16::from(last_bus)),
        &ports_at(ports::PCI_CONFIG_ADDRESS, 8),
        &AddressSpace::new_memory(
            memory,
            true,
            mmio32.start().0 as u32,
            (mmio32.end().0 - 1) as u32,
            None,
        ),
        &AddressSpace::new_memory(memory, true, mmio64.start().0, mmio64.end().0 - 1, None),
    ]);
    device(
        "PCI0",
        vec![
            &hid("PNP0A08"),
            &Name::new(Path::new("_CID"), &EISAName::new("PNP0A03")),
            &number("_SEG", 0),
            &number("_BBN", 0),
            &number("_UID", 0),
            &number("_CCA", 1),
            &windows,
            &RootCapabilities,
        ],
    )
}

/// `_OSC` of the PCI root: the operating system gets control of all that it asks for, because there
/// is no firmware to share it with.
struct RootCapabilities;

impl Aml for RootCapabilities {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        let (uuid, capabilities) = (Arg(0), Arg(3));
        let status = Path::new("CDW1");
        Method::new(
            Path::new("_OSC"),
            4,
            false,
            vec![
                &If::new(
                    &Equal::new(&uuid, &Uuid::new(PCI_OSC_UUID)),
                    vec![&Return::new(&capabilities)],
                ),
                &Else::new(vec![
                    &CreateDWordField::new(&status, &capabilities, &0_u8),
                    &Or::new(&status, &status, &OSC_UNRECOGNISED_UUID),
                    &Return::new(&capabilities),
                ]),
            ],
        )
        .to_aml_bytes(sink);
    }
}

/// Resources that are taken and belong to no device. Linux uses ECAM only if it finds it here.
fn motherboard(config: &AcpiConfig) -> Vec<u8> {
    let (start, length) = (config.ecam.start().0 as u32, config.ecam.length() as u32);
    device(
        "MBRD",
        vec![
            &hid("PNP0C02"),
            &number("_UID", 0),
            &resources(vec![
                &Memory32Fixed::new(true, start, length),
                &ports_at(ports::ACPI_PM1_EVENT, PM_PORTS),
            ]),
        ],
    )
}

fn serial_port() -> Vec<u8> {
    device(
        "COM1",
        vec![
            &hid("PNP0501"),
            &number("_UID", 1),
            &resources(vec![&ports_at(ports::COM1, 8), &isa_interrupt(ports::COM1_IRQ)]),
        ],
    )
}

fn real_time_clock() -> Vec<u8> {
    device(
        "RTC0",
        vec![
            &hid("PNP0B00"),
            &resources(vec![&ports_at(ports::CMOS, 2), &isa_interrupt(ports::RTC_IRQ)]),
        ],
    )
}

fn keyboard() -> Vec<u8> {
    device(
        "KBD0",
        vec![
            &hid("PNP0303"),
            &resources(vec![
                &ports_at(ports::I8042_DATA, 1),
                &ports_at(ports::I8042_COMMAND, 1),
                &isa_interrupt(ports::KEYBOARD_IRQ),
            ]),
        ],
    )
}

/// The panic notifier that QEMU defined (docs/specs/pvpanic.rst).
fn pvpanic() -> Vec<u8> {
    /// Present, enabled, shown and working (ACPI 6.5, 6.3.7).
    const STATUS: u8 = 0x0f;
    device(
        "PEVT",
        vec![
            &Name::new(Path::new("_HID"), &"QEMU0001"),
            &number("_UID", 0),
            &number("_STA", STATUS),
            &resources(vec![&ports_at(ports::PVPANIC, 1)]),
        ],
    )
}

/// What to write to PM1 control to power off (ACPI 6.5, 7.4.2.6).
fn power_off() -> Vec<u8> {
    let sleep_type = ports::ACPI_S5_SLEEP_TYPE;
    let values = Package::new(vec![&sleep_type, &sleep_type, &0_u8, &0_u8]);
    serialise(&Name::new(Path::new("_S5_"), &values))
}
