//! The guest's physical memory, mapped into this process.
//!
//! ```text
//!   guest physical        this process (2 MiB aligned)      memfd
//!   0x0000_0000 ┌──────┐      ┌──────┐                     ┌──────┐ file_offset
//!               │region│ ───► │ mmap │ ──────────────────► │      │
//!   0xc000_0000 └──────┘      └──────┘                     │      │
//!   0x1_0000_0000 ┌────┐      ┌──────┐                     │      │
//!                 │    │ ───► │ mmap │ ──────────────────► │      │
//! ```
//!
//! A [`GuestMemory`] is a cheap clone; the mapping lives as long as the last clone. Another process
//! maps the same memory from a [`MemoryLayout`], which carries the file descriptors.
//!
//! The guest and other processes change this memory at any time. Therefore nothing here makes a
//! Rust reference to it: all access is by value, volatile, and checked against the regions.

mod access;
mod file_mapping;
mod file_view;
mod mapping;
mod near;
mod release;

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use serde::{Deserialize, Serialize};

pub use file_mapping::{FileAccess, FileMapping};
pub use file_view::{FileView, major_faults, survive_bus_errors};
use mapping::Mapping;
pub(crate) use near::{prefetch, prefetch_for_write};

/// More regions than any memory map needs; bounds what a hostile [`MemoryLayout`] can cost.
const MAX_REGIONS: usize = 64;

/// An address in the guest's physical memory.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct GuestAddress(pub u64);

impl fmt::Display for GuestAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:#x}", self.0)
    }
}

impl GuestAddress {
    /// The address `offset` bytes further on, unless it wraps.
    pub fn checked_add(self, offset: u64) -> Option<GuestAddress> {
        self.0.checked_add(offset).map(GuestAddress)
    }
}

/// Why guest memory could not be mapped or accessed.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// A region is empty, wraps, or is not made of whole pages.
    #[error("guest memory region at {base} of {length:#x} bytes is not made of whole pages")]
    BadRegion {
        /// Guest base address.
        base: GuestAddress,
        /// Length in bytes.
        length: u64,
    },
    /// Two regions share an address.
    #[error("guest memory regions overlap at {0}")]
    Overlap(GuestAddress),
    /// No region, or more than any machine has.
    #[error("guest memory of {0} regions")]
    RegionCount(usize),
    /// The file behind a region ends before the region does.
    #[error("file of guest memory region at {base} has {file_length:#x} bytes, {needed:#x} needed")]
    FileTooShort {
        /// Guest base address.
        base: GuestAddress,
        /// Length of the file.
        file_length: u64,
        /// End of the region in the file.
        needed: u64,
    },
    /// The kernel refused to map a region.
    #[error("mapping {length:#x} bytes of guest memory at {base}")]
    Map {
        /// Guest base address.
        base: GuestAddress,
        /// Length in bytes.
        length: u64,
        /// The system call's error.
        #[source]
        source: io::Error,
    },
    /// A file descriptor of guest memory could not be duplicated.
    #[error("duplicating the file descriptor of guest memory")]
    Duplicate(#[source] io::Error),
    /// An access touches an address where there is no memory.
    #[error("no guest memory at {address} for an access of {length:#x} bytes")]
    OutOfRange {
        /// First address of the access.
        address: GuestAddress,
        /// Length of the access.
        length: u64,
    },
    /// A file could not be read into guest memory.
    #[error("reading {length:#x} bytes of a file into guest memory at {address}")]
    ReadFile {
        /// First address to fill.
        address: GuestAddress,
        /// Bytes to read.
        length: u64,
        /// The system call's error, or that the file ended.
        #[source]
        source: io::Error,
    },
}

/// One region of guest memory that is to be mapped.
#[derive(Debug, Clone)]
pub struct RegionSpec {
    /// Guest physical address of the first byte; a multiple of the page size.
    pub base: GuestAddress,
    /// Length in bytes; a multiple of the page size.
    pub length: u64,
    /// The memory, shared: a memfd.
    pub file: Arc<OwnedFd>,
    /// Where in the file the region starts; a multiple of the page size.
    pub file_offset: u64,
}

