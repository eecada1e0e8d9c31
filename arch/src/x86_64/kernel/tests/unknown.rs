use super::*;

#[test]
fn a_file_that_is_cut_off_anywhere_is_refused() {
    for whole in [elf(Some(0x10_0000)), elf(None), bzimage()] {
        let last_needed = {
            let segment = probe(&whole).unwrap().segments()[0];
            (segment.file_offset + segment.file_size) as usize
        };
        for length in (0..last_needed).step_by(7) {
            assert!(probe(&whole[..length]).is_err(), "cut off at {length}");
        }
        assert!(probe(&whole[..last_needed]).is_ok());
    }
    let cut = refusal(&elf(None)[..0x1100]);
    assert_eq!(
        cut,
        "the kernel file is truncated: its ELF segment ends at byte 4608, the file at byte 4352"
    );
}

#[test]
fn files_of_other_kinds_are_named() {
    let at = |offset: usize, magic: &[u8]| patched(vec![0; 0x1000], offset, magic);
    for (bytes, expected) in [
        (vec![], "empty"),
        (b"#!/bin/sh\necho not a kernel\n".to_vec(), "text file"),
        ("Grüße".as_bytes()[..4].to_vec(), "text file"),
        (at(0x38, b"ARM\x64"), "aarch64"),
        (patched(at(0x38, b"ARM\x64"), 0, b"MZ"), "aarch64"),
        (at(0x38, b"RSC\x05"), "RISC-V"),
        (at(0, &[0x1f, 0x8b, 8]), "gzip"),
        (at(0, &[0x28, 0xb5, 0x2f, 0xfd]), "zstd"),
        (at(0, b"\xfd7zXZ\0"), "xz"),
        (patched(at(0, b"MZ"), 4, b"zimg"), "EFI zboot"),
        (at(0, b"MZ"), "EFI or Windows program"),
        (at(0, b"070701"), "cpio archive"),
        (at(0, b"QFI\xfb"), "qcow2"),
        (at(0x1fe, &[0x55, 0xaa]), "boot sector"),
        (vec![0; 3], "begins with 00 00 00)"),
    ] {
        let said = refusal(&bytes);
        assert!(said.contains(expected), "{said:?} does not say {expected:?}");
    }
}

#[test]
fn a_directory_and_a_device_are_no_kernels() {
    let directory = std::fs::File::open("/").unwrap();
    assert!(matches!(KernelImage::probe(&directory), Err(KernelError::Directory)));
    let device = std::fs::File::open("/dev/null").unwrap();
    assert!(matches!(KernelImage::probe(&device), Err(KernelError::NotRegular)));
}
