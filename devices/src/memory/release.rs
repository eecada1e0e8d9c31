//! Giving pages of guest memory back to the host.

use std::io;

use rustix::fs::{FallocateFlags, fallocate};

use super::{GuestAddress, GuestMemory, MappedRegion};

impl GuestMemory {
    /// Frees what the host keeps for a range of guest addresses, one call for each region it is in,
    /// and says how many bytes these were. They read as zeros from now on and come back at the next
    /// touch, by whoever shares the memory.
    ///
    /// Only whole pages of `page` bytes (a power of two) are freed, and only where there is memory.
    pub fn release(&self, address: GuestAddress, length: u64, page: u64) -> io::Result<u64> {
        let end = address.0.saturating_add(length);
        let mut freed = 0;
        for region in self.regions.iter() {
            let Some((offset, length)) = region.whole_pages(address.0, end, page) else {
                continue;
            };
            let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            fallocate(&region.file, mode, offset, length)?;
            freed += length;
        }
        Ok(freed)
    }

    /// The guest's address of what lies at an address of this process.
    pub fn guest_address(&self, host: *const u8) -> Option<GuestAddress> {
        self.regions.iter().find_map(|region| {
            let offset = host.addr().checked_sub(region.mapping.base().addr().get())? as u64;
            (offset < region.length).then(|| GuestAddress(region.base + offset))
        })
    }
}

impl MappedRegion {
    /// The whole pages of the file between two guest addresses: offset and length.
    fn whole_pages(&self, start: u64, end: u64, page: u64) -> Option<(u64, u64)> {
        // No overflow: regions that wrap were refused, in memory and in the file.
        let place = |address: u64| {
            address.clamp(self.base, self.base + self.length) - self.base + self.file_offset
        };
        let (start, end) = (place(start), place(end));
        let first = start.checked_next_multiple_of(page)?;
        let length = (end - end % page).checked_sub(first).filter(|length| *length > 0)?;
        Some((first, length))
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::sync::Arc;

    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

    use super::*;
    use crate::memory::{MapOptions, PageAdvice, RegionSpec};

    const PAGE: u64 = 4096;

    /// Sixteen pages at 0 and sixteen at 1 MiB, behind each other in one file, none of them empty.
    fn memory() -> (GuestMemory, Arc<OwnedFd>) {
        let file: Arc<OwnedFd> = Arc::new(memfd_create("guest", MemfdFlags::CLOEXEC).unwrap());
        ftruncate(&file, 32 * PAGE).unwrap();
        let region = |base, file_offset| RegionSpec {
            base: GuestAddress(base),
            length: 16 * PAGE,
            file: Arc::clone(&file),
            file_offset,
        };
        let options = MapOptions { pages: PageAdvice::Unspecified, ..MapOptions::default() };
        let regions = vec![region(0, 0), region(1 << 20, 16 * PAGE)];
        let memory = GuestMemory::with_options(regions, options).unwrap();
        for base in [0, 1 << 20] {
            memory.write_slice(GuestAddress(base), &vec![7; 16 * PAGE as usize]).unwrap();
        }
        (memory, file)
    }

    fn resident(file: &OwnedFd) -> u64 {
        rustix::fs::fstat(file).unwrap().st_blocks as u64 * 512 / PAGE
    }

    fn byte(memory: &GuestMemory, address: u64) -> u8 {
        memory.read_obj(GuestAddress(address)).unwrap()
    }

    #[test]
    fn whole_pages_leave_and_come_back_as_zeros() {
        let (memory, file) = memory();
        assert_eq!(resident(&file), 32);
        assert_eq!(memory.release(GuestAddress(PAGE), 2 * PAGE, PAGE).unwrap(), 2 * PAGE);
        assert_eq!(resident(&file), 30);
        assert_eq!((byte(&memory, PAGE - 1), byte(&memory, 3 * PAGE)), (7, 7));
        assert_eq!((byte(&memory, PAGE), byte(&memory, 3 * PAGE - 1)), (0, 0));
    }

    #[test]
    fn parts_of_pages_stay() {
        let (memory, file) = memory();
        for (address, length, freed) in [
            (1, PAGE, 0),
            (1, 2 * PAGE - 2, 0),
            (1, 2 * PAGE - 1, PAGE),
            (PAGE + 1, 3 * PAGE, 2 * PAGE),
            (0, 0, 0),
        ] {
            let result = memory.release(GuestAddress(address), length, PAGE).unwrap();
            assert_eq!(result, freed, "{address:#x}, {length:#x}");
        }
        assert_eq!(resident(&file), 32 - 3);
        // A page of four is not whole in three.
        assert_eq!(memory.release(GuestAddress(PAGE * 5), 3 * PAGE, 4 * PAGE).unwrap(), 0);
        assert_eq!(memory.release(GuestAddress(PAGE * 5), 7 * PAGE, 4 * PAGE).unwrap(), 4 * PAGE);
    }

    #[test]
    fn nothing_is_freed_where_there_is_no_memory() {
        let (memory, file) = memory();
        for (address, length) in [
            (16 * PAGE, PAGE),
            ((1 << 20) - PAGE, PAGE),
            ((1 << 20) + 16 * PAGE, u64::MAX),
            (u64::MAX - PAGE + 1, PAGE),
            (u64::MAX, u64::MAX),
        ] {
            assert_eq!(memory.release(GuestAddress(address), length, PAGE).unwrap(), 0);
        }
        assert_eq!(resident(&file), 32);
        // All of it at once, the hole between included.
        assert_eq!(memory.release(GuestAddress(0), u64::MAX, PAGE).unwrap(), 32 * PAGE);
        assert_eq!(resident(&file), 0);
    }

    #[test]
    fn host_addresses_have_guest_addresses() {
        let (memory, _file) = memory();
        for address in [0, 5, 16 * PAGE - 1, 1 << 20, (1 << 20) + 16 * PAGE - 1] {
            let range = memory.host_range(GuestAddress(address), 1).unwrap();
            assert_eq!(memory.guest_address(range.as_ptr()), Some(GuestAddress(address)));
        }
        let end = memory.host_range(GuestAddress((1 << 20) + 16 * PAGE - 1), 1).unwrap();
        let behind = memory.guest_address(end.as_ptr().wrapping_add(1));
        assert_ne!(behind, Some(GuestAddress((1 << 20) + 16 * PAGE)));
        assert_eq!(memory.guest_address(std::ptr::null()), None);
    }
}
