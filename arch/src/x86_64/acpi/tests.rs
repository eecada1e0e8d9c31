use super::*;
use crate::x86_64::layout::{ECAM, PCI_MMIO32, ports};

fn config() -> AcpiConfig {
    AcpiConfig {
        processors: 4,
        mmio32: PCI_MMIO32,
        mmio64: GuestRange::between(0x3f00_0000_0000, 0x4000_0000_0000),
        ecam: ECAM,
        keyboard: Presence::Present,
        watchdog: None,
    }
}

/// The tables as an operating system reads them: by addresses, from the RSDP on.
struct Reader(Blob);

impl Reader {
    fn new(config: &AcpiConfig) -> Self {
        let mut tables = build(config).unwrap();
        assert_eq!(tables.rsdp, ACPI_TABLES.start());
        Self(tables.blobs.remove(0))
    }

    fn at(&self, address: u64, length: usize) -> &[u8] {
        let offset = (address - self.0.address.0) as usize;
        &self.0.bytes[offset..offset + length]
    }

    /// A table, with its length and checksum checked.
    fn table(&self, address: u64) -> &[u8] {
        let length = u32_in(self.at(address, 8), 4) as usize;
        let table = self.at(address, length);
        assert_eq!(sum(table), 0, "checksum of {}", String::from_utf8_lossy(&table[..4]));
        assert_eq!(&table[10..16], OEM_ID);
        table
    }

    /// The table of the XSDT with that signature.
    fn find(&self, signature: [u8; 4]) -> &[u8] {
        let rsdp = self.at(ACPI_TABLES.start().0, 36);
        assert_eq!(&rsdp[..8], b"RSD PTR ");
        assert_eq!((sum(&rsdp[..20]), sum(rsdp)), (0, 0));
        let xsdt = self.table(u64_in(rsdp, 24));
        assert_eq!(&xsdt[..4], b"XSDT");
        let mut tables = xsdt[36..].chunks_exact(8).map(|entry| self.table(u64_in(entry, 0)));
        tables.find(|table| table[..4] == signature).expect("the XSDT has the table")
    }

    fn dsdt(&self) -> &[u8] {
        let fadt = self.find(*b"FACP");
        assert_eq!(u64::from(u32_in(fadt, 40)), u64_in(fadt, 140));
        let dsdt = self.table(u64_in(fadt, 140));
        assert_eq!(&dsdt[..4], b"DSDT");
        dsdt
    }
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

fn u16_in(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap())
}

