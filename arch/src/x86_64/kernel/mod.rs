//! Kernel images: what kind a file is, which parts of it go where, and how it is entered.
//!
//! ```text
//!             ┌ "\x7fELF" ─▶ elf:     PT_LOAD segments ─┬ Xen PVH note ──▶ Protocol::Pvh
//!  file head ─┤                                         └ none ──────────▶ Protocol::Linux64
//!             ├ "HdrS" ────▶ bzimage: one segment ───────────────────────▶ Protocol::Linux64
//!             └ else ──────▶ unknown: an error that says what the file is instead
//! ```
//!
//! A file may be hostile. Only headers are read, in bounded amounts; every number in them is
//! checked against the file's length, against the others and against wrapping around. What a
//! [`KernelImage`] says therefore holds: its segments lie in the file, do not overlap in memory and
//! one of them holds the entry point. Whether they fit the machine's RAM is for
//! [`boot::plan`](super::boot::plan) to say.

mod bzimage;
mod elf;
mod error;
mod unknown;

#[cfg(test)]
pub(super) mod tests;

use std::io;

pub use bzimage::SetupHeader;
pub use error::KernelError;

use super::layout::HIGH_RAM_START;
use crate::file::KernelFile;
use crate::memory::{GuestAddress, GuestRange};

/// Where kernels may be: above the boot structures and firmware tables, and within the 4 GiB that
/// the 64-bit entry's page tables map and the 32-bit PVH entry reaches.
const ALLOWED: GuestRange = GuestRange::between(HIGH_RAM_START.0, 1 << 32);

/// As much of the file's beginning as is read to tell what it is. It holds the whole setup header of
/// a bzImage, and an ELF header with the program headers that usually follow it.
const HEAD_LENGTH: u64 = 4096;

/// A part of the kernel file and its place in guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Where its bytes begin in the file.
    pub file_offset: u64,
    /// How many bytes the file has of it.
    pub file_size: u64,
    /// How much memory it takes, at least `file_size`. What the file does not fill must be zero
    /// when the guest starts, as fresh guest memory is.
    pub memory_size: u64,
    /// Where it goes.
    pub address: GuestAddress,
}

impl Segment {
    /// The memory it takes.
    #[must_use]
    pub fn memory(&self) -> GuestRange {
        GuestRange::between(self.address.0, self.address.0 + self.memory_size)
    }
}

/// How a kernel expects to be entered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Protocol {
    /// Xen's PVH: 32-bit protected mode without paging, EBX = start info
    /// (Xen, docs/misc/pvh.pandoc).
    Pvh,
    /// Linux' 64-bit boot protocol: long mode with identity-mapped pages, RSI = zero page
    /// (Linux, Documentation/arch/x86/boot.rst).
    Linux64 {
        /// The setup header of a bzImage; an ELF file has none.
        header: Option<SetupHeader>,
    },
}

/// A kernel that this machine can start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelImage {
    segments: Vec<Segment>,
    entry: GuestAddress,
    protocol: Protocol,
}

impl KernelImage {
    /// Reads the headers of `file` and says how to load and enter it.
    pub fn probe(file: &(impl KernelFile + ?Sized)) -> Result<Self, KernelError> {
        let length = file.length().map_err(|source| match source.kind() {
            io::ErrorKind::IsADirectory => KernelError::Directory,
            io::ErrorKind::InvalidInput => KernelError::NotRegular,
            _ => KernelError::Read { what: "length", source },
        })?;
        let image = Image { file, length };
        if length == 0 {
            return Err(KernelError::Empty);
        }
        let head = image.read("first page", 0, length.min(HEAD_LENGTH))?;
        if elf::recognises(&head) {
            elf::probe(&image, &head)
        } else if bzimage::recognises(&head) {
            bzimage::probe(&image, &head)
        } else {
            Err(unknown::identify(&head))
        }
    }

    /// What to copy from the file to guest memory. No two overlap.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The address of the first instruction, in one of the segments.
    #[must_use]
    pub fn entry(&self) -> GuestAddress {
        self.entry
    }

    /// How to enter it.
    #[must_use]
    pub fn protocol(&self) -> &Protocol {
        &self.protocol
    }

    /// From the first byte of the lowest segment to the end of the highest.
    #[must_use]
    pub fn memory(&self) -> GuestRange {
        let start = self.segments.iter().map(|segment| segment.memory().start().0).min();
        let end = self.segments.iter().map(|segment| segment.memory().end().0).max();
        GuestRange::between(start.unwrap_or(0), end.unwrap_or(0))
    }
}

/// The file with its length, for bounded reads.
struct Image<'a, F: ?Sized> {
    file: &'a F,
    length: u64,
}

impl<F: KernelFile + ?Sized> Image<'_, F> {
    /// Checks that `size` bytes from `offset` are in the file.
    fn check(&self, what: &'static str, offset: u64, size: u64) -> Result<(), KernelError> {
        let needed = offset.saturating_add(size);
        if needed > self.length || needed == u64::MAX {
            return Err(KernelError::Truncated { what, needed, length: self.length });
        }
        Ok(())
    }

    /// Reads `size` bytes from `offset`. The caller has bounded `size`.
    fn read(&self, what: &'static str, offset: u64, size: u64) -> Result<Vec<u8>, KernelError> {
        self.check(what, offset, size)?;
        let mut bytes = vec![0; size as usize];
        self.file
            .read_exact_at(&mut bytes, offset)
            .map_err(|source| KernelError::Read { what, source })?;
        Ok(bytes)
    }
}

/// The memory of a segment, if it lies where kernels may be.
fn place(start: GuestAddress, length: u64) -> Result<GuestRange, KernelError> {
    GuestRange::new(start, length)
        .filter(|&range| ALLOWED.covers(range))
        .ok_or(KernelError::Misplaced { start, length, allowed: ALLOWED })
}
