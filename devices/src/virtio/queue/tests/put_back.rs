//! Buffers that were taken for nothing, and buffers made of several chains.

use super::super::driver::Buffer;
use super::*;

over_both_rings!(
    a_buffer_that_was_put_back_comes_out_again_and_is_used_once,
    chains_are_joined_and_written_across_their_borders,
);

fn a_buffer_that_was_put_back_comes_out_again_and_is_used_once(format: RingLayout) {
    let mut fixture = Fixture::new(format, 4, ALL);
    let buffer = Buffer::Writable { address: DATA, length: 8 };
    let heads: Vec<u16> = (0..4).map(|_| fixture.driver.add(&[buffer]).unwrap()).collect();
    let _ = fixture.driver.publish();
    while fixture.pop().unwrap() {}
    assert_eq!(fixture.device.in_flight(), 4);
    fixture.device.push_used(heads[1], 8);
    let _ = fixture.device.publish();
    for head in [heads[0], heads[3], heads[2]] {
        fixture.device.put_back(head);
    }
    assert!(fixture.device.is_recovering());
    assert_eq!((fixture.device.in_flight(), fixture.device.available()), (0, 3));
    assert_eq!(fixture.driver.take_used().unwrap().head, heads[1]);
    let fresh = fixture.driver.add(&[buffer]).unwrap();
    let _ = fixture.driver.publish();
    for head in [heads[0], heads[3], heads[2], fresh] {
        assert!(fixture.pop().unwrap());
        assert_eq!(fixture.chain.head(), head);
        assert_eq!(fixture.chain.writable_bytes(), 8);
        fixture.device.push_used(head, 0);
    }
    assert!(!fixture.pop().unwrap());
    let _ = fixture.device.publish();
    assert_eq!(std::iter::from_fn(|| fixture.driver.take_used()).count(), 4);
}

fn chains_are_joined_and_written_across_their_borders(format: RingLayout) {
    let mut fixture = Fixture::new(format, 8, ALL);
    for place in 0..3 {
        let address = DATA + 0x100 * place;
        let buffer = [
            Buffer::Writable { address, length: 3 },
            Buffer::Writable { address: address + 0x10, length: 2 },
        ];
        fixture.driver.add(&buffer).unwrap();
    }
    let _ = fixture.driver.publish();
    let mut joined = GuestBuffers::new(fixture.memory.clone());
    let mut last = GuestBuffers::new(fixture.memory.clone());
    assert!(fixture.pop().unwrap());
    joined.append(&fixture.chain, Side::Writable);
    assert!(fixture.pop().unwrap());
    joined.append(&fixture.chain, Side::Writable);
    assert!(fixture.pop().unwrap());
    last.fill(&fixture.chain, Side::Writable);
    joined.absorb(&mut last);
    assert_eq!((joined.bytes(), last.bytes(), last.segments().len()), (15, 0, 0));
    joined.copy_from(&[b'.'; 15]);
    joined.copy_from_at(4, b"abcdefg");
    joined.copy_from_at(14, b"zzz");
    joined.copy_from_at(15, b"nothing");
    let mut all = [0; 15];
    joined.copy_to(&mut all);
    assert_eq!(&all, b"....abcdefg...z");
    joined.advance(5);
    let mut rest = [0; 10];
    joined.copy_to(&mut rest);
    assert_eq!(&rest, b"bcdefg...z");
    joined.clear();
    assert_eq!((joined.bytes(), joined.segments().len()), (0, 0));
}
