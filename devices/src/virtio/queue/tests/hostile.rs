//! Rings that break the rules give errors that say how, and nothing worse.

use proptest::prelude::*;

use super::super::host::{DESCRIPTOR_INDIRECT, DESCRIPTOR_NEXT, DESCRIPTOR_WRITE};
use super::*;

const TABLE: u64 = 0x8_0000;

/// What a queue of 4 says of one chain that `build` writes and that starts at descriptor 0.
fn error_of(features: RingFeatures, build: impl Fn(&Fixture)) -> QueueError {
    let mut fixture = Fixture::new(RingLayout::Split, 4, features);
    build(&fixture);
    fixture.make_available(0);
    fixture.pop().unwrap_err()
}

#[test]
fn sizes_that_a_split_queue_cannot_have() {
    let fixture = Fixture::new(RingLayout::Split, 4, ALL);
    for size in [0, 3, 100, 65535] {
        let layout = QueueLayout { size, ..fixture.driver.layout() };
        let record = InflightRecord::private(4);
        let error = Queue::new(&fixture.memory, &layout, ALL, record, None).unwrap_err();
        assert!(matches!(error, QueueError::InvalidSize { .. }), "{size}");
    }
}

#[test]
fn rings_outside_memory_or_misaligned() {
    let fixture = Fixture::new(RingLayout::Split, 4, ALL);
    let open = |change: &dyn Fn(&mut QueueLayout)| {
        let mut layout = fixture.driver.layout();
        change(&mut layout);
        let record = InflightRecord::private(4);
        Queue::new(&fixture.memory, &layout, ALL, record, None).unwrap_err()
    };
    for address in [2 * MIB, 2 * MIB - 16, u64::MAX - 15, 1 << 63] {
        let error = open(&|layout| layout.descriptor_table = address & !15);
        assert!(matches!(error, QueueError::RingOutsideMemory { .. }));
        let error = open(&|layout| layout.available_ring = (address + 6) & !1);
        assert!(matches!(error, QueueError::RingOutsideMemory { .. }));
        let error = open(&|layout| layout.used_ring = address & !3);
        assert!(matches!(error, QueueError::RingOutsideMemory { .. }));
    }
    for (part, error) in [
        (RingPart::Descriptors, open(&|l| l.descriptor_table += 8)),
        (RingPart::Available, open(&|l| l.available_ring += 1)),
        (RingPart::Used, open(&|l| l.used_ring += 2)),
    ] {
        let QueueError::RingMisaligned { part: found, .. } = error else {
            panic!("{error}");
        };
        assert_eq!(found, part);
    }
}

#[test]
fn an_available_index_that_jumps() {
    for index in [5u16, 6, 32768, 65535] {
        let mut fixture = Fixture::new(RingLayout::Split, 4, ALL);
        let ring = fixture.driver.layout().available_ring;
        fixture.write(ring + 2, index.to_le_bytes());
        let error = fixture.pop().unwrap_err();
        assert!(matches!(error, QueueError::AvailableIndexJumped { .. }));
    }
}

#[test]
fn an_available_index_that_goes_back() {
    let mut fixture = Fixture::new(RingLayout::Split, 4, PLAIN);
    let ring = fixture.driver.layout().available_ring;
    fixture.descriptor(RINGS, 0, DATA, 1, 0, 0);
    fixture.make_available(0);
    assert!(fixture.pop().unwrap());
    fixture.write(ring + 2, 0u16.to_le_bytes());
    let error = fixture.pop().unwrap_err();
    assert!(matches!(error, QueueError::AvailableIndexJumped { .. }));
}

#[test]
fn a_head_that_does_not_exist_or_is_in_flight() {
    let mut fixture = Fixture::new(RingLayout::Split, 4, PLAIN);
    fixture.make_available(4);
    let error = fixture.pop().unwrap_err();
    assert_eq!(error, QueueError::HeadOutOfRange { head: 4, size: 4 });

    let mut fixture = Fixture::new(RingLayout::Split, 4, PLAIN);
    let ring = fixture.driver.layout().available_ring;
    fixture.descriptor(RINGS, 1, DATA, 1, 0, 0);
    fixture.write(ring + 4, [1, 0, 1, 0]);
    fixture.write(ring + 2, 2u16.to_le_bytes());
    assert!(fixture.pop().unwrap());
    let error = fixture.pop().unwrap_err();
    assert_eq!(error, QueueError::HeadInFlight { head: 1 });
}

