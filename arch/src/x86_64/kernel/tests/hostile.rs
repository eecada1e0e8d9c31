//! Files that someone made to hurt: whatever they hold, the answer is an error or an image that holds.

use proptest::prelude::*;

use super::*;

/// What holds for every image, whatever file it came from.
fn check_image(image: &KernelImage, length: usize) -> Result<(), TestCaseError> {
    let segments = image.segments();
    prop_assert!(!segments.is_empty());
    prop_assert!(segments.len() <= 64);
    for segment in segments {
        prop_assert!(segment.file_size <= segment.memory_size);
        prop_assert!(segment.file_offset + segment.file_size <= length as u64);
        prop_assert!(ALLOWED.covers(segment.memory()));
    }
    for (index, segment) in segments.iter().enumerate() {
        for other in &segments[index + 1..] {
            prop_assert!(!segment.memory().overlaps(other.memory()));
        }
    }
    prop_assert!(segments.iter().any(|segment| segment.memory().contains(image.entry())));
    Ok(())
}

proptest! {
    #[test]
    fn random_bytes_are_an_image_that_holds_or_an_error(
        bytes in prop::collection::vec(any::<u8>(), 0..2048),
    ) {
        if let Ok(image) = probe(&bytes) {
            check_image(&image, bytes.len())?;
        }
    }

    #[test]
    fn mutated_kernels_are_an_image_that_holds_or_an_error(
        whole in prop::sample::select(vec![elf(None), elf(Some(0x10_0000)), bzimage()]),
        // Mutations go where the headers are.
        mutations in prop::collection::vec(
            (prop_oneof![0_usize..0x100, 0x1f0_usize..0x270, 0x800_usize..0x820], any::<u8>()),
            1..12,
        ),
        length in 0_usize..0x4000,
    ) {
        let mut bytes = whole;
        for (at, value) in mutations {
            bytes[at] = value;
        }
        bytes.truncate(length.max(0x100));
        if let Ok(image) = probe(&bytes) {
            check_image(&image, bytes.len())?;
        }
    }

    #[test]
    fn hostile_program_headers_are_an_image_that_holds_or_an_error(
        headers in prop::collection::vec(
            (
                prop_oneof![Just(1_u64), Just(4)],
                number(), number(), number(), number(), 0_u64..16,
            ),
            0..8,
        ),
        entry in number(),
    ) {
        let mut file = ElfFile::default();
        for (kind, offset, file_size, memory_size, address, align) in headers {
            file.header(kind, offset, file_size, memory_size, address, align);
        }
        let bytes = file.bytes(entry);
        if let Ok(image) = probe(&bytes) {
            check_image(&image, bytes.len())?;
        }
    }
}

/// Numbers that are likely to be at the edge of something.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        0_u64..0x100,
        0x10_0000_u64..0x10_4000,
        (0_u64..0x4000).prop_map(|below| u64::MAX - below),
        (0_u64..0x2000).prop_map(|around| (1 << 32) - 0x1000 + around),
        any::<u64>(),
    ]
}
