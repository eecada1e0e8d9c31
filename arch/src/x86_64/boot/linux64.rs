//! The state that Linux' 64-bit entry expects (Documentation/arch/x86/boot.rst, "64-bit Boot
//! Protocol"; the fields of the zero page in zero-page.rst).
//!
//! The first 4 GiB are mapped to themselves in pages of 2 MiB, which every 64-bit processor has.

use std::mem::offset_of;

use linux_loader::bootparam::{boot_e820_entry, boot_params};

use super::registers::{RFLAGS, cr0, cr4, efer};
use super::{BootRequest, GeneralRegisters, InitialRegisters, SegmentAccess, flat_segments};
use crate::memory::{Blob, GuestAddress, GuestRange};
use crate::x86_64::kernel::SetupHeader;
use crate::x86_64::layout::{COMMAND_LINE, PAGE_SIZE, PAGE_TABLES, ZERO_PAGE};

/// `type_of_loader` of a loader without an assigned number.
const LOADER_UNDEFINED: u8 = 0xff;
/// `boot_flag`.
const BOOT_FLAG: u16 = 0xaa55;
/// `header`: "`HdrS`".
const MAGIC: u32 = u32::from_le_bytes(*b"HdrS");
/// The protocol version that an ELF kernel is told: the first that has the 64-bit entry.
const VERSION_2_12: u16 = 0x020c;
/// `vid_mode`: as `vga=normal` would set.
const VIDEO_NORMAL: u16 = 0xffff;

/// Structures and registers for `request`.
pub(super) fn state(
    request: &BootRequest<'_>,
    header: Option<&SetupHeader>,
    initrd: Option<GuestRange>,
) -> (Vec<Blob>, InitialRegisters) {
    let (segments, gdt) = flat_segments(SegmentAccess::CODE_64);
    let registers = InitialRegisters {
        general: GeneralRegisters {
            rip: request.kernel.entry().0,
            rsi: ZERO_PAGE.0,
            rflags: RFLAGS,
            ..GeneralRegisters::default()
        },
        cr0: cr0::PE | cr0::ET | cr0::PG,
        cr3: PAGE_TABLES.0,
        cr4: cr4::PAE,
        efer: efer::LME | efer::LMA,
        ..segments
    };
    (vec![gdt, zero_page(request, header, initrd), page_tables()], registers)
}

fn zero_page(
    request: &BootRequest<'_>,
    header: Option<&SetupHeader>,
    initrd: Option<GuestRange>,
) -> Blob {
    let mut page = ZeroPage(vec![0; size_of::<boot_params>()]);
    if let Some(header) = header {
        page.set(offset_of!(boot_params, hdr), header.bytes());
    } else {
        page.set(offset_of!(boot_params, hdr.boot_flag), &BOOT_FLAG.to_le_bytes());
        page.set(offset_of!(boot_params, hdr.header), &MAGIC.to_le_bytes());
        page.set(offset_of!(boot_params, hdr.version), &VERSION_2_12.to_le_bytes());
    }
    page.set(offset_of!(boot_params, hdr.vid_mode), &VIDEO_NORMAL.to_le_bytes());
    page.set(offset_of!(boot_params, hdr.type_of_loader), &[LOADER_UNDEFINED]);
    // Command line and initrd are below 4 GiB, so the fields for the upper halves stay zero.
    let command_line = COMMAND_LINE.start().0 as u32;
    page.set(offset_of!(boot_params, hdr.cmd_line_ptr), &command_line.to_le_bytes());
    if let Some(initrd) = initrd {
        let (start, length) = (initrd.start().0 as u32, initrd.length() as u32);
        page.set(offset_of!(boot_params, hdr.ramdisk_image), &start.to_le_bytes());
        page.set(offset_of!(boot_params, hdr.ramdisk_size), &length.to_le_bytes());
    }
    let rsdp = request.rsdp.map_or(0, GuestAddress::value);
    page.set(offset_of!(boot_params, acpi_rsdp_addr), &rsdp.to_le_bytes());

    let map = request.ram.e820();
    page.set(offset_of!(boot_params, e820_entries), &[map.len() as u8]);
    for (index, entry) in map.iter().enumerate() {
        let at = offset_of!(boot_params, e820_table) + index * size_of::<boot_e820_entry>();
        let start = entry.range.start().0.to_le_bytes();
        page.set(at + offset_of!(boot_e820_entry, addr), &start);
        let length = entry.range.length().to_le_bytes();
        page.set(at + offset_of!(boot_e820_entry, size), &length);
        let kind = (entry.kind as u32).to_le_bytes();
        page.set(at + offset_of!(boot_e820_entry, r#type), &kind);
    }
    Blob::new(ZERO_PAGE, page.0)
}

/// `struct boot_params` as bytes; fields are set by their offsets.
struct ZeroPage(Vec<u8>);

impl ZeroPage {
    fn set(&mut self, offset: usize, bytes: &[u8]) {
        self.0[offset..offset + bytes.len()].copy_from_slice(bytes);
    }
}

/// Page table entry bits (Intel SDM volume 3A, 4.5): present and writable...
const PRESENT_WRITABLE: u64 = 0b11;
/// ...and, in a page directory, a page of 2 MiB.
const LARGE_PAGE: u64 = 1 << 7;
const LARGE_PAGE_SIZE: u64 = 2 << 20;
const ENTRIES: u64 = 512;
/// Page directories: each maps 1 GiB.
const DIRECTORIES: u64 = 4;

/// One PML4, one page directory pointer table, four page directories.
fn page_tables() -> Blob {
    let table_at = |index: u64| PAGE_TABLES.0 + index * PAGE_SIZE;
    let mut bytes = Vec::with_capacity(((2 + DIRECTORIES) * PAGE_SIZE) as usize);
    let mut table = |used: u64, entry: &dyn Fn(u64) -> u64| {
        for index in 0..ENTRIES {
            let value = if index < used { entry(index) } else { 0 };
            bytes.extend_from_slice(&value.to_le_bytes());
        }
    };
    table(1, &|_| table_at(1) | PRESENT_WRITABLE);
    table(DIRECTORIES, &|index| table_at(2 + index) | PRESENT_WRITABLE);
    for directory in 0..DIRECTORIES {
        table(ENTRIES, &|index| {
            ((directory * ENTRIES + index) * LARGE_PAGE_SIZE) | LARGE_PAGE | PRESENT_WRITABLE
        });
    }
    Blob::new(PAGE_TABLES, bytes)
}
