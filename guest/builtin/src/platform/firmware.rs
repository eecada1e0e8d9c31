//! Reading what the loader and the firmware left in memory.

use super::heap;

/// The lowest address that is mapped as a device and not as RAM.
const RAM_LIMIT: u64 = 3 << 30;
/// Where the image begins (link.ld).
const IMAGE: u64 = 0x10_0000;

/// Bytes of memory that this program does not use itself. `None` if it does, if they are not
/// mapped as RAM or if they begin at address 0.
pub(crate) fn bytes(address: u64, length: u64) -> Option<&'static [u8]> {
    let end = address.checked_add(length)?;
    let ours = end > IMAGE && address < heap::end();
    if address == 0 || end > RAM_LIMIT || ours {
        return None;
    }
    let pointer = core::ptr::with_exposed_provenance(address as usize);
    // SAFETY: mapped one to one; not the image and not the heap, and nothing else is written by
    // this program before the last use of these bytes: the memory check keeps to the heap's region
    // and to E820 RAM, and copies are made of what lies in RAM (main.rs).
    Some(unsafe { core::slice::from_raw_parts(pointer, length as usize) })
}
