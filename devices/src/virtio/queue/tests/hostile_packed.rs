//! What only a packed ring can have wrong.

use super::super::host::{DESCRIPTOR_INDIRECT, DESCRIPTOR_NEXT, DESCRIPTOR_WRITE};
use super::*;

const TABLE: u64 = 0x8_0000;
/// Available and used in the first pass over the ring.
const AVAILABLE: u16 = 0x0080;
const USED: u16 = 0x8080;
const SIZE: u16 = 4;

fn fixture(features: RingFeatures) -> Fixture {
    Fixture::new(RingLayout::Packed, SIZE, features)
}

/// Write a descriptor of the ring, available in the first pass.
fn put(fixture: &Fixture, position: u64, (address, length): (u64, u32), id: u16, flags: u16) {
    // Id and flags are where a split descriptor has flags and next.
    fixture.descriptor(RINGS, position, address, length, id, flags | AVAILABLE);
}

fn error_of(features: RingFeatures, build: impl Fn(&Fixture)) -> QueueError {
    let mut fixture = fixture(features);
    build(&fixture);
    fixture.pop().unwrap_err()
}

#[test]
fn any_size_up_to_32768_is_valid() {
    let shared = memory();
    for (size, is_valid) in
        [(0, false), (1, true), (3, true), (100, true), (32768, true), (32769, false)]
    {
        let layout = QueueLayout {
            size,
            descriptor_table: 0x1000,
            available_ring: 0x10_0000,
            used_ring: 0x10_0004,
            format: RingLayout::Packed,
        };
        let record = InflightRecord::private(size);
        let queue = Queue::new(&shared, &layout, ALL, record, None);
        assert_eq!(queue.is_ok(), is_valid, "{size}");
    }
}

#[test]
fn rings_outside_memory_or_misaligned() {
    let fixture = fixture(ALL);
    let open = |change: &dyn Fn(&mut QueueLayout)| {
        let mut layout = fixture.driver.layout();
        change(&mut layout);
        let record = InflightRecord::private(SIZE);
        Queue::new(&fixture.memory, &layout, ALL, record, None).unwrap_err()
    };
    for error in [
        open(&|layout| layout.descriptor_table = 2 * MIB - 48),
        open(&|layout| layout.descriptor_table = u64::MAX - 15),
        open(&|layout| layout.available_ring = 2 * MIB),
        open(&|layout| layout.used_ring = 17 * MIB),
    ] {
        assert!(matches!(error, QueueError::RingOutsideMemory { .. }), "{error}");
    }
    for (part, error) in [
        (RingPart::Descriptors, open(&|layout| layout.descriptor_table += 8)),
        (RingPart::Available, open(&|layout| layout.available_ring += 2)),
        (RingPart::Used, open(&|layout| layout.used_ring += 1)),
    ] {
        let QueueError::RingMisaligned { part: found, .. } = error else {
            panic!("{error}");
        };
        assert_eq!(found, part);
    }
}

#[test]
fn ids_that_do_not_exist_or_are_in_flight() {
    for id in [SIZE, 0x7fff, u16::MAX] {
        let error = error_of(PLAIN, |f| put(f, 0, (DATA, 1), id, 0));
        assert_eq!(error, QueueError::IdOutOfRange { id, size: SIZE });
    }
    let mut fixture = fixture(PLAIN);
    put(&fixture, 0, (DATA, 1), 3, 0);
    put(&fixture, 1, (DATA, 1), 3, 0);
    assert!(fixture.pop().unwrap());
    assert_eq!(fixture.pop().unwrap_err(), QueueError::HeadInFlight { head: 3 });
    assert_eq!(fixture.pop().unwrap_err(), QueueError::HeadInFlight { head: 3 });
    fixture.device.push_used(3, 0);
    let _ = fixture.device.publish();
    assert!(fixture.pop().unwrap(), "now it may come again");
}

#[test]
fn wrap_counters_that_do_not_fit() {
    // Used, available in the other pass, never written: nothing is there.
    for flags in [USED, 0x8000, 0] {
        let mut fixture = fixture(PLAIN);
        fixture.descriptor(RINGS, 0, DATA, 1, 0, flags);
        assert!(!fixture.pop().unwrap());
        assert!(!fixture.device.has_available());
        assert_eq!(fixture.device.available(), 0);
    }
    // The same inside a chain.
    for flags in [USED, 0x8000, 0] {
        let error = error_of(PLAIN, |f| {
            put(f, 0, (DATA, 1), 0, DESCRIPTOR_NEXT);
            f.descriptor(RINGS, 1, DATA, 1, 0, flags);
        });
        assert_eq!(error, QueueError::ChainNotAvailable { position: 1 });
    }
}

#[test]
fn chains_without_an_end() {
    let error = error_of(PLAIN, |f| {
        for position in 0..4 {
            put(f, position, (DATA, 1), 0, DESCRIPTOR_NEXT);
        }
    });
    assert_eq!(error, QueueError::RingOverrun { size: SIZE });
}