#[test]
fn chains_that_loop_or_leave_the_table() {
    let next = DESCRIPTOR_NEXT;
    let error = error_of(ALL, |f| f.descriptor(RINGS, 0, DATA, 1, next, 0));
    assert_eq!(error, QueueError::Loop { head: 0 });
    let error = error_of(ALL, |f| {
        f.descriptor(RINGS, 0, DATA, 1, next, 1);
        f.descriptor(RINGS, 1, DATA, 1, next, 0);
    });
    assert_eq!(error, QueueError::Loop { head: 0 });
    let error = error_of(ALL, |f| f.descriptor(RINGS, 0, DATA, 1, next, 4));
    let (head, next, size) = (0, 4, 4);
    assert_eq!(error, QueueError::NextOutOfRange { head, next, size });
}

#[test]
fn buffers_that_are_empty_outside_memory_or_in_the_wrong_order() {
    let error = error_of(ALL, |f| f.descriptor(RINGS, 0, DATA, 0, 0, 0));
    assert_eq!(error, QueueError::ZeroLength { head: 0 });
    for (address, length) in [
        (2 * MIB, 1),
        (2 * MIB - 1, 2),
        (0, 2 * MIB as u32 + 1),
        (u64::MAX, 1),
        (u64::MAX, u32::MAX),
        (17 * MIB - 4, 5),
    ] {
        let error = error_of(ALL, |f| f.descriptor(RINGS, 0, address, length, 0, 0));
        let head = 0;
        assert_eq!(error, QueueError::BufferOutsideMemory { head, address, length });
    }
    let error = error_of(ALL, |f| {
        let flags = DESCRIPTOR_NEXT | DESCRIPTOR_WRITE;
        f.descriptor(RINGS, 0, DATA, 1, flags, 1);
        f.descriptor(RINGS, 1, DATA, 1, 0, 0);
    });
    assert_eq!(error, QueueError::ReadableAfterWritable { head: 0 });
}

#[test]
fn indirect_tables_that_break_the_rules() {
    let (next, indirect) = (DESCRIPTOR_NEXT, DESCRIPTOR_INDIRECT);
    let error = error_of(PLAIN, |f| f.descriptor(RINGS, 0, TABLE, 16, indirect, 0));
    assert_eq!(error, QueueError::IndirectNotNegotiated { head: 0 });
    for length in [0, 1, 15, 17, 33] {
        let error = error_of(ALL, |f| {
            f.descriptor(RINGS, 0, TABLE, length, indirect, 0);
        });
        assert_eq!(error, QueueError::IndirectLength { head: 0, length });
    }
    let error = error_of(ALL, |f| {
        f.descriptor(RINGS, 0, TABLE, 16, indirect | next, 1);
    });
    assert_eq!(error, QueueError::IndirectWithNext { head: 0 });
    let error = error_of(ALL, |f| {
        f.descriptor(RINGS, 0, TABLE, 16, indirect, 0);
        f.descriptor(TABLE, 0, TABLE, 16, indirect, 0);
    });
    assert_eq!(error, QueueError::NestedIndirect { head: 0 });
    let error = error_of(ALL, |f| f.descriptor(RINGS, 0, 2 * MIB, 16, indirect, 0));
    assert!(matches!(error, QueueError::BufferOutsideMemory { .. }));
    let error = error_of(ALL, |f| {
        f.descriptor(RINGS, 0, TABLE, 32, indirect, 0);
        f.descriptor(TABLE, 0, DATA, 1, next, 2);
    });
    assert!(matches!(error, QueueError::NextOutOfRange { .. }));
    let error = error_of(ALL, |f| {
        f.descriptor(RINGS, 0, TABLE, 16 * 8, indirect, 0);
        for index in 0..8 {
            f.descriptor(TABLE, index, DATA, 1, next, index as u16 + 1);
        }
    });
    assert_eq!(error, QueueError::TooLong { head: 0, limit: 4 });
}

#[test]
fn an_indirect_table_need_not_be_aligned() {
    let mut fixture = Fixture::new(RingLayout::Split, 4, ALL);
    fixture.descriptor(RINGS, 0, TABLE + 3, 16, DESCRIPTOR_INDIRECT, 0);
    fixture.descriptor(TABLE + 3, 0, DATA, 77, 0, 0);
    fixture.make_available(0);
    assert!(fixture.pop().unwrap());
    assert_eq!(fixture.chain.readable_bytes(), 77);
}

