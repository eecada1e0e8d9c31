//! Rules of the rings that any driver can break.

use devices::virtio::backend::RingLayout;
use executor::sim::Numbers;

use crate::machine::Machine;
use crate::model::Crime;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// Memory that a crime needs.
pub(super) const BYTES: usize = 4096;

/// Breaks a rule on a queue. `free` is memory that nobody uses, [`BYTES`] of it. Afterwards the rings
/// are of no use.
pub(super) fn break_rings(
    machine: &mut Machine,
    random: &mut Numbers,
    queue: usize,
    free: u64,
) -> Option<Crime> {
    // What is published from here on is the crime alone.
    machine.publish_all();
    match machine.settings.layout {
        RingLayout::Split => split(machine, random, queue, free),
        RingLayout::Packed => packed(machine, random, queue, free),
    }
}

fn descriptor(address: u64, length: u32, flags: u16, next: u16) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&address.to_le_bytes());
    bytes[8..12].copy_from_slice(&length.to_le_bytes());
    bytes[12..14].copy_from_slice(&flags.to_le_bytes());
    bytes[14..].copy_from_slice(&next.to_le_bytes());
    bytes
}

fn word(machine: &Machine, address: u64) -> u16 {
    let bytes = machine.read(address, 2);
    u16::from_le_bytes([bytes[0], bytes[1]])
}

fn split(machine: &mut Machine, random: &mut Numbers, queue: usize, free: u64) -> Option<Crime> {
    let layout = machine.driver(queue).layout();
    if machine.driver(queue).free_descriptors() == 0 {
        return None;
    }
    let size = layout.size;
    // A descriptor that is free: the driver's own list would give it next.
    let head = machine.driver(queue).add(&[readable(free, 16)])?;
    machine.outlaw = Some((queue, head));
    let table = layout.descriptor_table + 16 * u64::from(head);
    let index_at = layout.available_ring + 2;
    let index = word(machine, index_at);
    let mut entry = head;
    let mut jump = 1;
    let mut crime = Crime::Unforgivable;
    match random.below(7) {
        0 => entry = size + random.below(1000) as u16,
        1 => jump = size + 1 + random.below(100) as u16,
        // A chain that is a loop.
        2 => machine.write(table, &descriptor(free, 16, NEXT, head)),
        3 => machine.write(table, &descriptor(free, 16, NEXT, size)),
        4 => machine.write(table, &descriptor(free, 0, 0, 0)),
        5 => {
            // The entry behind the end of an indirect table would have the device write.
            machine.write(table, &descriptor(free + 0x800, 32, INDIRECT, 0));
            machine.write(free + 0x800, &descriptor(free, 16, NEXT, 1));
            machine.write(free + 0x810, &descriptor(free + 64, 512, NEXT | WRITE, 2));
            machine.write(free + 0x820, &descriptor(free + 0x400, 1024, WRITE, 0));
        }
        _ => {
            machine.write(table, &descriptor(u64::MAX - 64, 512, 0, 0));
            // Some devices answer a request with an error.
            crime = Crime::Petty;
        }
    }
    let slot = u64::from(index % size);
    machine.write(layout.available_ring + 4 + 2 * slot, &entry.to_le_bytes());
    machine.write(index_at, &index.wrapping_add(jump).to_le_bytes());
    Some(crime)
}

fn packed(machine: &mut Machine, random: &mut Numbers, queue: usize, free: u64) -> Option<Crime> {
    let layout = machine.driver(queue).layout();
    let before = machine.read(layout.descriptor_table, 16 * usize::from(layout.size));
    // A descriptor as the driver would make it, found by what has changed.
    let other = machine.driver(queue).free_descriptors() > 1;
    if !other {
        return None;
    }
    let head = machine.driver(queue).add(&[readable(free, 16)])?;
    machine.outlaw = Some((queue, head));
    machine.added(queue);
    machine.publish(queue);
    let after = machine.read(layout.descriptor_table, 16 * usize::from(layout.size));
    let place = (0..usize::from(layout.size))
        .find(|place| before[16 * place..][..16] != after[16 * place..][..16])?;
    let at = layout.descriptor_table + 16 * place as u64;
    let flags = word(machine, at + 14);
    match random.below(4) {
        // An id that is none.
        0 => machine.write(at + 12, &(layout.size + random.below(9) as u16).to_le_bytes()),
        1 => machine.write(at + 8, &0_u32.to_le_bytes()),
        2 => machine.write(at + 14, &(flags | INDIRECT | NEXT).to_le_bytes()),
        _ => {
            machine.write(at, &(u64::MAX - 64).to_le_bytes());
            return Some(Crime::Petty);
        }
    }
    Some(Crime::Unforgivable)
}

fn readable(address: u64, length: u32) -> devices::virtio::queue::driver::Buffer {
    devices::virtio::queue::driver::Buffer::Readable { address, length }
}
