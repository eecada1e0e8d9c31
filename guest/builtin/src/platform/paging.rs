//! Page tables. entry.s maps the first 4 GiB one to one; this adds RAM above them, one to one, and
//! device registers above them in a window of their own (a BAR may lie where no virtual address can).
//!
//! ```text
//! 0            4 GiB         RAM ends        64 TiB               128 TiB
//! | RAM, devices | RAM, one to one |  nothing  | devices, packed   |
//! ```

use alloc::alloc::{alloc_zeroed, handle_alloc_error};
use core::{
    alloc::Layout,
    sync::atomic::{AtomicU64, Ordering},
};

pub(crate) const LARGE_PAGE: u64 = 2 << 20;
/// The end of what entry.s maps.
pub(crate) const BOOT_MAPPED: u64 = 4 << 30;
const DEVICE_WINDOW: u64 = 64 << 40;
const DEVICE_WINDOW_END: u64 = 128 << 40;
/// The widest physical address of the architecture.
const PHYSICAL_LIMIT: u64 = 1 << 52;

const TABLE_FLAGS: u64 = 0x7;
const RAM_FLAGS: u64 = 0x87;
const DEVICE_FLAGS: u64 = 0x9f;
const ADDRESS_MASK: u64 = 0x000f_ffff_ffff_f000;

static NEXT_DEVICE_ADDRESS: AtomicU64 = AtomicU64::new(DEVICE_WINDOW);

/// Maps RAM one to one. `None` if it does not fit below the device window.
pub(crate) fn map_ram(start: u64, end: u64) -> Option<()> {
    if end > DEVICE_WINDOW {
        return None;
    }
    let first = start.max(BOOT_MAPPED) / LARGE_PAGE * LARGE_PAGE;
    for address in (first..end).step_by(LARGE_PAGE as usize) {
        map_page(address, address | RAM_FLAGS);
    }
    Some(())
}

/// Maps registers and returns their virtual address. `None` if there is no such physical address.
pub(crate) fn map_device(physical: u64, length: u64) -> Option<u64> {
    let end = physical.checked_add(length).filter(|end| *end <= PHYSICAL_LIMIT)?;
    if end <= BOOT_MAPPED {
        return Some(physical);
    }
    let first = physical / LARGE_PAGE * LARGE_PAGE;
    let bytes = end.next_multiple_of(LARGE_PAGE) - first;
    let address = NEXT_DEVICE_ADDRESS.load(Ordering::Relaxed);
    if bytes > DEVICE_WINDOW_END - address {
        return None;
    }
    NEXT_DEVICE_ADDRESS.store(address + bytes, Ordering::Relaxed);
    for offset in (0..bytes).step_by(LARGE_PAGE as usize) {
        map_page(address + offset, (first + offset) | DEVICE_FLAGS);
    }
    Some(address + (physical - first))
}

/// Entries go from absent to present only, so no processor has anything to forget.
fn map_page(address: u64, entry: u64) {
    unsafe extern "C" {
        static boot_pml4: [AtomicU64; 512];
    }
    // SAFETY: entry.s defines it as 512 entries; all accesses of ring 3 are atomic.
    let mut table = unsafe { &boot_pml4 };
    for level in [39, 30] {
        table = next_table(&table[index(address, level)]);
    }
    table[index(address, 21)].store(entry, Ordering::Release);
}

fn index(address: u64, shift: u32) -> usize {
    (address >> shift & 0x1ff) as usize
}

fn next_table(entry: &AtomicU64) -> &'static [AtomicU64; 512] {
    let mut value = entry.load(Ordering::Acquire);
    if value == 0 {
        const TABLE: Layout = Layout::new::<PageTable>();
        // SAFETY: the size is not 0.
        let table = unsafe { alloc_zeroed(TABLE) };
        if table.is_null() {
            handle_alloc_error(TABLE);
        }
        value = table.expose_provenance() as u64 | TABLE_FLAGS;
        entry.store(value, Ordering::Release);
    }
    let pointer = core::ptr::with_exposed_provenance((value & ADDRESS_MASK) as usize);
    // SAFETY: present entries of these levels hold tables of entry.s or of the lines above, mapped
    // one to one, never freed.
    unsafe { &*pointer }
}

#[repr(C, align(4096))]
struct PageTable([AtomicU64; 512]);