/// How to map guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MapOptions {
    /// Which pages to ask for.
    pub pages: PageAdvice,
    /// Whether core dumps of this process hold guest memory.
    pub core_dump: CoreDump,
}

/// Which pages to ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PageAdvice {
    /// Transparent huge pages where the kernel has them (`MADV_HUGEPAGE`).
    #[default]
    Huge,
    /// What the kernel does by itself; also right for a memfd that is hugetlb.
    Unspecified,
}

/// Whether core dumps of this process hold guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CoreDump {
    /// They do not (`MADV_DONTDUMP`): guests hold secrets, and gigabytes.
    #[default]
    WithoutGuestMemory,
    /// They do.
    WithGuestMemory,
}

/// A region of guest memory as it is mapped here.
#[derive(Debug, Clone, Copy)]
pub struct Region<'a> {
    /// Guest physical address of the first byte.
    pub guest_base: GuestAddress,
    /// Address of the first byte in this process.
    pub host_base: NonNull<u8>,
    /// Length in bytes.
    pub length: u64,
    /// The file that is mapped.
    pub file: BorrowedFd<'a>,
    /// Where in the file the region starts.
    pub file_offset: u64,
}

/// Bytes of guest memory that lie side by side in this process.
///
/// Valid as long as a clone of the [`GuestMemory`] that made it lives: whoever keeps a range keeps
/// a clone beside it. Dereferencing the pointer is the reader's unsafe block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostRange {
    pointer: NonNull<u8>,
    length: usize,
}

// SAFETY: A range is an address and a length; using the address is what needs care, and the memory
// itself may be accessed from any thread.
unsafe impl Send for HostRange {}
// SAFETY: As above.
unsafe impl Sync for HostRange {}

impl HostRange {
    /// Address of the first byte.
    pub fn as_ptr(self) -> *mut u8 {
        self.pointer.as_ptr()
    }

    /// Number of bytes.
    pub fn len(self) -> usize {
        self.length
    }

    /// Whether there are no bytes.
    pub fn is_empty(self) -> bool {
        self.length == 0
    }
}

/// The memory of a guest as it travels to another process.
#[derive(Debug, Serialize, Deserialize)]
pub struct MemoryLayout {
    regions: Vec<RegionLayout>,
}

/// One region of a [`MemoryLayout`].
#[derive(Debug, Serialize, Deserialize)]
struct RegionLayout {
    base: GuestAddress,
    length: u64,
    file: ipc::Fd,
    file_offset: u64,
}

struct MappedRegion {
    base: u64,
    length: u64,
    mapping: Mapping,
    file: Arc<OwnedFd>,
    file_offset: u64,
}

/// The guest's physical memory.
#[derive(Clone)]
pub struct GuestMemory {
    /// Sorted by base, disjoint. One to three in practice, so lookups are a linear scan.
    regions: Arc<[MappedRegion]>,
}

impl fmt::Debug for GuestMemory {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.regions()).finish()
    }
}

impl GuestMemory {
    /// Maps the regions with the default [`MapOptions`].
    pub fn new(specs: Vec<RegionSpec>) -> Result<GuestMemory, MemoryError> {
        GuestMemory::with_options(specs, MapOptions::default())
    }

