//! Rings that a guest filled with anything.

use std::rc::Rc;

use devices::memory::{GuestAddress, GuestMemory};
use devices::virtio::backend::RingLayout;
use devices::virtio::queue::{
    Chain, InflightRecord, InflightRegion, Queue, QueueLayout, RingFeatures, Segment,
};
use virtio_queue::desc::split::Descriptor;
use virtio_queue::{QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestMemoryMmap};

use crate::script::Script;

const MEMORY_BYTES: u64 = 64 << 10;
/// Descriptors, then what the driver says, then what the device says; a page each.
const DESCRIPTORS: u64 = 0x1000;
const DRIVER: u64 = 0x2000;
const DEVICE: u64 = 0x3000;
/// Where hostile bytes may go: the rings, and a page of indirect tables.
const END: u64 = 0x5000;
const MOST_STEPS: usize = 200;

pub(crate) fn split(input: &[u8]) {
    drive(RingLayout::Split, input);
}

pub(crate) fn packed(input: &[u8]) {
    drive(RingLayout::Packed, input);
}

fn layout(format: RingLayout, script: &mut Script<'_>) -> QueueLayout {
    let size = match format {
        RingLayout::Split => script.choose(&[1, 2, 4, 8, 16]),
        RingLayout::Packed => u16::from(script.byte() % 16) + 1,
    };
    QueueLayout {
        size,
        descriptor_table: DESCRIPTORS,
        available_ring: DRIVER,
        used_ring: DEVICE,
        format,
    }
}

fn features(script: &mut Script<'_>) -> RingFeatures {
    let bits = script.byte();
    RingFeatures { indirect: bits & 1 == 1, event_idx: bits & 2 == 2 }
}

/// Takes, gives back, puts back, dies and is followed, while the guest writes into its rings.
fn drive(format: RingLayout, input: &[u8]) {
    let mut script = Script::new(input);
    let memory = Rc::new(GuestMemory::sparse(MEMORY_BYTES).expect("memory"));
    let (layout, features) = (layout(format, &mut script), features(&mut script));
    let region = InflightRegion::create(1, 16).expect("memory for a record");
    // A record of a predecessor, which may have been hostile as well.
    let hostile = usize::from(script.byte()) & 0x7f;
    rustix::io::pwrite(region.file(), script.bytes(hostile), 0).expect("room in the record");
    let open = |record: InflightRecord| Queue::new(&memory, &layout, features, record, None);
    fill(&memory, &mut script);
    let Some(record) = region.record(0) else { return };
    let Ok(mut queue) = open(record) else { return };
    let mut chain = Chain::new(memory.clone(), usize::from(layout.size));
    let mut taken = Vec::new();
    for _ in 0..MOST_STEPS {
        if script.is_over() {
            break;
        }
        match script.byte() % 10 {
            0..=3 => match queue.pop(&mut chain) {
                Ok(true) => {
                    chain.readable().iter().chain(chain.writable()).for_each(|segment| {
                        assert!(is_inside(&memory, *segment), "{segment:?} is not of the guest");
                    });
                    assert!(!taken.contains(&chain.head()), "one buffer, taken twice");
                    taken.push(chain.head());
                    assert!(taken.len() <= usize::from(layout.size));
                }
                Ok(false) => {}
                // The queue is broken; a device goes no further.
                Err(_) => return,
            },
            4 => {
                if let Some(head) = pick(&mut taken, &mut script) {
                    queue.push_used(head, script.word());
                }
            }
            5 => {
                if let Some(head) = pick(&mut taken, &mut script) {
                    queue.put_back(head);
                }
            }
            6 => {
                let _ = queue.publish();
            }
            7 => {
                queue.disable_kicks();
                let _ = (queue.enable_kicks(), queue.has_available(), queue.available());
            }
            8 => {
                // It dies here, and another one goes on.
                drop(queue);
                taken.clear();
                let Some(record) = region.record(0) else { return };
                let Ok(next) = open(record) else { return };
                queue = next;
            }
            _ => fill(&memory, &mut script),
        }
    }
}