fn u32_in(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_in(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// Structures of the MADT: type and bytes.
fn structures(madt: &[u8]) -> Vec<(u8, &[u8])> {
    let mut found = Vec::new();
    let mut rest = &madt[44..];
    while !rest.is_empty() {
        let (structure, next) = rest.split_at(usize::from(rest[1]));
        found.push((structure[0], structure));
        rest = next;
    }
    found
}

/// The named objects at the top of the DSDT: devices by the last part of their path.
fn objects(dsdt: &[u8]) -> Vec<(String, &[u8])> {
    const NAME_OP: u8 = 0x08;
    const DEVICE_OP: [u8; 2] = [0x5b, 0x82];
    let mut found = Vec::new();
    let mut rest = &dsdt[36..];
    while !rest.is_empty() {
        if rest[0] == NAME_OP {
            // The last object: `_S5_`, up to the end of the table.
            found.push((String::from_utf8(rest[1..5].to_vec()).unwrap(), &rest[5..]));
            break;
        }
        assert_eq!(rest[..2], DEVICE_OP);
        let more = usize::from(rest[2] >> 6);
        let mut length = usize::from(rest[2] & if more == 0 { 0x3f } else { 0x0f });
        for (index, byte) in rest[3..3 + more].iter().enumerate() {
            length |= usize::from(*byte) << (4 + 8 * index);
        }
        let (body, next) = rest[2..].split_at(length);
        // Root, dual name prefix, `_SB_`, the name.
        let path = &body[1 + more..];
        assert_eq!(&path[..6], b"\\._SB_");
        found.push((String::from_utf8(path[6..10].to_vec()).unwrap(), &path[10..]));
        rest = next;
    }
    found
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

#[test]
fn the_watchdog_has_a_table_of_actions() {
    let watchdog = Watchdog { period_ms: 100, min_periods: 10, max_periods: 1000 };
    let reader = Reader::new(&AcpiConfig { watchdog: Some(watchdog), ..config() });
    let table = reader.find(*b"WDAT");
    assert_eq!((u32_in(table, 36), u32_in(table, 48)), (32, 100));
    assert_eq!((u32_in(table, 52), u32_in(table, 56)), (1000, 10));
    let entries = u32_in(table, 64) as usize;
    assert_eq!(table.len(), 36 + 32 + 24 * entries);
    for entry in table[68..].chunks_exact(24) {
        assert_eq!(entry[4..8], [1, 32, 0, 3]);
        let first = u64::from(ports::WATCHDOG);
        assert!((first..first + 16).step_by(4).any(|port| port == u64_in(entry, 8)));
    }
}

#[test]
fn the_fadt_has_the_registers_of_the_machine() {
    let reader = Reader::new(&config());
    let fadt = reader.find(*b"FACP");
    assert_eq!(u16_in(fadt, 46), 9, "SCI");
    assert_eq!(u32_in(fadt, 48), 0, "no SMI command port: always in ACPI mode");
    assert_eq!((u32_in(fadt, 56), u32_in(fadt, 64), u32_in(fadt, 76)), (0x600, 0x604, 0x608));
    assert_eq!((fadt[88], fadt[89], fadt[91]), (4, 2, 4));
    let register = |at: usize| (fadt[at], fadt[at + 1], u64_in(fadt, at + 4));
    assert_eq!(register(116), (1, 8, u64::from(ports::RESET)));
    assert_eq!(fadt[128], ports::RESET_VALUE);
    assert_eq!(register(148), (1, 32, 0x600));
    assert_eq!(register(172), (1, 16, 0x604));
    assert_eq!(register(208), (1, 32, 0x608));

    let flags = u32_in(fadt, 112);
    assert_eq!(flags & (1 << 4), 0, "the power button is a fixed event");
    assert_ne!(flags & (1 << 8), 0, "the timer has 32 bits");
    assert_ne!(flags & (1 << 10), 0, "there is a reset register");
    assert_eq!(flags & (1 << 20), 0, "not hardware-reduced");
}

#[test]
fn the_facs_is_aligned_and_where_the_fadt_says() {
    let reader = Reader::new(&config());
    let address = u64::from(u32_in(reader.find(*b"FACP"), 36));
    assert!(address.is_multiple_of(64));
    let facs = reader.at(address, 64);
    assert_eq!((&facs[..4], u32_in(facs, 4)), (&b"FACS"[..], 64));
}

#[test]
fn the_madt_lists_each_processor_and_the_io_apic() {
    let reader = Reader::new(&config());
    let madt = reader.find(*b"APIC");
    assert_eq!((u32_in(madt, 36), u32_in(madt, 40)), (0xfee0_0000, 1));
    let structures = structures(madt);
    let kinds: Vec<_> = structures.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, [0, 0, 0, 0, 1, 2, 2, 4]);
    for (index, (_, processor)) in structures[..4].iter().enumerate() {
        let index = index as u8;
        assert_eq!((processor[2], processor[3], u32_in(processor, 4)), (index, index, 1));
    }
    assert_eq!(u32_in(structures[4].1, 4), 0xfec0_0000);
    let (timer, sci) = (structures[5].1, structures[6].1);
    assert_eq!((timer[3], u32_in(timer, 4)), (0, 2));
    assert_eq!((sci[3], u32_in(sci, 4), u16_in(sci, 8)), (9, 9, 5));
    assert_eq!(structures[7].1, [4, 6, 0xff, 0, 0, 1]);
}

#[test]
fn processors_beyond_the_eighth_bit_are_x2apics() {
    let reader = Reader::new(&AcpiConfig { processors: MAX_PROCESSORS, ..config() });
    let structures = structures(reader.find(*b"APIC"));
    let of = |kind| structures.iter().filter(move |(k, _)| *k == kind).map(|(_, bytes)| bytes);
    assert_eq!(of(0).map(|bytes| bytes[3]).max(), Some(254));
    let wide: Vec<_> = of(9).map(|bytes| (u32_in(bytes, 4), u32_in(bytes, 8))).collect();
    let expected: Vec<_> = (255..MAX_PROCESSORS).map(|id| (id, 1)).collect();
    assert_eq!(wide, expected);
    assert_eq!(of(10).map(|bytes| (u32_in(bytes, 4), bytes[8])).next(), Some((u32::MAX, 1)));
}

#[test]
fn the_mcfg_has_the_ecam_range_and_its_buses() {
    let sixteen = GuestRange::between(0xe000_0000, 0xe100_0000);
    for (ecam, last_bus) in [(ECAM, 255), (sixteen, 15)] {
        let reader = Reader::new(&AcpiConfig { ecam, ..config() });
        let mcfg = reader.find(*b"MCFG");
        assert_eq!(mcfg.len(), 60);
        assert_eq!((u64_in(mcfg, 44), u16_in(mcfg, 52)), (0xe000_0000, 0));
        assert_eq!(mcfg[54..56], [0, last_bus]);
    }
}

#[test]
fn the_dsdt_has_the_devices_that_no_bus_enumerates() {
    let names = |keyboard| {
        let reader = Reader::new(&AcpiConfig { keyboard, ..config() });
        objects(reader.dsdt()).into_iter().map(|(name, _)| name).collect::<Vec<_>>()
    };
    let with = names(Presence::Present);
    assert_eq!(with, ["PCI0", "MBRD", "COM1", "RTC0", "PEVT", "KBD0", "_S5_"]);
    let without = names(Presence::Absent);
    assert_eq!(without, ["PCI0", "MBRD", "COM1", "RTC0", "PEVT", "_S5_"]);

    let flags = |keyboard| {
        let reader = Reader::new(&AcpiConfig { keyboard, ..config() });
        u16_in(reader.find(*b"FACP"), 109)
    };
    assert_eq!(flags(Presence::Present) ^ flags(Presence::Absent), 1 << 1);
}

#[test]
fn the_pci_root_has_the_windows() {
    let reader = Reader::new(&config());
    let objects = objects(reader.dsdt());
    let root = objects[0].1;
    // PNP0A08 as a compressed EISA id.
    assert!(contains(root, &[0x0c, 0x41, 0xd0, 0x0a, 0x08]));
    for name in ["_HID", "_CID", "_SEG", "_BBN", "_UID", "_CCA", "_CRS", "_OSC"] {
        assert!(contains(root, name.as_bytes()), "{name}");
    }
    assert!(!contains(root, b"_PRT"));
    let descriptor = |kind: u8, length: u16, start: &[u8], end: &[u8]| {
        let at = root.windows(3).position(|w| w[0] == kind && w[1..] == length.to_le_bytes());
        let fields = &root[at.expect("the descriptor is there") + 6 + start.len()..];
        assert_eq!(&fields[..start.len()], start);
        assert_eq!(&fields[start.len()..2 * start.len()], end);
    };
    descriptor(0x88, 13, &[0, 0], &[255, 0]);
    descriptor(0x87, 23, &0xc000_0000_u32.to_le_bytes(), &0xdfff_ffff_u32.to_le_bytes());
    descriptor(0x8a, 43, &0x3f00_0000_0000_u64.to_le_bytes(), &0x3fff_ffff_ffff_u64.to_le_bytes());
    assert!(contains(root, &[0x47, 1, 0xf8, 0x0c, 0xf8, 0x0c, 1, 8]), "CF8");
}

#[test]
fn the_panic_notifier_and_power_off_are_as_the_devices_expect() {
    let reader = Reader::new(&config());
    let objects = objects(reader.dsdt());
    let of = |name: &str| objects.iter().find(|(found, _)| found == name).unwrap().1;
    assert!(contains(of("PEVT"), b"QEMU0001\0"));
    assert!(contains(of("PEVT"), &[0x47, 1, 0x05, 0x05, 0x05, 0x05, 1, 1]));
    // A package of four: two bytes of the sleep type, two zeros.
    let sleep_type = ports::ACPI_S5_SLEEP_TYPE;
    assert_eq!(of("_S5_"), [0x12, 0x08, 4, 0x0a, sleep_type, 0x0a, sleep_type, 0, 0]);
}

#[test]
fn machines_that_cannot_be_described_are_refused() {
    for count in [0, MAX_PROCESSORS + 1, u32::MAX] {
        let refused = build(&AcpiConfig { processors: count, ..config() });
        assert_eq!(refused, Err(AcpiError::Processors { count }));
    }
    for ecam in [
        GuestRange::between(0xe000_0000, 0xe000_0000),
        GuestRange::between(0xe000_0000, 0xe008_0000),
        GuestRange::between(0xc000_0000, 0xf000_0000),
        GuestRange::between(0x1_0000_0000, 0x1_1000_0000),
    ] {
        assert_eq!(build(&AcpiConfig { ecam, ..config() }), Err(AcpiError::Ecam { ecam }));
    }
    let window = GuestRange::between(0xf000_0000, 0x1_0000_0001);
    let refused = build(&AcpiConfig { mmio32: window, ..config() });
    assert_eq!(refused, Err(AcpiError::Window { window }));
}
