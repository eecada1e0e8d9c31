use proptest::prelude::*;

use super::super::{BarKind, BarSpec, DecodedBar, Identity, PciConfig};
use super::*;

const WINDOWS: Windows = Windows {
    low: Window { base: 0xc000_0000, length: 0x2000_0000 },
    high: Window { base: 0x80_0000_0000, length: 0x10_0000_0000 },
    ecam: Window { base: 0xe000_0000, length: 0x1000_0000 },
};
const ECAM: u64 = WINDOWS.ecam.base;

/// A device of one BAR that holds one byte.
struct Toy {
    config: Lock<PciConfig>,
    byte: Lock<u8>,
}

impl Toy {
    fn new(kind: BarKind) -> Arc<Toy> {
        let mut config = PciConfig::new(&Identity {
            vendor: 0x1234,
            device: 0x5678,
            revision: 0,
            class: 0xff_00_00,
            subsystem_vendor: 0,
            subsystem: 0,
        });
        let index = BarIndex::new(0).unwrap();
        config.add_bar(BarSpec { index, kind, size: 0x1000 }).unwrap();
        Arc::new(Toy { config: Lock::new(config), byte: Lock::default() })
    }
}

impl PciDevice for Toy {
    fn read_config(&self, offset: u16, data: &mut [u8]) {
        self.config.lock().read(offset, data);
    }
    fn write_config(&self, offset: u16, data: &[u8]) -> Decoding {
        self.config.lock().write(offset, data)
    }
    fn bars(&self) -> Vec<BarSpec> {
        self.config.lock().bars().to_vec()
    }
    fn place_bar(&self, index: BarIndex, address: u64) {
        self.config.lock().place_bar(index, address);
    }
    fn decoded_bars(&self) -> Vec<DecodedBar> {
        self.config.lock().decoded_bars().collect()
    }
    fn read_bar(&self, _bar: BarIndex, offset: u64, data: &mut [u8]) {
        assert!(offset < 0x1000);
        data.fill(*self.byte.lock());
    }
    fn write_bar(&self, _bar: BarIndex, offset: u64, data: &[u8]) {
        assert!(offset < 0x1000);
        if let Some(byte) = data.first() {
            *self.byte.lock() = *byte;
        }
    }
}

struct Machine {
    root: PciRoot,
    ports: Bus,
    memory: Bus,
}

fn machine() -> Machine {
    let root = PciRoot::new(WINDOWS);
    let (mut ports, mut memory) = (Bus::new(), Bus::new());
    root.insert_ports(&mut ports).unwrap();
    root.insert_memory(&mut memory).unwrap();
    Machine { root, ports, memory }
}

fn read_u32(bus: &Bus, address: u64) -> u32 {
    let mut data = [0; 4];
    bus.read(address, &mut data);
    u32::from_le_bytes(data)
}

fn read_u8(bus: &Bus, address: u64) -> u8 {
    let mut data = [0; 1];
    bus.read(address, &mut data);
    data[0]
}

fn write_u32(bus: &Bus, address: u64, value: u32) {
    bus.write(address, &value.to_le_bytes());
}

fn ecam(address: PciAddress, register: u64) -> u64 {
    ECAM + u64::from(address.devfn()) * 4096 + register
}

#[test]
fn ports_and_ecam_show_the_same_registers() {
    let machine = machine();
    let address = machine.root.attach(Toy::new(BarKind::Memory32)).unwrap();
    assert_eq!(address.to_string(), "0000:00:01.0");
    write_u32(&machine.ports, 0xcf8, 1 << 31 | 0x800);
    assert_eq!(read_u32(&machine.ports, 0xcf8), 1 << 31 | 0x800);
    assert_eq!(read_u32(&machine.ports, 0xcfc), 0x5678_1234);
    assert_eq!(read_u8(&machine.ports, 0xcfe), 0x78);
    assert_eq!(read_u32(&machine.memory, ecam(address, 0)), 0x5678_1234);
    machine.ports.write(0xcf8, &(1_u32 << 31 | 0x83c).to_le_bytes());
    machine.ports.write(0xcfc, &[9]);
    assert_eq!(read_u8(&machine.memory, ecam(address, 0x3c)), 9);
}

#[test]
fn narrow_writes_to_the_address_port_do_not_reach_the_register() {
    let machine = machine();
    write_u32(&machine.ports, 0xcf8, 1 << 31);
    for data in [&[0_u8; 1][..], &[0; 2], &[0; 8]] {
        machine.ports.write(0xcf8, data);
    }
    assert_eq!(read_u32(&machine.ports, 0xcfc), 0x0008_1b36);
    write_u32(&machine.ports, 0xcf8, 0);
    assert_eq!(read_u32(&machine.ports, 0xcfc), 0xffff_ffff, "not enabled");
}

