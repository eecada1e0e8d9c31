use proptest::prelude::*;

use super::*;
use crate::x86_64::kernel::tests::{bzimage, elf};
use crate::x86_64::layout::{self, E820Kind, HIGH_RAM_START};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

fn kernel(file: &[u8]) -> KernelImage {
    KernelImage::probe(file).expect("the kernel is well-formed")
}

fn request(kernel: &KernelImage, memory: u64) -> BootRequest<'_> {
    BootRequest {
        kernel,
        ram: Ram::new(memory).unwrap(),
        command_line: "console=ttyS0 root=/dev/vda",
        initrd_length: Some(5 * MIB + 123),
        rsdp: Some(GuestAddress(0xe_0000)),
    }
}

fn read(plan: &BootPlan, address: u64, length: usize) -> Vec<u8> {
    let wanted = GuestRange::new(GuestAddress(address), length as u64).unwrap();
    let blob = plan.blobs.iter().find(|blob| blob.range().covers(wanted));
    let blob = blob.unwrap_or_else(|| panic!("{wanted} is in none of the blobs"));
    let offset = (address - blob.address.0) as usize;
    blob.bytes[offset..offset + length].to_vec()
}

fn u16_at(plan: &BootPlan, address: u64) -> u16 {
    u16::from_le_bytes(read(plan, address, 2).try_into().unwrap())
}

fn u32_at(plan: &BootPlan, address: u64) -> u32 {
    u32::from_le_bytes(read(plan, address, 4).try_into().unwrap())
}

fn u64_at(plan: &BootPlan, address: u64) -> u64 {
    u64::from_le_bytes(read(plan, address, 8).try_into().unwrap())
}

/// The entry that maps `address`, by a walk as the processor does it.
fn translate(plan: &BootPlan, address: u64) -> Option<u64> {
    const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
    let mut table = plan.registers.cr3;
    for shift in [39, 30, 21] {
        let entry = u64_at(plan, table + (address >> shift & 511) * 8);
        if entry & 1 == 0 {
            return None;
        }
        if shift == 21 {
            assert_eq!(entry & 0x82, 0x82, "a writable page of 2 MiB");
            return Some((entry & ADDRESS) + (address & 0x1f_ffff));
        }
        table = entry & ADDRESS;
    }
    None
}

#[test]
fn a_pvh_kernel_finds_everything_through_start_info() {
    let kernel = kernel(&elf(Some(0x10_0010)));
    let request = request(&kernel, 6 * GIB);
    let plan = plan(&request).unwrap();
    let info = plan.registers.general.rbx;
    assert_eq!(u32_at(&plan, info), 0x336e_c578);
    assert_eq!(u32_at(&plan, info + 4), 1);
    assert_eq!(u32_at(&plan, info + 12), 1, "one module");
    assert_eq!(u64_at(&plan, info + 32), 0xe_0000, "RSDP");

    let module = u64_at(&plan, info + 16);
    let initrd = plan.initrd.unwrap();
    assert_eq!(u64_at(&plan, module), initrd.start().0);
    assert_eq!(u64_at(&plan, module + 8), 5 * MIB + 123);

    let command_line = u64_at(&plan, info + 24);
    let expected = format!("{}\0", request.command_line);
    assert_eq!(read(&plan, command_line, expected.len()), expected.as_bytes());

    let (map, entries) = (u64_at(&plan, info + 40), u32_at(&plan, info + 48));
    let told: Vec<_> = (0..u64::from(entries))
        .map(|index| map + index * 24)
        .map(|at| (u64_at(&plan, at), u64_at(&plan, at + 8), u32_at(&plan, at + 16)))
        .collect();
    let e820: Vec<_> = request
        .ram
        .e820()
        .iter()
        .map(|entry| (entry.range.start().0, entry.range.length(), entry.kind as u32))
        .collect();
    assert_eq!(told, e820);
}

#[test]
fn a_pvh_kernel_without_initrd_has_no_module() {
    let kernel = kernel(&elf(Some(0x10_0010)));
    let plan = plan(&BootRequest { initrd_length: None, ..request(&kernel, 64 * MIB) }).unwrap();
    let info = plan.registers.general.rbx;
    assert_eq!((u32_at(&plan, info + 12), u64_at(&plan, info + 16)), (0, 0));
    assert_eq!(plan.initrd, None);
}

#[test]
fn a_pvh_kernel_starts_in_flat_32_bit_mode_without_paging() {
    let kernel = kernel(&elf(Some(0x10_0010)));
    let registers = plan(&request(&kernel, 64 * MIB)).unwrap().registers;
    assert_eq!(registers.general.rip, 0x10_0010);
    assert_eq!(registers.general.rflags, 2);
    assert_eq!(registers.cr0 & !cr0::ET, cr0::PE);
    assert_eq!((registers.cr4, registers.efer), (0, 0));
    for segment in [registers.cs, registers.data] {
        assert_eq!((segment.base, segment.limit), (0, u32::MAX));
        assert_eq!((segment.access.db(), segment.access.l(), segment.access.present()), (1, 0, 1));
    }
    assert_eq!((registers.tr.base, registers.tr.limit, registers.tr.access.type_()), (0, 0x67, 11));
}