fn pick(taken: &mut Vec<u16>, script: &mut Script<'_>) -> Option<u16> {
    let index = usize::from(script.byte());
    if taken.is_empty() { None } else { Some(taken.swap_remove(index % taken.len())) }
}

/// Bytes somewhere into the rings.
fn fill(memory: &GuestMemory, script: &mut Script<'_>) {
    let part = script.choose(&[DESCRIPTORS, DRIVER, DEVICE, 0x4000]);
    let at = (part + u64::from(script.byte())).min(END - 256);
    let count = usize::from(script.byte());
    memory.write_slice(GuestAddress(at), script.bytes(count)).expect("rings are in memory");
}

fn is_inside(memory: &GuestMemory, segment: Segment) -> bool {
    let all = memory.host_range(GuestAddress(0), MEMORY_BYTES as usize).expect("all of it");
    let start = (segment.as_ptr() as usize).wrapping_sub(all.as_ptr() as usize);
    start < all.len() && segment.len() <= all.len() - start
}

/// A piece of a buffer: guest address, bytes, whether the device writes it.
type Piece = (u64, u32, bool);

/// What this queue accepts is what rust-vmm's reads from the same bytes. It refuses more: what a driver
/// must not do.
pub(crate) fn differential(input: &[u8]) {
    let mut script = Script::new(input);
    let memory = Rc::new(GuestMemory::sparse(MEMORY_BYTES).expect("memory"));
    let (layout, features) = (layout(RingLayout::Split, &mut script), features(&mut script));
    while !script.is_over() {
        fill(&memory, &mut script);
    }
    let all = [(vm_memory::GuestAddress(0), MEMORY_BYTES as usize)];
    let theirs = GuestMemoryMmap::<()>::from_ranges(&all).expect("memory");
    let mut bytes = vec![0; MEMORY_BYTES as usize];
    memory.read_slice(GuestAddress(0), &mut bytes).expect("all of it");
    theirs.write_slice(&bytes, vm_memory::GuestAddress(0)).expect("as large");

    let mut other = virtio_queue::Queue::new(layout.size).expect("a size that both know");
    other.set_size(layout.size);
    other.set_event_idx(features.event_idx);
    other.try_set_desc_table_address(vm_memory::GuestAddress(DESCRIPTORS)).expect("aligned");
    other.try_set_avail_ring_address(vm_memory::GuestAddress(DRIVER)).expect("aligned");
    other.try_set_used_ring_address(vm_memory::GuestAddress(DEVICE)).expect("aligned");
    other.set_ready(true);

    let record = InflightRecord::private(layout.size);
    let mut queue = Queue::new(&memory, &layout, features, record, None).expect("a queue");
    let mut chain = Chain::new(memory.clone(), usize::from(layout.size));
    let start = memory.host_range(GuestAddress(0), 1).expect("memory").as_ptr() as usize;
    loop {
        let Ok(found) = queue.pop(&mut chain) else { return };
        let expected = other.iter(&theirs).ok().and_then(|mut buffers| buffers.next());
        assert_eq!(found, expected.is_some(), "whether there is a buffer");
        let Some(expected) = expected else { return };
        assert_eq!(chain.head(), expected.head_index());
        let piece = |segment: &Segment, writable| -> Piece {
            ((segment.as_ptr() as usize - start) as u64, segment.len() as u32, writable)
        };
        let readable = chain.readable().iter().map(|segment| piece(segment, false));
        let writable = chain.writable().iter().map(|segment| piece(segment, true));
        let ours: Vec<Piece> = readable.chain(writable).collect();
        let read = |descriptor: Descriptor| -> Piece {
            (descriptor.addr().0, descriptor.len(), descriptor.is_write_only())
        };
        let theirs: Vec<Piece> = expected.map(read).collect();
        assert_eq!(ours, theirs);
    }
}
