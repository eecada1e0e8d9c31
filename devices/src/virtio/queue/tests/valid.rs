//! Well-formed chains come out as the driver put them in.

use proptest::prelude::*;

use super::super::driver::{Buffer, Used};
use super::*;

over_both_rings!(
    an_empty_queue_yields_nothing,
    header_and_status_are_found_wherever_the_driver_splits_them,
    used_buffers_appear_only_when_published_and_in_order,
    indices_wrap,
    a_queue_goes_on_from_a_saved_position,
    a_position_with_buffers_in_flight_needs_a_record,
);

fn an_empty_queue_yields_nothing(format: RingLayout) {
    let mut fixture = Fixture::new(format, 8, ALL);
    assert!(!fixture.pop().unwrap());
    assert!(!fixture.device.has_available());
    assert_eq!(fixture.device.in_flight(), 0);
}

fn header_and_status_are_found_wherever_the_driver_splits_them(format: RingLayout) {
    let mut fixture = Fixture::new(format, 8, ALL);
    fixture.write(DATA, *b"head");
    fixture.write(DATA + 0x1000, *b"erDATA");
    let head = fixture
        .driver
        .add(&[
            Buffer::Readable { address: DATA, length: 4 },
            Buffer::Readable { address: DATA + 0x1000, length: 6 },
            Buffer::Writable { address: DATA + 0x2000, length: 9 },
        ])
        .unwrap();
    let _ = fixture.driver.publish();
    assert!(fixture.pop().unwrap());
    let chain = &mut fixture.chain;
    assert_eq!(chain.head(), head);
    let mut header = [0; 6];
    assert!(chain.read_exact(&mut header));
    assert_eq!(&header, b"header");
    assert_eq!(chain.readable_bytes(), 4);
    let status = chain.take_last().unwrap();
    assert_eq!(chain.writable_bytes(), 8);
    assert_eq!(chain.write(b"0123456789"), 8);
    assert!(!chain.read_exact(&mut header), "four bytes are left");
    assert!(chain.take_last().is_none());
    assert_eq!(status.as_ptr(), fixture.host(DATA + 0x2008, 1));
    let mut written = [0; 8];
    let address = GuestAddress(DATA + 0x2000);
    fixture.memory.read_slice(address, &mut written).unwrap();
    assert_eq!(&written, b"01234567");
}

fn used_buffers_appear_only_when_published_and_in_order(format: RingLayout) {
    let mut fixture = Fixture::new(format, 4, ALL);
    let buffer = Buffer::Writable { address: DATA, length: 8 };
    let heads: Vec<u16> = (0..4).map(|_| fixture.driver.add(&[buffer]).unwrap()).collect();
    assert_eq!(fixture.driver.add(&[buffer]), None);
    let _ = fixture.driver.publish();
    for head in &heads {
        assert!(fixture.pop().unwrap());
        assert_eq!(fixture.chain.head(), *head);
    }
    assert!(!fixture.pop().unwrap());
    fixture.device.push_used(heads[2], 7);
    fixture.device.push_used(heads[0], 5);
    assert_eq!(fixture.driver.take_used(), None);
    assert_eq!(fixture.device.in_flight(), 4);
    let _ = fixture.device.publish();
    assert_eq!(fixture.device.in_flight(), 2);
    let used = |head, written| Some(Used { head, written });
    assert_eq!(fixture.driver.take_used(), used(heads[2], 7));
    assert_eq!(fixture.driver.take_used(), used(heads[0], 5));
    assert_eq!(fixture.driver.take_used(), None);
}

fn indices_wrap(format: RingLayout) {
    for features in [PLAIN, ALL] {
        let mut fixture = Fixture::new(format, 2, features);
        let buffer = Buffer::Writable { address: DATA, length: 1 };
        for round in 0..70_000u32 {
            let head = fixture.driver.add(&[buffer]).unwrap();
            let _ = fixture.driver.publish();
            assert!(fixture.pop().unwrap());
            fixture.device.push_used(head, round);
            let _ = fixture.device.publish();
            assert_eq!(fixture.driver.take_used().unwrap().written, round);
        }
    }
}

fn a_queue_goes_on_from_a_saved_position(format: RingLayout) {
    let mut fixture = Fixture::new(format, 4, ALL);
    let buffer = Buffer::Writable { address: DATA, length: 1 };
    for _ in 0..7 {
        let head = fixture.driver.add(&[buffer]).unwrap();
        let _ = fixture.driver.publish();
        assert!(fixture.pop().unwrap());
        fixture.device.push_used(head, 0);
        let _ = fixture.device.publish();
        assert!(fixture.driver.take_used().is_some());
    }
    let position = fixture.device.position();
    let head = fixture.driver.add(&[buffer]).unwrap();
    let _ = fixture.driver.publish();
    let layout = fixture.driver.layout();
    let record = InflightRecord::private(4);
    fixture.device = Queue::new(&fixture.memory, &layout, ALL, record, Some(position)).unwrap();
    assert!(fixture.pop().unwrap());
    assert_eq!(fixture.chain.head(), head);
    fixture.device.push_used(head, 9);
    let _ = fixture.device.publish();
    assert_eq!(fixture.driver.take_used(), Some(Used { head, written: 9 }));
}