#[test]
fn absent_functions_buses_and_extended_space_read_as_ones() {
    let machine = machine();
    let bridge = PciAddress::HOST_BRIDGE;
    assert_eq!(read_u32(&machine.memory, ecam(bridge, 0)), 0x0008_1b36);
    assert_eq!(read_u32(&machine.memory, ecam(bridge, 0x100)), 0xffff_ffff);
    assert_eq!(read_u32(&machine.memory, ecam(PciAddress::new(3, 0).unwrap(), 0)), 0xffff_ffff);
    assert_eq!(read_u32(&machine.memory, ECAM + 0x10_0000), 0xffff_ffff);
    write_u32(&machine.ports, 0xcf8, 1 << 31 | 1 << 16);
    assert_eq!(read_u32(&machine.ports, 0xcfc), 0xffff_ffff);
}

#[test]
fn bars_are_preassigned_and_answer_once_enabled() {
    let machine = machine();
    let address = machine.root.attach(Toy::new(BarKind::Memory64)).unwrap();
    let base = WINDOWS.high.base;
    assert_eq!(read_u32(&machine.memory, ecam(address, 0x14)), (base >> 32) as u32);
    assert_eq!(read_u8(&machine.memory, base), 0xff);
    machine.memory.write(ecam(address, 4), &[2]);
    assert_eq!(read_u8(&machine.memory, base), 0);
    machine.memory.write(base + 0xfff, &[7]);
    assert_eq!(read_u8(&machine.memory, base), 7);
    assert_eq!(read_u8(&machine.memory, base + 0x1000), 0xff);
}

#[test]
fn bars_move_from_window_to_window() {
    let machine = machine();
    let address = machine.root.attach(Toy::new(BarKind::Memory64)).unwrap();
    machine.memory.write(ecam(address, 4), &[2]);
    machine.memory.write(WINDOWS.high.base, &[5]);
    write_u32(&machine.memory, ecam(address, 0x14), 0);
    write_u32(&machine.memory, ecam(address, 0x10), 0xd000_0000);
    assert_eq!(read_u8(&machine.memory, WINDOWS.high.base), 0xff);
    assert_eq!(read_u8(&machine.memory, 0xd000_0000), 5);
    machine.memory.write(ecam(address, 4), &[0]);
    assert_eq!(read_u8(&machine.memory, 0xd000_0000), 0xff);
}

#[test]
fn of_overlapping_bars_one_answers() {
    let machine = machine();
    let toys = [Toy::new(BarKind::Memory32), Toy::new(BarKind::Memory32)];
    for (toy, byte) in toys.iter().zip(1..) {
        *toy.byte.lock() = byte;
        let address = machine.root.attach(toy.clone()).unwrap();
        write_u32(&machine.memory, ecam(address, 0x10), 0xc100_0000);
        machine.memory.write(ecam(address, 4), &[2]);
    }
    assert_eq!(read_u8(&machine.memory, 0xc100_0000), 1);
}

#[test]
fn devices_beyond_31_are_further_functions() {
    let machine = machine();
    let addresses: Vec<PciAddress> =
        (0..40).map(|_| machine.root.attach(Toy::new(BarKind::Memory32)).unwrap()).collect();
    assert_eq!(addresses[30].to_string(), "0000:00:1f.0");
    assert_eq!(addresses[31].to_string(), "0000:00:01.1");
    let header = |address| read_u32(&machine.memory, ecam(address, 0xc)) >> 16 & 0xff;
    assert_eq!(header(addresses[0]), 0x80);
    assert_eq!(header(addresses[30]), 0);
    assert_eq!(header(PciAddress::HOST_BRIDGE), 0);
    for _ in 40..248 {
        machine.root.attach(Toy::new(BarKind::Memory64)).unwrap();
    }
    let error = machine.root.attach(Toy::new(BarKind::Memory64)).unwrap_err();
    assert!(matches!(error, PciError::BusFull), "{error}");
}

proptest! {
    #[test]
    fn any_configuration_access_is_harmless(
        steps in proptest::collection::vec(
            (0_u8..6, any::<u64>(), 0_usize..9, any::<[u8; 8]>()), 1..100)
    ) {
        let machine = machine();
        for kind in [BarKind::Memory32, BarKind::Memory64, BarKind::Memory64] {
            machine.root.attach(Toy::new(kind)).unwrap();
        }
        for (kind, place, length, mut bytes) in steps {
            let register = ECAM + place % (4 * 0x8000) / 0x8000 * 0x8000 + place % 0x140;
            let data = &mut bytes[..length];
            match kind {
                0 => machine.memory.write(register, data),
                1 => machine.memory.read(register, data),
                2 => machine.ports.write(0xcf8 + place % 8, data),
                3 => machine.ports.read(0xcf8 + place % 8, data),
                4 => machine.memory.write(WINDOWS.low.base + place % 0x8000, data),
                _ => machine.memory.read(WINDOWS.high.base + place % 0x8000, data),
            }
            let topology = machine.root.shared.topology.read();
            for pair in topology.mapped.windows(2) {
                prop_assert!(pair[0].last < pair[1].address);
            }
        }
    }
}
