//! Tests of both rings against a small device that follows the specification to the letter.

use super::{
    feature,
    queue::{Buffer, Queue, QueueAddresses, Segment, Shape, Used},
};
use std::collections::HashMap;

const SIZE: u16 = 8;

/// The device's side of a ring, on the driver's memory.
struct Device {
    addresses: QueueAddresses,
    layout: Layout,
    /// What the driver made available and the device has not given back: where it was found.
    taken: HashMap<u16, Vec<Piece>>,
}

enum Layout {
    Split { available: u16, used: u16 },
    Packed { available: (u16, bool), used: (u16, bool) },
}

type Piece = (u64, u32, Buffer);

fn load<T: Copy>(address: u64) -> T {
    // SAFETY: an address that the driver gave for its own memory, which is never freed.
    unsafe { core::ptr::with_exposed_provenance::<T>(address as usize).read_volatile() }
}

fn store<T>(address: u64, value: T) {
    // SAFETY: as in `load`.
    unsafe { core::ptr::with_exposed_provenance_mut::<T>(address as usize).write_volatile(value) };
}

/// Length, then the 16 bits at offset 12 (flags or id) and at 14 (next or flags).
fn descriptor(address: u64) -> (u64, u32, u16, u16) {
    (load(address), load(address + 8), load(address + 12), load(address + 14))
}

fn buffer(flags: u16) -> Buffer {
    if flags & 2 != 0 { Buffer::DeviceWrites } else { Buffer::DeviceReads }
}

impl Device {
    fn new(queue: &Queue, features: u64) -> Self {
        let layout = if features & feature::RING_PACKED == 0 {
            Layout::Split { available: 0, used: 0 }
        } else {
            Layout::Packed { available: (0, true), used: (0, true) }
        };
        Self { addresses: queue.addresses(), layout, taken: HashMap::new() }
    }

    /// Takes the next request; its id.
    fn take(&mut self) -> Option<u16> {
        let size = self.addresses.size;
        let table = self.addresses.descriptors;
        let (id, pieces) = match &mut self.layout {
            Layout::Split { available, .. } => {
                if load::<u16>(self.addresses.driver + 2) == *available {
                    return None;
                }
                let place = u64::from(*available % size);
                let head: u16 = load(self.addresses.driver + 4 + 2 * place);
                *available = available.wrapping_add(1);
                (head, split_chain(table, head))
            }
            Layout::Packed { available, .. } => packed_chain(table, size, available)?,
        };
        assert!(self.taken.insert(id, pieces).is_none(), "id {id} twice");
        Some(id)
    }

    fn give_back(&mut self, id: u16, written: u32) {
        let pieces = self.taken.remove(&id).expect("a request that was taken");
        let size = self.addresses.size;
        match &mut self.layout {
            Layout::Split { used, .. } => {
                let element = self.addresses.device + 4 + 8 * u64::from(*used % size);
                store(element, u32::from(id));
                store(element + 4, written);
                *used = used.wrapping_add(1);
                store(self.addresses.device + 2, *used);
            }
            Layout::Packed { used, .. } => {
                let element = self.addresses.descriptors + 16 * u64::from(used.0);
                store(element + 8, written);
                store(element + 12, id);
                store(element + 14, if used.1 { 0x8080_u16 } else { 0 });
                // The model's chains are indirect or as long as their pieces.
                let entries =
                    if pieces.len() > 1 && pieces[0].1 == INDIRECT { 1 } else { pieces.len() };
                advance(used, entries as u16, size);
            }
        }
    }
}

/// Marks a list of pieces that came from an indirect table: a first piece of this length.
const INDIRECT: u32 = u32::MAX;

fn advance(cursor: &mut (u16, bool), by: u16, size: u16) {
    cursor.0 += by;
    if cursor.0 >= size {
        *cursor = (cursor.0 - size, !cursor.1);
    }
}

fn table(address: u64, length: u32) -> Vec<Piece> {
    let mut pieces = vec![(0, INDIRECT, Buffer::DeviceReads)];
    for index in 0..u64::from(length / 16) {
        let (address, length, first, second) = descriptor(address + index * 16);
        // Write is the same bit in both layouts; only its place differs.
        pieces.push((address, length, buffer(first | second & 2)));
    }
    pieces
}

fn split_chain(base: u64, head: u16) -> Vec<Piece> {
    let mut pieces = vec![];
    let mut index = head;
    loop {
        let (address, length, flags, next) = descriptor(base + 16 * u64::from(index));
        if flags & 4 != 0 {
            return table(address, length);
        }
        pieces.push((address, length, buffer(flags)));
        if flags & 1 == 0 {
            return pieces;
        }
        index = next;
    }
}

