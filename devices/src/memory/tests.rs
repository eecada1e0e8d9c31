use std::os::fd::AsFd;

use proptest::prelude::*;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

use super::*;

const MIB: u64 = 1 << 20;

fn memfd(length: u64) -> Arc<OwnedFd> {
    let file = memfd_create("guest", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, length).unwrap();
    Arc::new(file)
}

fn region(file: &Arc<OwnedFd>, base: u64, length: u64, file_offset: u64) -> RegionSpec {
    RegionSpec { base: GuestAddress(base), length, file: file.clone(), file_offset }
}

/// Regions at 0 and, next to each other, at 16 and 17 MiB; one MiB each.
fn memory() -> GuestMemory {
    let file = memfd(4 * MIB);
    GuestMemory::new(vec![
        region(&file, 17 * MIB, MIB, 3 * MIB),
        region(&file, 0, MIB, 0),
        region(&file, 16 * MIB, MIB, MIB),
    ])
    .unwrap()
}

#[test]
fn objects_and_slices_read_back() {
    let memory = memory();
    assert_eq!(memory.size(), 3 * MIB);
    for address in [0, 1, 2, 3, 4, 5, 6, 7, 8, 0x1003] {
        memory.write_obj(GuestAddress(address), &0x1122_3344_5566_7788_u64).unwrap();
        let value: u64 = memory.read_obj(GuestAddress(address)).unwrap();
        assert_eq!(value, 0x1122_3344_5566_7788);
        let low: u16 = memory.read_obj(GuestAddress(address)).unwrap();
        assert_eq!(low, 0x7788);
    }
}

#[test]
fn slices_cross_adjacent_regions_and_host_ranges_do_not() {
    let memory = memory();
    let data: Vec<u8> = (0..=255).collect();
    let address = GuestAddress(17 * MIB - 100);
    memory.write_slice(address, &data).unwrap();
    let mut read = vec![0; data.len()];
    memory.read_slice(address, &mut read).unwrap();
    assert_eq!(read, data);
    assert!(memory.host_range(address, 100).is_some());
    assert!(memory.host_range(address, 101).is_none());
}

#[test]
fn accesses_outside_are_errors() {
    let memory = memory();
    for address in [MIB, MIB - 4, 18 * MIB - 7, u64::MAX, u64::MAX - 7] {
        let error = memory.write_obj(GuestAddress(address), &0_u64).unwrap_err();
        assert!(matches!(error, MemoryError::OutOfRange { .. }), "{error}");
        assert!(memory.host_range(GuestAddress(address), 8).is_none());
    }
    assert!(memory.host_range(GuestAddress(0), usize::MAX).is_none());
    assert!(memory.host_range(GuestAddress(MIB), 0).is_none());
}

#[test]
fn host_addresses_agree_with_guest_addresses_modulo_a_huge_page() {
    for base in [0, MIB, 3 * MIB, 0x1000] {
        let file = memfd(MIB);
        let memory = GuestMemory::new(vec![region(&file, base, MIB, 0)]).unwrap();
        let host = memory.regions().next().unwrap().host_base.as_ptr() as u64;
        assert_eq!(host % (2 * MIB), base % (2 * MIB));
    }
}

#[test]
fn two_mappings_of_one_layout_share_the_memory() {
    let memory = memory();
    let other = GuestMemory::from_layout(memory.layout().unwrap(), MapOptions::default()).unwrap();
    memory.write_obj(GuestAddress(17 * MIB + 8), &7_u32).unwrap();
    assert_eq!(other.read_obj::<u32>(GuestAddress(17 * MIB + 8)).unwrap(), 7);
}

#[test]
fn clones_keep_the_mapping_alive() {
    let memory = memory();
    let clone = memory.clone();
    let range = clone.host_range(GuestAddress(0), 8).unwrap();
    drop(memory);
    clone.write_obj(GuestAddress(0), &1_u8).unwrap();
    assert_eq!(clone.host_range(GuestAddress(0), 8), Some(range));
}

#[test]
fn a_file_is_read_into_memory() {
    let memory = memory();
    let file = memfd(8);
    rustix::io::pwrite(&file, b"contents", 0).unwrap();
    let address = GuestAddress(17 * MIB - 3);
    memory.read_exact_from(address, 7, file.as_fd(), 1).unwrap();
    let mut data = [0; 7];
    memory.read_slice(address, &mut data).unwrap();
    assert_eq!(&data, b"ontents");
    let error = memory.read_exact_from(address, 9, file.as_fd(), 0).unwrap_err();
    assert!(matches!(error, MemoryError::ReadFile { .. }), "{error}");
}

#[test]
fn bad_regions_are_refused() {
    let file = memfd(MIB);
    let bad = |specs| GuestMemory::new(specs).unwrap_err();
    assert!(matches!(bad(vec![]), MemoryError::RegionCount(0)));
    let many = (0..65).map(|n| region(&file, n * 0x1000, 0x1000, 0)).collect();
    assert!(matches!(bad(many), MemoryError::RegionCount(65)));
    for (base, length, offset) in [
        (0, 0, 0),
        (1, 0x1000, 0),
        (0, 0x1001, 0),
        (0, 0x1000, 5),
        (u64::MAX - 0xfff, 0x1000, 0),
        (0, u64::MAX - 0xfff, 0),
        (0, 0x1000, u64::MAX - 0xfff),
    ] {
        let error = bad(vec![region(&file, base, length, offset)]);
        assert!(matches!(error, MemoryError::BadRegion { .. }), "{error}");
    }
    let error = bad(vec![region(&file, 0, MIB, 0x1000)]);
    assert!(matches!(error, MemoryError::FileTooShort { .. }), "{error}");
    let error = bad(vec![region(&file, 0, 0x2000, 0), region(&file, 0x1000, 0x1000, 0)]);
    assert!(matches!(error, MemoryError::Overlap(GuestAddress(0x1000))), "{error}");
}

proptest! {
    #[test]
    fn memory_behaves_like_an_array(
        writes in proptest::collection::vec((0_u64..4096, proptest::collection::vec(any::<u8>(), 0..200)), 1..20)
    ) {
        let file = memfd(0x1000);
        let memory = GuestMemory::new(vec![region(&file, 0, 0x1000, 0)]).unwrap();
        let mut model = vec![0_u8; 0x1000];
        for (address, data) in writes {
            let fits = address as usize + data.len() <= model.len();
            let result = memory.write_slice(GuestAddress(address), &data);
            prop_assert_eq!(result.is_ok(), fits);
            let end = model.len().min(address as usize + data.len());
            model[address as usize..end].copy_from_slice(&data[..end - address as usize]);
            let mut read = vec![0; model.len()];
            memory.read_slice(GuestAddress(0), &mut read).unwrap();
            prop_assert_eq!(&read, &model);
        }
    }
}