fn a_position_with_buffers_in_flight_needs_a_record(format: RingLayout) {
    let fixture = Fixture::new(format, 4, ALL);
    let (next_available, next_used) = (3, 1);
    let position = match format {
        RingLayout::Split => RingPosition::Split { next_available, next_used },
        RingLayout::Packed => RingPosition::Packed { next_available, next_used },
    };
    let record = InflightRecord::private(4);
    let layout = fixture.driver.layout();
    let error = Queue::new(&fixture.memory, &layout, ALL, record, Some(position)).unwrap_err();
    assert!(matches!(error, QueueError::InvalidPosition(_)));
}

#[test]
fn split_rings_may_end_where_memory_ends() {
    let memory = memory();
    let used_bytes = 4 + 8 * 4;
    let layout = QueueLayout {
        size: 4,
        descriptor_table: 2 * MIB - 64,
        available_ring: 17 * MIB - 12,
        used_ring: 17 * MIB - used_bytes,
        format: RingLayout::Split,
    };
    let record = InflightRecord::private(4);
    Queue::new(&memory, &layout, PLAIN, record, None).unwrap();
    let record = InflightRecord::private(4);
    let error = Queue::new(&memory, &layout, ALL, record, None).unwrap_err();
    assert!(matches!(error, QueueError::RingOutsideMemory { .. }));
}

/// A chain as a driver may build it: readable buffers, then writable ones.
fn chains() -> impl Strategy<Value = Vec<(bool, Vec<Buffer>)>> {
    let place = (0u64..0x8_0000, 1u32..0x1_0000);
    let one = (
        any::<bool>(),
        prop::collection::vec(place.clone(), 0..4),
        prop::collection::vec(place, 0..4),
    );
    let one = one.prop_filter("a chain has a buffer", |(_, readable, writable)| {
        !readable.is_empty() || !writable.is_empty()
    });
    let one = one.prop_map(|(indirect, readable, writable)| {
        let readable = readable
            .into_iter()
            .map(|(at, length)| Buffer::Readable { address: DATA + at, length });
        let writable = writable
            .into_iter()
            .map(|(at, length)| Buffer::Writable { address: DATA + at, length });
        (indirect, readable.chain(writable).collect())
    });
    prop::collection::vec(one, 1..60)
}

proptest! {
    #[test]
    fn chains_come_out_as_they_went_in(
        chains in chains(), batch in 1usize..5, format in prop::sample::select(&BOTH),
    ) {
        let mut fixture = Fixture::new(format, 16, ALL);
        let mut sent = Vec::new();
        let mut returned = Vec::new();
        for (number, (indirect, buffers)) in chains.iter().enumerate() {
            // As many as fit; then the device works them off.
            let table = 0x8_0000 + 0x100 * (number as u64 % 64);
            let driver = &mut fixture.driver;
            let added = if *indirect {
                driver.add_indirect(table, buffers)
            } else {
                driver.add(buffers)
            };
            if let Some(head) = added {
                sent.push((head, buffers));
            }
            if added.is_some() && !number.is_multiple_of(batch) {
                continue;
            }
            let _ = fixture.driver.publish();
            let mut received = Vec::new();
            while fixture.pop().unwrap() {
                let chain = &fixture.chain;
                let place = |segment: &Segment| (segment.as_ptr(), segment.len());
                let readable: Vec<_> = chain.readable().iter().map(place).collect();
                let writable: Vec<_> = chain.writable().iter().map(place).collect();
                received.push((chain.head(), readable, writable));
            }
            prop_assert_eq!(received.len(), sent.len());
            for ((head, buffers), (got, readable, writable)) in sent.drain(..).zip(received) {
                prop_assert_eq!(head, got);
                let mut want = (Vec::new(), Vec::new());
                for buffer in buffers {
                    match *buffer {
                        Buffer::Readable { address, length } => {
                            want.0.push((fixture.host(address, length as usize), length as usize));
                        }
                        Buffer::Writable { address, length } => {
                            want.1.push((fixture.host(address, length as usize), length as usize));
                        }
                    }
                }
                prop_assert_eq!(want, (readable, writable));
                returned.push(head);
            }
            // Last in, first out: completions need not be in order.
            while let Some(head) = returned.pop() {
                fixture.device.push_used(head, u32::from(head));
            }
            let _ = fixture.device.publish();
            while let Some(used) = fixture.driver.take_used() {
                prop_assert_eq!(u32::from(used.head), used.written);
            }
            prop_assert_eq!(fixture.driver.free_descriptors(), 16);
        }
    }
}