#[test]
fn the_64_bit_entry_runs_on_identity_mapped_pages() {
    let kernel = kernel(&bzimage());
    let plan = plan(&request(&kernel, 256 * MIB)).unwrap();
    assert_eq!(plan.registers.general.rip, 0x100_0200);
    assert_eq!(plan.registers.cr0 & (cr0::PE | cr0::PG), cr0::PE | cr0::PG);
    assert_eq!(plan.registers.efer, efer::LME | efer::LMA);
    assert_eq!(plan.registers.cr4, cr4::PAE);
    assert_eq!((plan.registers.cs.access.l(), plan.registers.cs.access.db()), (1, 0));
    for address in [0, 0x1234, 0x20_0000, GIB - 1, GIB, 3 * GIB + 5, 4 * GIB - 1] {
        assert_eq!(translate(&plan, address), Some(address));
    }
    assert_eq!(translate(&plan, 4 * GIB), None);
    assert_eq!(translate(&plan, 1 << 39), None);
}

#[test]
fn the_selectors_are_those_of_the_boot_protocol_and_in_the_gdt() {
    for file in [elf(Some(0x10_0010)), bzimage()] {
        let kernel = kernel(&file);
        let plan = plan(&request(&kernel, 256 * MIB)).unwrap();
        let registers = plan.registers;
        assert_eq!((registers.cs.selector, registers.data.selector), (0x10, 0x18));
        for segment in [registers.cs, registers.data, registers.tr] {
            let at = registers.gdt.base.0 + u64::from(segment.selector);
            assert_eq!(u64_at(&plan, at), segment.descriptor());
            assert!(u64::from(segment.selector) + 7 <= u64::from(registers.gdt.limit));
        }
        assert_eq!(u64_at(&plan, registers.gdt.base.0), 0);
    }
}

#[test]
fn descriptors_are_encoded_as_the_manual_shows() {
    let segment = |base, limit, access| Segment { selector: 0, base, limit, access };
    let code = segment(0, u32::MAX, SegmentAccess::CODE_64);
    assert_eq!(code.descriptor(), 0x00af_9b00_0000_ffff);
    let data = segment(0, u32::MAX, SegmentAccess::DATA);
    assert_eq!(data.descriptor(), 0x00cf_9300_0000_ffff);
    let task = segment(0x1234_5678, 0x67, SegmentAccess::TASK);
    assert_eq!(task.descriptor(), 0x1200_8b34_5678_0067);
}

#[test]
fn the_zero_page_has_the_header_of_the_file_and_what_the_loader_adds() {
    let file = bzimage();
    let kernel = kernel(&file);
    let request = request(&kernel, 6 * GIB);
    let plan = plan(&request).unwrap();
    let page = plan.registers.general.rsi;
    assert_eq!(read(&plan, page + 0x1fe, 0x10), file[0x1fe..0x20e]);
    assert_eq!(u64_at(&plan, page + 0x258), 0x100_0000);
    assert_eq!(read(&plan, page + 0x210, 1), [0xff]);
    let initrd = plan.initrd.unwrap();
    assert_eq!(u64::from(u32_at(&plan, page + 0x218)), initrd.start().0);
    assert_eq!(u64::from(u32_at(&plan, page + 0x21c)), initrd.length());
    assert_eq!(u64::from(u32_at(&plan, page + 0x228)), layout::COMMAND_LINE.start().0);
    assert_eq!(u64_at(&plan, page + 0x70), 0xe_0000);
    assert_eq!(read(&plan, page + 0x1ef, 1), [0], "the sentinel says that fields are valid");

    let e820 = request.ram.e820();
    assert_eq!(read(&plan, page + 0x1e8, 1), [e820.len() as u8]);
    for (index, entry) in e820.iter().enumerate() {
        let at = page + 0x2d0 + index as u64 * 20;
        assert_eq!(u64_at(&plan, at), entry.range.start().0);
        assert_eq!(u64_at(&plan, at + 8), entry.range.length());
        assert_eq!(u32_at(&plan, at + 16), entry.kind as u32);
    }
    assert!(e820.iter().any(|e| e.kind == E820Kind::Ram && e.range.start().0 == 4 * GIB));
}