#[test]
fn a_normal_descriptor_may_lead_to_an_indirect_table() {
    let mut fixture = Fixture::new(RingLayout::Split, 4, ALL);
    fixture.descriptor(RINGS, 0, DATA, 5, DESCRIPTOR_NEXT, 1);
    fixture.descriptor(RINGS, 1, TABLE, 16, DESCRIPTOR_INDIRECT, 0);
    fixture.descriptor(TABLE, 0, DATA, 6, DESCRIPTOR_WRITE, 0);
    fixture.make_available(0);
    assert!(fixture.pop().unwrap());
    assert_eq!(fixture.chain.readable_bytes(), 5);
    assert_eq!(fixture.chain.writable_bytes(), 6);
}

#[test]
fn a_chain_for_any_buffers_tells_of_those_outside_memory() {
    let mut fixture = Fixture::new(RingLayout::Split, 4, PLAIN);
    fixture.chain = Chain::for_any_buffers(fixture.memory.clone(), 4);
    let outside = driver::Buffer::Readable { address: 1 << 40, length: 7 };
    let inside = driver::Buffer::Readable { address: DATA, length: 3 };
    let buffers = [outside, inside, driver::Buffer::Writable { address: 2 << 40, length: 1 }];
    fixture.driver.add(&buffers).unwrap();
    let _ = fixture.driver.publish();
    assert!(fixture.pop().unwrap());
    let chain = &mut fixture.chain;
    assert_eq!(chain.outside(), Some(GuestAddress(2 << 40)));
    assert_eq!((chain.readable_bytes(), chain.writable_bytes()), (3, 0));
    assert!(chain.read_exact(&mut [0; 3]) && chain.take_last().is_none());
    assert_eq!(chain.write(&[1]), 0);
    fixture.driver.add(&[inside]).unwrap();
    let _ = fixture.driver.publish();
    assert!(fixture.pop().unwrap());
    assert_eq!(fixture.chain.outside(), None);
}

#[test]
fn a_chain_of_more_than_four_gib() {
    let file = memfd_create("guest", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, 3 << 30).unwrap();
    let region =
        RegionSpec { base: GuestAddress(0), length: 3 << 30, file: Arc::new(file), file_offset: 0 };
    let memory = Rc::new(GuestMemory::new(vec![region]).unwrap());
    let mut driver = DriverQueue::new(&memory, RINGS, 4, RingLayout::Split, PLAIN);
    let buffer = driver::Buffer::Writable { address: 0, length: 3 << 30 };
    driver.add(&[buffer, buffer]).unwrap();
    let _ = driver.publish();
    let record = InflightRecord::private(4);
    let mut device = Queue::new(&memory, &driver.layout(), PLAIN, record, None).unwrap();
    let mut chain = Chain::new(memory, 4);
    let error = device.pop(&mut chain).unwrap_err();
    assert_eq!(error, QueueError::TotalLengthOverflow { head: 0 });
}

/// Words that look like ring contents more often than random bytes do.
fn ring_words() -> impl Strategy<Value = Vec<u64>> {
    let word = prop_oneof![
        Just(0u64),
        any::<u64>(),
        // An address in or near memory.
        (0u64..0x24_0000),
        // length | flags | next of a descriptor; or indices of a ring.
        (0u64..0x100, 0u64..8, 0u64..10)
            .prop_map(|(length, flags, next)| { length | flags << 32 | next << 48 }),
        (0u64..10, 0u64..10, 0u64..10, 0u64..10)
            .prop_map(|(a, b, c, d)| { a | b << 16 | c << 32 | d << 48 }),
    ];
    prop::collection::vec(word, 64)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn nonsense_gives_errors_in_bounded_time(
        words in ring_words(),
        more in ring_words(),
        features in (any::<bool>(), any::<bool>()),
        format in prop::sample::select(&BOTH),
    ) {
        let features = RingFeatures { indirect: features.0, event_idx: features.1 };
        let mut fixture = Fixture::new(format, 8, features);
        for contents in [words, more] {
            let bytes: Vec<u8> = contents.iter().flat_map(|word| word.to_le_bytes()).collect();
            fixture.memory.write_slice(GuestAddress(RINGS), &bytes).unwrap();
            fixture.memory.write_slice(GuestAddress(TABLE), &bytes).unwrap();
            let mut taken = Vec::new();
            loop {
                prop_assert!(taken.len() <= 8);
                match fixture.pop() {
                    Ok(true) => taken.push(fixture.chain.head()),
                    Ok(false) | Err(_) => break,
                }
                let mut some = [0; 3];
                let _ = fixture.chain.read_exact(&mut some);
                let _ = fixture.chain.take_last();
            }
            for head in taken {
                fixture.device.push_used(head, 1);
            }
            let _ = fixture.device.publish();
            let _ = fixture.device.enable_kicks();
            fixture.device.disable_kicks();
        }
    }
}
