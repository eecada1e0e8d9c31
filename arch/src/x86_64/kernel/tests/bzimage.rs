use super::*;

#[test]
fn a_bzimage_is_one_segment_entered_behind_its_32_bit_entry() {
    let image = probe(&bzimage()).unwrap();
    let segment = Segment {
        file_offset: 5 * 512,
        file_size: 0x1000,
        memory_size: 0x300_0000,
        address: GuestAddress(0x100_0000),
    };
    assert_eq!(image.segments(), [segment]);
    assert_eq!(image.entry(), GuestAddress(0x100_0200));
    let Protocol::Linux64 { header: Some(header) } = image.protocol() else {
        panic!("a bzImage has a setup header");
    };
    assert_eq!(header.version(), 0x20f);
    assert_eq!(header.command_line_max(), 2047);
    assert_eq!(header.initrd_address_max(), 0x7fff_ffff);
    assert_eq!(header.bytes(), &bzimage()[0x1f1..0x26c]);
}

#[test]
fn no_setup_sectors_means_four() {
    let image = probe(&patched(bzimage(), 0x1f1, &[0])).unwrap();
    assert_eq!(image.segments()[0].file_offset, 5 * 512);
}

#[test]
fn bzimages_that_cannot_be_entered_say_why() {
    let old = refusal(&patched(bzimage(), 0x206, &[5, 2]));
    assert!(old.contains("2.05"), "{old}");
    let middle = probe(&patched(bzimage(), 0x206, &[11, 2]));
    assert!(matches!(middle, Err(KernelError::No64BitEntry)));
    let narrow = probe(&patched(bzimage(), 0x236, &[0, 0]));
    assert!(matches!(narrow, Err(KernelError::No64BitEntry)));
    assert!(matches!(probe(&patched(bzimage(), 0x211, &[0])), Err(KernelError::ZImage)));
}

#[test]
fn a_bzimage_with_impossible_numbers_is_refused() {
    let too_long = probe(&patched(bzimage(), 0x1f4, &[0xff; 4]));
    assert!(matches!(too_long, Err(KernelError::Truncated { what: "protected-mode code", .. })));
    let no_code = probe(&patched(bzimage(), 0x1f4, &[0; 4]));
    assert!(matches!(no_code, Err(KernelError::Malformed { .. })));
    for address in [0, 0xf_f000, 0xfff0_0000, u64::MAX] {
        let misplaced = probe(&patched(bzimage(), 0x258, &address.to_le_bytes()));
        assert!(matches!(misplaced, Err(KernelError::Misplaced { .. })), "{address:#x}");
    }
    let short_header = probe(&patched(bzimage(), 0x201, &[0]));
    assert!(matches!(short_header, Err(KernelError::Malformed { what: "setup header", .. })));
}

#[test]
fn the_setup_header_never_exceeds_its_room_in_the_zero_page() {
    let image = probe(&patched(bzimage(), 0x201, &[0xff])).unwrap();
    let Protocol::Linux64 { header: Some(header) } = image.protocol() else {
        panic!("a bzImage has a setup header");
    };
    assert_eq!(header.bytes().len(), 0x290 - 0x1f1);
}