#[test]
fn an_elf_kernel_gets_a_zero_page_that_looks_like_a_boot_loaders() {
    let kernel = kernel(&elf(None));
    let plan = plan(&request(&kernel, 64 * MIB)).unwrap();
    let page = plan.registers.general.rsi;
    assert_eq!(u16_at(&plan, page + 0x1fe), 0xaa55);
    assert_eq!(read(&plan, page + 0x202, 4), b"HdrS");
    assert_eq!(u16_at(&plan, page + 0x206), 0x20c);
    assert_eq!(plan.registers.general.rip, 0x10_0010);
}

#[test]
fn the_initrd_is_at_the_top_of_what_the_kernel_reaches() {
    let elf = kernel(&elf(Some(0x10_0010)));
    let initrd = plan(&request(&elf, 6 * GIB)).unwrap().initrd.unwrap();
    assert_eq!(initrd.start().0, 3 * GIB - 6 * MIB + (MIB - 4096));
    let bzimage = kernel(&bzimage());
    let initrd = plan(&request(&bzimage, 6 * GIB)).unwrap().initrd.unwrap();
    assert!(initrd.end().0 <= 2 * GIB && initrd.end().0 > 2 * GIB - PAGE_SIZE);
}

#[test]
fn an_initrd_that_does_not_fit_says_what_there_is() {
    let kernel = kernel(&bzimage());
    let free = 256 * MIB - (0x100_0000 + 0x300_0000);
    for length in [free, free + 1, 256 * MIB, u64::MAX] {
        let request = BootRequest { initrd_length: Some(length), ..request(&kernel, 256 * MIB) };
        let result = plan(&request);
        if length == free {
            assert_eq!(result.unwrap().initrd.unwrap().start().0, 0x400_0000);
            continue;
        }
        let error = result.unwrap_err();
        let room = GuestRange::between(0x400_0000, 256 * MIB);
        assert_eq!(error, BootError::InitrdTooLarge { length, room, available: free });
        assert!(error.to_string().contains(&format!("{length} bytes")));
    }
    let empty = BootRequest { initrd_length: Some(0), ..request(&kernel, 256 * MIB) };
    assert_eq!(plan(&empty).unwrap_err(), BootError::InitrdEmpty);
}

#[test]
fn a_kernel_that_needs_more_memory_is_refused() {
    let kernel = kernel(&bzimage());
    let error = plan(&request(&kernel, 63 * MIB)).unwrap_err();
    let expected = BootError::KernelDoesNotFit { kernel: kernel.memory(), ram_end: 63 * MIB };
    assert_eq!(error, expected);
}

#[test]
fn command_lines_are_held_to_the_kernels_limit() {
    let with = |file: &[u8], length: usize| {
        let kernel = kernel(file);
        let text = "x".repeat(length);
        plan(&BootRequest { command_line: &text, ..request(&kernel, 256 * MIB) }).map(|_| ())
    };
    for file in [elf(None), elf(Some(0x10_0010)), bzimage()] {
        assert_eq!(with(&file, 0), Ok(()));
        assert_eq!(with(&file, 2047), Ok(()));
        let error = BootError::CommandLineTooLong { length: 2048, max: 2047 };
        assert_eq!(with(&file, 2048), Err(error));
    }
    let mut generous = bzimage();
    generous[0x238..0x23c].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(with(&generous, 65535), Ok(()));
    let error = BootError::CommandLineTooLong { length: 65536, max: 65535 };
    assert_eq!(with(&generous, 65536), Err(error));

    let kernel = kernel(&elf(None));
    let nul = BootRequest { command_line: "a\0b", ..request(&kernel, 64 * MIB) };
    assert_eq!(plan(&nul).unwrap_err(), BootError::CommandLineHasNul { position: 1 });
}

proptest! {
    #[test]
    fn nothing_overlaps_and_all_is_ram(
        file in prop::sample::select(vec![elf(None), elf(Some(0x10_0010)), bzimage()]),
        pages in (2 * MIB / PAGE_SIZE)..(8 * GIB / PAGE_SIZE),
        initrd_length in prop::option::of(1_u64..64 * MIB),
        command_line in "[ -~]{0,2000}",
    ) {
        let kernel = kernel(&file);
        let ram = Ram::new(pages * PAGE_SIZE).unwrap();
        let request =
            BootRequest { kernel: &kernel, ram, command_line: &command_line, initrd_length, rsdp: None };
        let Ok(plan) = plan(&request) else { return Ok(()) };

        let mut places: Vec<_> = plan.blobs.iter().map(Blob::range).collect();
        for blob in &places {
            prop_assert!(blob.end() <= HIGH_RAM_START);
        }
        places.extend(kernel.segments().iter().map(super::super::kernel::Segment::memory));
        places.extend(plan.initrd);
        for (index, place) in places.iter().enumerate() {
            prop_assert!(ram.covers(*place));
            for other in &places[index + 1..] {
                prop_assert!(!place.overlaps(*other), "{} and {}", place, other);
            }
        }
        prop_assert_eq!(plan.initrd.map(GuestRange::length), initrd_length);
    }
}