fn packed_chain(base: u64, size: u16, cursor: &mut (u16, bool)) -> Option<(u16, Vec<Piece>)> {
    let mut pieces = vec![];
    loop {
        let (address, length, id, flags) = descriptor(base + 16 * u64::from(cursor.0));
        let (available, used) = (flags & 0x80 != 0, flags & 0x8000 != 0);
        if available != cursor.1 || used == cursor.1 {
            assert!(pieces.is_empty(), "a chain that is not complete");
            return None;
        }
        advance(cursor, 1, size);
        if flags & 4 != 0 {
            return Some((id, table(address, length)));
        }
        pieces.push((address, length, buffer(flags)));
        if flags & 1 == 0 {
            return Some((id, pieces));
        }
    }
}

fn segments(slot: u16, round: u32) -> [Segment; 2] {
    let at = |offset, length, buffer| Segment {
        address: u64::from(slot) << 16 | u64::from(round) << 4 | offset,
        length,
        buffer,
    };
    [at(1, 16, Buffer::DeviceReads), at(2, 512, Buffer::DeviceWrites)]
}

fn all_feature_sets() -> impl Iterator<Item = u64> {
    (0..8u64).map(|bits| {
        [feature::INDIRECT_DESC, feature::EVENT_IDX, feature::RING_PACKED]
            .into_iter()
            .enumerate()
            .filter(|(index, _)| bits >> index & 1 != 0)
            .map(|(_, feature)| feature)
            .sum()
    })
}

#[test]
fn requests_arrive_whole_and_come_back_in_any_order_through_many_wraps() {
    for features in all_feature_sets() {
        let mut queue = Queue::new(Shape::new(features, SIZE, 4, 2).unwrap());
        let mut device = Device::new(&queue, features);
        for round in 0..40 {
            for slot in 0..4 {
                queue.add(slot, &segments(slot, round));
            }
            assert_eq!(queue.pop(), Ok(None));
            let ids: Vec<u16> = core::iter::from_fn(|| device.take()).collect();
            assert_eq!(ids.len(), 4);
            let mut expected = vec![];
            for id in ids.iter().rev() {
                let pieces = &device.taken[id];
                let data = pieces.strip_prefix(&[(0, INDIRECT, Buffer::DeviceReads)]);
                let data = data.unwrap_or(pieces);
                let slot = (data[0].0 >> 16) as u16;
                let wanted =
                    segments(slot, round).map(|part| (part.address, part.length, part.buffer));
                assert_eq!(data, wanted, "features {features:#x}");
                device.give_back(*id, 512 + u32::from(slot));
                expected.push(Used { slot, written: 512 + u32::from(slot) });
            }
            let used: Vec<Used> = core::iter::from_fn(|| queue.pop().unwrap()).collect();
            assert_eq!(used, expected, "features {features:#x}");
        }
    }
}

#[test]
fn a_request_that_was_never_made_is_an_error() {
    for features in [0, feature::RING_PACKED] {
        let mut queue = Queue::new(Shape::new(features, SIZE, 4, 2).unwrap());
        let mut device = Device::new(&queue, features);
        device.taken.insert(2, vec![(0, 0, Buffer::DeviceReads)]);
        device.give_back(2, 0);
        assert!(queue.pop().unwrap_err().contains("not in flight"));
    }
}

#[test]
fn a_device_that_looks_by_itself_is_kicked_only_when_it_asks() {
    let features = feature::EVENT_IDX;
    let mut queue = Queue::new(Shape::new(features, SIZE, 4, 2).unwrap());
    let device = Device::new(&queue, features);
    let event = device.addresses.device + 4 + 8 * u64::from(SIZE);
    assert!(!queue.needs_kick());
    queue.add(0, &segments(0, 0));
    assert!(queue.needs_kick(), "the first request passes event 0");
    queue.add(1, &segments(1, 0));
    assert!(!queue.needs_kick());
    store(event, 3_u16);
    queue.add(2, &segments(2, 0));
    assert!(!queue.needs_kick());
    queue.add(3, &segments(3, 0));
    assert!(queue.needs_kick());
}

#[test]
fn a_packed_device_is_kicked_by_its_event_structure() {
    let features = feature::EVENT_IDX | feature::RING_PACKED;
    let mut queue = Queue::new(Shape::new(features, SIZE, 4, 2).unwrap());
    let device = Device::new(&queue, features);
    let (place, flags) = (device.addresses.device, device.addresses.device + 2);
    queue.add(0, &segments(0, 0));
    assert!(queue.needs_kick(), "a device that says nothing wants kicks");
    store(flags, 1_u16);
    queue.add(1, &segments(1, 0));
    assert!(!queue.needs_kick());
    store(place, 4_u16 | 0x8000);
    store(flags, 2_u16);
    queue.add(2, &segments(2, 0));
    assert!(queue.needs_kick(), "entries 4 and 5 pass event 4");
    store(place, 0_u16); // of the next wrap
    queue.add(3, &segments(3, 0));
    assert!(!queue.needs_kick());
}
