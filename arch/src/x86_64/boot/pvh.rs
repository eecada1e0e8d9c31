//! The state that a PVH kernel expects (Xen, docs/misc/pvh.pandoc, and
//! xen/include/public/arch-x86/hvm/start_info.h).
//!
//! ```text
//!  EBX ─▶ start info ─┬─▶ module list: the initrd
//!                     ├─▶ memory map
//!                     ├─▶ command line
//!                     └─▶ RSDP
//! ```

use linux_loader::start_info::{
    XEN_HVM_MEMMAP_TYPE_RAM, XEN_HVM_MEMMAP_TYPE_RESERVED, XEN_HVM_START_MAGIC_VALUE,
    hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info,
};

use super::registers::{RFLAGS, cr0};
use super::{BootRequest, GeneralRegisters, InitialRegisters, SegmentAccess, flat_segments};
use crate::memory::{Blob, GuestAddress, GuestRange};
use crate::x86_64::layout::{COMMAND_LINE, E820Kind, PVH_START_INFO};

/// The version of start info that has the memory map.
const VERSION: u32 = 1;
const MODULE_LIST: u64 = PVH_START_INFO.0 + size_of::<hvm_start_info>() as u64;
const MEMORY_MAP: u64 = MODULE_LIST + size_of::<hvm_modlist_entry>() as u64;

/// Structures and registers for `request`, with the initrd as the one module.
pub(super) fn state(
    request: &BootRequest<'_>,
    initrd: Option<GuestRange>,
) -> (Vec<Blob>, InitialRegisters) {
    let (segments, gdt) = flat_segments(SegmentAccess::CODE_32);
    let registers = InitialRegisters {
        general: GeneralRegisters {
            rip: request.kernel.entry().0,
            rbx: PVH_START_INFO.0,
            rflags: RFLAGS,
            ..GeneralRegisters::default()
        },
        cr0: cr0::PE | cr0::ET,
        ..segments
    };
    (vec![gdt, start_info(request, initrd)], registers)
}

/// Start info, the module list and the memory map, one behind the other.
fn start_info(request: &BootRequest<'_>, initrd: Option<GuestRange>) -> Blob {
    let map = request.ram.e820();
    let info = hvm_start_info {
        magic: XEN_HVM_START_MAGIC_VALUE,
        version: VERSION,
        flags: 0,
        nr_modules: u32::from(initrd.is_some()),
        modlist_paddr: if initrd.is_some() { MODULE_LIST } else { 0 },
        cmdline_paddr: COMMAND_LINE.start().0,
        rsdp_paddr: request.rsdp.map_or(0, GuestAddress::value),
        memmap_paddr: MEMORY_MAP,
        memmap_entries: map.len() as u32,
        reserved: 0,
    };
    let module = hvm_modlist_entry {
        paddr: initrd.map_or(0, |range| range.start().0),
        size: initrd.map_or(0, GuestRange::length),
        cmdline_paddr: 0,
        reserved: 0,
    };

    let mut bytes = Bytes::default();
    bytes.u32(info.magic).u32(info.version).u32(info.flags).u32(info.nr_modules);
    bytes.u64(info.modlist_paddr).u64(info.cmdline_paddr).u64(info.rsdp_paddr);
    bytes.u64(info.memmap_paddr).u32(info.memmap_entries).u32(info.reserved);
    bytes.u64(module.paddr).u64(module.size).u64(module.cmdline_paddr).u64(module.reserved);
    for entry in map {
        let entry = hvm_memmap_table_entry {
            addr: entry.range.start().0,
            size: entry.range.length(),
            type_: match entry.kind {
                E820Kind::Ram => XEN_HVM_MEMMAP_TYPE_RAM,
                E820Kind::Reserved => XEN_HVM_MEMMAP_TYPE_RESERVED,
            },
            reserved: 0,
        };
        bytes.u64(entry.addr).u64(entry.size).u32(entry.type_).u32(entry.reserved);
    }
    Blob::new(PVH_START_INFO, bytes.0)
}

/// Little-endian fields, one behind the other.
#[derive(Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn u32(&mut self, value: u32) -> &mut Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    fn u64(&mut self, value: u64) -> &mut Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }
}