#[test]
fn descriptors_that_the_device_still_has() {
    let mut fixture = fixture(PLAIN);
    for position in 0..4 {
        put(&fixture, position, (DATA, 1), position as u16, 0);
        assert!(fixture.pop().unwrap());
    }
    assert!(!fixture.pop().unwrap());
    // Available for the second pass.
    fixture.descriptor(RINGS, 0, DATA, 1, 0, 0x8000);
    assert!(fixture.device.has_available());
    assert_eq!(fixture.pop().unwrap_err(), QueueError::RingOverrun { size: SIZE });
    for id in 0..4 {
        fixture.device.push_used(id, 0);
    }
    let _ = fixture.device.publish();
    assert_eq!(fixture.device.in_flight(), 0);
}

#[test]
fn buffers_that_are_empty_outside_memory_or_in_the_wrong_order() {
    let error = error_of(PLAIN, |f| put(f, 0, (DATA, 0), 2, 0));
    assert_eq!(error, QueueError::ZeroLength { head: 2 });
    let (head, address, length) = (2, 2 * MIB - 1, 2);
    let error = error_of(PLAIN, |f| put(f, 0, (address, length), head, 0));
    assert_eq!(error, QueueError::BufferOutsideMemory { head, address, length });
    let error = error_of(PLAIN, |f| {
        put(f, 0, (DATA, 1), 0, DESCRIPTOR_NEXT | DESCRIPTOR_WRITE);
        put(f, 1, (DATA, 1), 2, 0);
    });
    assert_eq!(error, QueueError::ReadableAfterWritable { head: 2 });
}

#[test]
fn indirect_tables_that_break_the_rules() {
    let (next, indirect) = (DESCRIPTOR_NEXT, DESCRIPTOR_INDIRECT);
    let error = error_of(PLAIN, |f| put(f, 0, (TABLE, 16), 1, indirect));
    assert_eq!(error, QueueError::IndirectNotNegotiated { head: 1 });
    for length in [0, 1, 15, 17, 33] {
        let error = error_of(ALL, |f| put(f, 0, (TABLE, length), 1, indirect));
        assert_eq!(error, QueueError::IndirectLength { head: 1, length });
    }
    let error = error_of(ALL, |f| put(f, 0, (TABLE, 16), 1, indirect | next));
    assert_eq!(error, QueueError::IndirectNotAlone { head: 1 });
    let error = error_of(ALL, |f| {
        put(f, 0, (DATA, 1), 1, next);
        put(f, 1, (TABLE, 16), 1, indirect);
    });
    assert_eq!(error, QueueError::IndirectNotAlone { head: 1 });
    let error = error_of(ALL, |f| {
        put(f, 0, (TABLE, 16), 1, indirect);
        f.descriptor(TABLE, 0, TABLE, 16, 0, indirect);
    });
    assert_eq!(error, QueueError::NestedIndirect { head: 1 });
    let error = error_of(ALL, |f| put(f, 0, (2 * MIB, 16), 1, indirect));
    assert!(matches!(error, QueueError::BufferOutsideMemory { .. }));
    let error = error_of(ALL, |f| {
        put(f, 0, (TABLE, 16 * 5), 1, indirect);
        for index in 0..5 {
            f.descriptor(TABLE, index, DATA, 1, 0, 0);
        }
    });
    assert_eq!(error, QueueError::TooLong { head: 1, limit: 4 });
}

#[test]
fn all_of_a_table_belongs_to_the_chain_whatever_its_flags_say() {
    let mut fixture = fixture(ALL);
    put(&fixture, 0, (TABLE + 3, 48), 1, DESCRIPTOR_INDIRECT);
    fixture.descriptor(TABLE + 3, 0, DATA, 5, 77, DESCRIPTOR_NEXT);
    fixture.descriptor(TABLE + 3, 1, DATA, 6, 78, USED);
    fixture.descriptor(TABLE + 3, 2, DATA, 7, 79, DESCRIPTOR_WRITE);
    assert!(fixture.pop().unwrap());
    assert_eq!((fixture.chain.readable_bytes(), fixture.chain.writable_bytes()), (11, 7));
    assert_eq!(fixture.chain.head(), 1);
}

#[test]
fn positions_that_no_ring_of_this_size_has() {
    let fixture = fixture(ALL);
    for place in [4, 0x8004, 0x7fff, 0xffff] {
        let position = RingPosition::Packed { next_available: place, next_used: place };
        let record = InflightRecord::private(SIZE);
        let layout = fixture.driver.layout();
        let error = Queue::new(&fixture.memory, &layout, ALL, record, Some(position)).unwrap_err();
        assert!(matches!(error, QueueError::InvalidPosition(_)), "{place:#x}");
    }
}

#[test]
fn event_structures_that_say_nonsense_are_harmless() {
    let events = fixture(ALL).driver.layout().available_ring;
    for place in [0u16, 4, 0x7fff, 0x8000, 0xffff] {
        for flags in [2u16, 3, 0xffff] {
            let mut fixture = fixture(ALL);
            fixture.write(events, place.to_le_bytes());
            fixture.write(events + 2, flags.to_le_bytes());
            for position in 0..3 {
                put(&fixture, position, (DATA, 1), position as u16, 0);
                assert!(fixture.pop().unwrap());
                fixture.device.push_used(position as u16, 0);
                let _ = fixture.device.publish();
            }
        }
    }
}