    /// Maps the regions.
    pub fn with_options(
        mut specs: Vec<RegionSpec>,
        options: MapOptions,
    ) -> Result<GuestMemory, MemoryError> {
        if specs.is_empty() || specs.len() > MAX_REGIONS {
            return Err(MemoryError::RegionCount(specs.len()));
        }
        specs.sort_by_key(|spec| spec.base);
        for spec in &specs {
            mapping::check(spec)?;
        }
        for pair in specs.windows(2) {
            // No overflow: `check` refused regions that wrap.
            if pair[0].base.0 + (pair[0].length - 1) >= pair[1].base.0 {
                return Err(MemoryError::Overlap(pair[1].base));
            }
        }
        let regions = specs
            .into_iter()
            .map(|spec| {
                Ok(MappedRegion {
                    base: spec.base.0,
                    length: spec.length,
                    mapping: Mapping::new(&spec, options)?,
                    file: spec.file,
                    file_offset: spec.file_offset,
                })
            })
            .collect::<Result<_, MemoryError>>()?;
        Ok(GuestMemory { regions })
    }

    /// Memory of its own from address 0, in small pages that take no room before they are written: for
    /// drivers that are models.
    pub fn sparse(length: u64) -> Result<GuestMemory, MemoryError> {
        let base = GuestAddress(0);
        let failed =
            |errno: rustix::io::Errno| MemoryError::Map { base, length, source: errno.into() };
        let file = memfd_create("guest", MemfdFlags::CLOEXEC).map_err(failed)?;
        ftruncate(&file, length).map_err(failed)?;
        let region = RegionSpec { base, length, file: Arc::new(file), file_offset: 0 };
        let options = MapOptions { pages: PageAdvice::Unspecified, ..MapOptions::default() };
        GuestMemory::with_options(vec![region], options)
    }

    /// Maps memory that another process laid out. The layout may be hostile.
    pub fn from_layout(
        layout: MemoryLayout,
        options: MapOptions,
    ) -> Result<GuestMemory, MemoryError> {
        let specs = layout
            .regions
            .into_iter()
            .map(|region| RegionSpec {
                base: region.base,
                length: region.length,
                file: Arc::new(region.file.into()),
                file_offset: region.file_offset,
            })
            .collect();
        GuestMemory::with_options(specs, options)
    }

    /// What another process needs to map the same memory.
    pub fn layout(&self) -> Result<MemoryLayout, MemoryError> {
        let regions = self
            .regions
            .iter()
            .map(|region| {
                let file = region.file.try_clone().map_err(MemoryError::Duplicate)?;
                Ok(RegionLayout {
                    base: GuestAddress(region.base),
                    length: region.length,
                    file: file.into(),
                    file_offset: region.file_offset,
                })
            })
            .collect::<Result<_, MemoryError>>()?;
        Ok(MemoryLayout { regions })
    }

    /// The regions in ascending order.
    pub fn regions(&self) -> impl Iterator<Item = Region<'_>> {
        self.regions.iter().map(|region| Region {
            guest_base: GuestAddress(region.base),
            host_base: region.mapping.base(),
            length: region.length,
            file: region.file.as_fd(),
            file_offset: region.file_offset,
        })
    }

    /// Bytes of memory in all regions.
    pub fn size(&self) -> u64 {
        self.regions.iter().map(|region| region.length).sum()
    }

    /// Where `length` bytes at `address` lie in this process; none unless one region holds all of
    /// them. An empty range is valid wherever a byte would be.
    #[inline]
    pub fn host_range(&self, address: GuestAddress, length: usize) -> Option<HostRange> {
        self.regions.iter().find_map(|region| {
            let offset = address.0.checked_sub(region.base)?;
            let room = region.length.checked_sub(offset).filter(|room| *room > 0)?;
            (length as u64 <= room).then(|| region.mapping.range(offset as usize, length))
        })
    }

    /// The part of an access of `length` bytes that the region at `address` holds.
    fn host_prefix(&self, address: GuestAddress, length: usize) -> Option<HostRange> {
        self.regions.iter().find_map(|region| {
            let offset = address.0.checked_sub(region.base)?;
            let room = region.length.checked_sub(offset).filter(|room| *room > 0)?;
            let length = length.min(usize::try_from(room).unwrap_or(usize::MAX));
            Some(region.mapping.range(offset as usize, length))
        })
    }
}

#[cfg(test)]
mod tests;
