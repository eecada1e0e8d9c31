//! Why a kernel, a command line and an initrd do not make a start.

use crate::memory::GuestRange;

/// Why the machine cannot be started with what was given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BootError {
    /// The kernel needs memory the machine does not have.
    #[error(
        "the kernel takes the memory {kernel}, but RAM below 3 GiB ends at {ram_end:#x}: give the \
         machine more memory"
    )]
    KernelDoesNotFit {
        /// The memory of the segment that does not fit.
        kernel: GuestRange,
        /// Where low RAM ends.
        ram_end: u64,
    },
    /// The command line is longer than the kernel takes.
    #[error("the kernel command line has {length} bytes, the kernel takes at most {max}")]
    CommandLineTooLong {
        /// Its length.
        length: usize,
        /// The longest that the kernel takes.
        max: usize,
    },
    /// A zero byte would end the command line early.
    #[error("the kernel command line has a zero byte at position {position}")]
    CommandLineHasNul {
        /// Where, counted from 0.
        position: usize,
    },
    /// The initrd has no bytes.
    #[error("the initrd is empty")]
    InitrdEmpty,
    /// The initrd does not fit between the kernel and the end of what the kernel can reach.
    #[error(
        "the initrd has {length} bytes, but between the kernel and the end of the memory that may \
         hold an initrd ({room}) there are {available}"
    )]
    InitrdTooLarge {
        /// Its length in bytes.
        length: u64,
        /// The memory that could have held it.
        room: GuestRange,
        /// The length of that, in bytes.
        available: u64,
    },
}
