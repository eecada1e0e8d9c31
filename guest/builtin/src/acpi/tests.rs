use super::*;

const BASE: u64 = 0xe_0000;

fn table(name: [u8; 4], body: &[u8]) -> Vec<u8> {
    let mut table = name.to_vec();
    table.resize(HEADER_BYTES as usize, 0);
    table.extend_from_slice(body);
    let length = table.len() as u32;
    table[4..8].copy_from_slice(&length.to_le_bytes());
    table[9] = 0_u8.wrapping_sub(sum(&table));
    table
}

/// A small machine: the bytes from `BASE` on.
fn firmware() -> Vec<u8> {
    let dsdt = table(*b"DSDT", b"\x08_S5_\x12\x06\x04\x0a\x05\x00\x00\x00");
    let mut fadt = vec![0; 240];
    fadt[4..8].copy_from_slice(&(BASE as u32 + 0x400).to_le_bytes());
    fadt[64 - 36..68 - 36].copy_from_slice(&0x604_u32.to_le_bytes());
    fadt[208 - 36] = 1;
    fadt[212 - 36..220 - 36].copy_from_slice(&0x608_u64.to_le_bytes());
    let mut madt = 0xfee0_0000_u32.to_le_bytes().to_vec();
    madt.extend([0; 4]);
    madt.extend([0, 8, 0, 0, 1, 0, 0, 0]);
    madt.extend([0, 8, 1, 1, 0, 0, 0, 0]); // disabled
    madt.extend([9, 16, 0, 0, 7, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0]);
    madt.extend([1, 0]); // a broken end
    let mut mcfg = vec![0; 8];
    mcfg.extend(0xe000_0000_u64.to_le_bytes());
    mcfg.extend([0, 0, 0, 255, 0, 0, 0, 0]);
    let list: Vec<u8> =
        [0x500, 0x700, 0x800].iter().flat_map(|at| (BASE + at).to_le_bytes()).collect();
    let mut rsdp = b"RSD PTR \0VMM   \x02\0\0\0\0".to_vec();
    rsdp[8] = 0_u8.wrapping_sub(sum(&rsdp));
    rsdp.extend(36_u32.to_le_bytes());
    rsdp.extend((BASE + 0x100).to_le_bytes());
    rsdp.extend([0; 4]);
    rsdp[32] = 0_u8.wrapping_sub(sum(&rsdp));
    let mut memory = vec![0; 0x1000];
    for (at, bytes) in [
        (0, rsdp),
        (0x100, table(*b"XSDT", &list)),
        (0x400, dsdt),
        (0x500, table(*b"FACP", &fadt)),
        (0x700, table(*b"APIC", &madt)),
        (0x800, table(*b"MCFG", &mcfg)),
    ] {
        memory[at..at + bytes.len()].copy_from_slice(&bytes);
    }
    memory
}

fn read(firmware: &[u8]) -> Result<Tables, String> {
    Tables::read(BASE, &|address, length| {
        let start = usize::try_from(address.checked_sub(BASE)?).ok()?;
        firmware.get(start..start.checked_add(usize::try_from(length).ok()?)?)
    })
}

#[test]
fn reads_the_tables_of_a_machine() {
    let tables = read(&firmware()).unwrap();
    assert_eq!(tables.names, ["FACP", "DSDT", "APIC", "MCFG"]);
    assert_eq!((tables.pm1a_control, tables.pm_timer), (Some(0x604), Some(0x608)));
    assert_eq!(tables.s5_sleep_type, Some(5));
    assert_eq!(tables.processors, [0, 7]);
    assert_eq!(tables.local_apic, Some(0xfee0_0000));
    assert_eq!(tables.ecam, Some(Ecam { base: 0xe000_0000, first_bus: 0, last_bus: 255 }));
}

#[test]
fn a_changed_byte_anywhere_in_a_table_is_noticed() {
    for (at, name) in [(9, "RSDP"), (0x120, "XSDT"), (0x424, "DSDT"), (0x530, "FACP")] {
        let mut firmware = firmware();
        firmware[at] ^= 0x10;
        let error = read(&firmware).unwrap_err();
        assert!(error.contains(name) && error.contains("checksum"), "{error}");
    }
}

#[test]
fn a_table_that_reaches_out_of_memory_is_refused() {
    let mut firmware = firmware();
    firmware[0x804..0x808].copy_from_slice(&0x8_0000_u32.to_le_bytes());
    assert!(read(&firmware).unwrap_err().contains("MCFG: length"));
}

#[test]
fn no_rsdp_is_said_so() {
    assert!(read(&[0; 64]).unwrap_err().contains("no RSDP"));
    assert!(read(&[]).unwrap_err().contains("no RSDP"));
}
