//! Persistent memory: files that the guest has as memory.

use std::os::fd::AsFd;
use std::sync::Arc;

use arch::GuestRange;
use arch::x86_64::layout::{HUGE_PAGE_SIZE, Ram};
use devices::memory::{FileAccess, FileMapping, GuestAddress};
use devices::virtio::parts::DeviceParts;
use devices::virtio::pmem::{Access, PmemFile, PmemParts};

use super::Error;
use super::backends::OpenDevice;
use crate::config::{MachineConfig, MemorySize, PmemConfig};
use crate::pstore::Pstore;

/// Opens and locks the files.
pub(super) fn open(config: &MachineConfig) -> Result<Vec<(String, PmemFile)>, Error> {
    let open = |pmem: &PmemConfig| {
        let access = if pmem.read_only { Access::ReadOnly } else { Access::ReadWrite };
        let size = pmem.size.map(MemorySize::bytes);
        let file = PmemFile::open(&pmem.path, access, size).map_err(Error::Pmem)?;
        Ok((format!("pmem {}", pmem.path.display()), file))
    };
    config.pmems.iter().map(open).collect()
}

/// All of a machine's persistent memory.
#[derive(Debug)]
pub(super) struct Pmems {
    pub(super) mappings: Arc<[FileMapping]>,
    pub(super) devices: Vec<OpenDevice>,
    /// The first address behind it.
    pub(super) end: arch::GuestAddress,
    /// What tells the kernel where its last words go.
    pub(super) words: String,
}

/// Gives each file its place, and maps it.
pub(super) fn place(
    files: Vec<(String, PmemFile)>,
    pstore: Option<&Pstore>,
    ram: Ram,
) -> Result<Pmems, Error> {
    let length = |(_, file): &(String, PmemFile)| {
        file.length().checked_next_multiple_of(HUGE_PAGE_SIZE).unwrap_or(u64::MAX)
    };
    // First: its place is then the same for each machine with so much memory.
    let of_pstore = pstore.map(|pstore| pstore.layout.size.next_multiple_of(HUGE_PAGE_SIZE));
    let lengths: Vec<_> = of_pstore.into_iter().chain(files.iter().map(length)).collect();
    let places = ram.places_above(&lengths)?;
    let end = places.last().map_or(ram.end(), |range| range.end());
    let mut places = places.into_iter();
    let mut mappings = Vec::with_capacity(lengths.len());
    let mut devices = Vec::with_capacity(files.len());
    let mut words = String::new();
    if let Some((pstore, place)) = pstore.and_then(|pstore| Some((pstore, places.next()?))) {
        let start = GuestAddress(GuestRange::start(place).value());
        let size = pstore.layout.size;
        let mapping = FileMapping::new(pstore.as_fd(), size, start, size, FileAccess::ReadWrite)
            .map_err(super::RamError::from)?;
        mappings.push(mapping);
        words = pstore.layout.kernel_words(start.0);
    }
    for ((name, file), place) in files.into_iter().zip(places) {
        let start = GuestAddress(GuestRange::start(place).value());
        let access = match file.access() {
            Access::ReadOnly => FileAccess::ReadOnly,
            Access::ReadWrite => FileAccess::ReadWrite,
        };
        let mapping = FileMapping::new(file.as_fd(), file.length(), start, place.length(), access)
            .map_err(super::RamError::from)?;
        mappings.push(mapping);
        let parts = PmemParts::new(&file, start, place.length())
            .map_err(Error::host("hand a file to its process"))?;
        devices.push(OpenDevice::new(name, DeviceParts::Pmem(parts)));
    }
    Ok(Pmems { mappings: mappings.into(), devices, end, words })
}
