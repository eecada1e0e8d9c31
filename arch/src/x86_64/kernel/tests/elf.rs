use super::*;

#[test]
fn an_elf_file_with_the_xen_note_is_entered_by_pvh() {
    for value in [&0x10_0123_u64.to_le_bytes()[..], &0x10_0123_u32.to_le_bytes()] {
        let mut file = ElfFile::default();
        file.note(4, 7, b"GNU\0", b"other");
        file.load(0x1000, 0x200, 0x3000, 0x10_0000);
        file.note(4, 18, b"Xen\0", value);
        let image = probe(&file.bytes(0)).unwrap();
        assert_eq!(*image.protocol(), Protocol::Pvh);
        assert_eq!(image.entry(), GuestAddress(0x10_0123));
    }
}

#[test]
fn an_elf_file_without_the_note_is_entered_in_64_bit_mode() {
    let image = probe(&elf(None)).unwrap();
    assert_eq!(*image.protocol(), Protocol::Linux64 { header: None });
    assert_eq!(image.entry(), GuestAddress(0x10_0010));
    let segment = Segment {
        file_offset: 0x1000,
        file_size: 0x200,
        memory_size: 0x3000,
        address: GuestAddress(0x10_0000),
    };
    assert_eq!(image.segments(), [segment]);
    assert_eq!(image.memory(), GuestRange::between(0x10_0000, 0x10_3000));
}

#[test]
fn a_note_of_another_owner_with_the_same_type_is_not_the_entry() {
    let mut file = ElfFile::default();
    file.load(0x1000, 0x200, 0x3000, 0x10_0000);
    file.note(4, 18, b"GNU\0", &[0xff; 8]);
    assert!(matches!(probe(&file.bytes(0x10_0000)).unwrap().protocol(), Protocol::Linux64 { .. }));
}

#[test]
fn segments_without_memory_are_left_out() {
    let mut file = ElfFile::default();
    file.load(0x1000, 0, 0, 0);
    file.load(0x1000, 0x200, 0x3000, 0x10_0000);
    assert_eq!(probe(&file.bytes(0x10_0000)).unwrap().segments().len(), 1);
}

#[test]
fn program_headers_far_into_the_file_are_found() {
    let mut bytes = elf(None);
    let headers = bytes[64..64 + 56].to_vec();
    let far = bytes.len() as u64;
    bytes.extend(headers);
    let image = probe(&patched(bytes, 32, &far.to_le_bytes())).unwrap();
    assert_eq!(image.segments().len(), 1);
}

#[test]
fn elf_files_that_are_no_x86_64_executables_are_named() {
    for (at, value, expected) in [
        (18, [183, 0], "for aarch64"),
        (18, [243, 0], "for RISC-V"),
        (18, [3, 0], "for 32-bit x86"),
        (18, [0xfe, 0xca], "ELF machine 51966"),
        (4, [1, 1], "32-bit or big-endian"),
        (16, [1, 0], "object file"),
        (16, [3, 0], "shared library"),
        (16, [4, 0], "core dump"),
    ] {
        let said = refusal(&patched(elf(None), at, &value));
        assert!(said.contains(expected), "{said:?} does not say {expected:?}");
    }
    // A big-endian file for another processor: its fields are read in its own order.
    let s390 = patched(patched(elf(None), 5, &[2]), 16, &[0, 2, 0, 22]);
    assert!(refusal(&s390).contains("for s390"));
}

#[test]
fn elf_headers_with_absurd_numbers_are_refused() {
    let headers = refusal(&patched(elf(None), 56, &[0xff, 0xff]));
    assert!(headers.contains("65535 of them"), "{headers}");
    assert!(matches!(probe(&patched(elf(None), 56, &[0, 0])), Err(KernelError::NothingToLoad)));
    let far = probe(&patched(elf(None), 32, &[0xff; 8]));
    assert!(matches!(far, Err(KernelError::Truncated { .. })));
    let entry_size = probe(&patched(elf(None), 54, &[55, 0]));
    assert!(matches!(entry_size, Err(KernelError::Malformed { .. })));
}

#[test]
fn segments_with_absurd_numbers_are_refused() {
    let with = |offset, file, memory, address| {
        let mut elf = ElfFile::default();
        elf.load(offset, file, memory, address);
        probe(&elf.bytes(address)).unwrap_err()
    };
    assert!(matches!(with(0, 2, 1, 0x10_0000), KernelError::Malformed { .. }));
    assert!(matches!(with(u64::MAX, 1, 1, 0x10_0000), KernelError::Truncated { .. }));
    assert!(matches!(with(u64::MAX - 5, 5, 5, 0x10_0000), KernelError::Truncated { .. }));
    assert!(matches!(with(0, 1, u64::MAX, 0x10_0000), KernelError::Misplaced { .. }));
    assert!(matches!(with(0, 1, 1, u64::MAX), KernelError::Misplaced { .. }));
    assert!(matches!(with(0, 1, 0x1000, 0xffff_f001), KernelError::Misplaced { .. }));
    assert!(matches!(with(0, 1, 1, 0xf_ffff), KernelError::Misplaced { .. }));
    assert!(matches!(with(0, 0, 0, 0x10_0000), KernelError::NothingToLoad));
}

#[test]
fn overlapping_segments_are_refused_in_any_order() {
    for addresses in [[0x10_0000, 0x10_0fff], [0x10_0fff, 0x10_0000], [0x10_0000; 2]] {
        let mut file = ElfFile::default();
        for address in addresses {
            file.load(0x1000, 1, 0x1000, address);
        }
        assert!(matches!(probe(&file.bytes(0x10_0000)), Err(KernelError::Overlap { .. })));
    }
}

#[test]
fn an_entry_outside_the_segments_is_refused() {
    for (file, protocol) in [
        (elf(Some(0x20_0000)), "PVH"),
        (elf(Some(u64::MAX)), "PVH"),
        (patched(elf(None), 24, &0x10_3000_u64.to_le_bytes()), "64-bit"),
    ] {
        let said = refusal(&file);
        assert!(said.contains(protocol) && said.contains("entry point"), "{said}");
    }
}

#[test]
fn malformed_notes_are_refused() {
    let mut wrong_length = ElfFile::default();
    wrong_length.load(0x1000, 0x200, 0x3000, 0x10_0000);
    wrong_length.note(4, 18, b"Xen\0", &[1, 2, 3]);
    assert!(refusal(&wrong_length.bytes(0x10_0000)).contains("the PVH entry has 3 bytes"));

    let mut wrong_alignment = ElfFile::default();
    wrong_alignment.note(3 << 40, 18, b"Xen\0", &[0; 8]);
    assert!(refusal(&wrong_alignment.bytes(0)).contains("alignment"));

    let mut absurd = ElfFile::default();
    absurd.header(4, 0, 1 << 40, 1 << 40, 0, 4);
    assert!(refusal(&absurd.bytes(0)).contains("ELF notes"));
}
