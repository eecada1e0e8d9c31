//! Guest RAM: one memfd, mapped at a 2 MiB boundary, so that device processes can map it too.

use std::borrow::Cow;
use std::io;
use std::sync::Arc;

use arch::x86_64::layout::Ram;
use devices::memory::{GuestAddress, GuestMemory, MapOptions, MemoryError, PageAdvice, RegionSpec};
use rustix::fs::{MemfdFlags, SealFlags};

use crate::config::{MachineConfig, Pages, Residency};
use crate::error::Hint;

/// Guest RAM that could not be had.
#[derive(Debug, thiserror::Error)]
pub enum RamError {
    /// The size is one that no machine can have.
    #[error("cannot lay out the guest's memory")]
    Layout(#[from] arch::x86_64::layout::LayoutError),
    /// The kernel refused the file behind the RAM.
    #[error("cannot get {size} bytes of memory for the guest{kind}")]
    Create {
        /// How much was asked for.
        size: u64,
        /// What was special about it.
        kind: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The mapping failed.
    #[error("cannot map the guest's memory")]
    Map(#[from] MemoryError),
    /// The RAM could not be locked.
    #[error("cannot lock {size} bytes of guest memory")]
    Lock {
        /// How much.
        size: u64,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Hint for RamError {
    fn hint(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Create { kind, .. } if !kind.is_empty() => Some(
                "reserve huge pages first: sysctl vm.nr_hugepages=N (2 MiB each), or leave out `hugepages`"
                    .into(),
            ),
            Self::Lock { .. } => {
                Some("raise the limit on locked memory (ulimit -l), or leave out `lock-memory`".into())
            }
            _ => None,
        }
    }
}

/// Creates and maps the RAM that `config` asks for.
pub(super) fn create(config: &MachineConfig, ram: Ram) -> Result<GuestMemory, RamError> {
    let size = ram.size();
    let (flags, kind) = if config.pages == Pages::Huge {
        (MemfdFlags::HUGETLB, " from huge pages")
    } else {
        (MemfdFlags::empty(), "")
    };
    let failed = |errno: rustix::io::Errno| RamError::Create { size, kind, source: errno.into() };
    let file = rustix::fs::memfd_create(
        "guest-ram",
        MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | flags,
    )
    .map_err(failed)?;
    rustix::fs::ftruncate(&file, size).map_err(failed)?;
    // A process that holds the fd must not be able to shrink the RAM under the others, which
    // would then die of SIGBUS.
    rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)
        .map_err(failed)?;
    let file = Arc::new(file);
    let mut offset = 0;
    let regions = ram
        .ranges()
        .map(|range| {
            let region = RegionSpec {
                base: GuestAddress(range.start().value()),
                length: range.length(),
                file: Arc::clone(&file),
                file_offset: offset,
            };
            offset += range.length();
            region
        })
        .collect();
    let pages =
        if config.pages == Pages::Huge { PageAdvice::Unspecified } else { PageAdvice::Huge };
    let options = MapOptions { pages, ..MapOptions::default() };
    let memory = GuestMemory::with_options(regions, options)?;
    if config.residency == Residency::Locked {
        lock(&memory, size)?;
    }
    Ok(memory)
}

fn lock(memory: &GuestMemory, size: u64) -> Result<(), RamError> {
    for region in memory.regions() {
        // SAFETY: the range is a live mapping of `memory`; locking pages changes no contents.
        unsafe { rustix::mm::mlock(region.host_base.as_ptr().cast(), region.length as usize) }
            .map_err(|errno| RamError::Lock { size, source: errno.into() })?;
    }
    Ok(())
}
