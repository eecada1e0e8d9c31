//! What devices need from a host.

use std::sync::Arc;

use devices::memory::{GuestAddress, GuestMemory, MapOptions, PageAdvice, RegionSpec};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

/// Memory of a guest from address 0.
pub(crate) fn memory(bytes: u64) -> GuestMemory {
    let file = memfd_create("guest", MemfdFlags::CLOEXEC).expect("memory");
    ftruncate(&file, bytes).expect("memory");
    let file = Arc::new(file);
    let region = RegionSpec { base: GuestAddress(0), length: bytes, file, file_offset: 0 };
    // Many of these are made, and each is barely touched.
    let options = MapOptions { pages: PageAdvice::Unspecified, ..MapOptions::default() };
    GuestMemory::with_options(vec![region], options).expect("memory")
}
