//! What can be wrong with a file that was given as a kernel.

use std::io;

use crate::memory::{GuestAddress, GuestRange};

/// Why a file is not a kernel this machine can start. The caller knows the file's name and adds it.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The file could not be read.
    #[error("cannot read the kernel's {what}")]
    Read {
        /// Which part was being read.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// It is a directory.
    #[error("the kernel is a directory, not a file")]
    Directory,
    /// It is a pipe, a terminal or a device.
    #[error("the kernel is not a regular file")]
    NotRegular,
    /// It has no bytes.
    #[error("the kernel file is empty")]
    Empty,
    /// It ends before something that its headers promise.
    #[error(
        "the kernel file is truncated: its {what} ends at byte {needed}, the file at byte {length}"
    )]
    Truncated {
        /// What is incomplete.
        what: &'static str,
        /// Where that would end.
        needed: u64,
        /// Where the file ends.
        length: u64,
    },
    /// It holds readable text.
    #[error("the kernel is a text file, not a kernel image")]
    Text,
    /// It is compressed as a whole.
    #[error("the kernel file is compressed with {format}: decompress it first")]
    Compressed {
        /// The name of the compression.
        format: &'static str,
    },
    /// It is a kernel or program for other processors.
    #[error("the kernel is for {found}, this machine is x86_64")]
    Architecture {
        /// What it is for.
        found: String,
    },
    /// It is some other well-known kind of file.
    #[error("the kernel file is {what}, not a kernel image")]
    OtherFile {
        /// What it is, with its article.
        what: &'static str,
    },
    /// Nothing about it is known.
    #[error("the kernel is neither an ELF file nor a Linux bzImage (it begins with {first})")]
    Unrecognised {
        /// Its first bytes, in hexadecimal.
        first: String,
    },
    /// An ELF file of a kind that is not a kernel.
    #[error("the kernel is {what}, not an ELF executable")]
    ElfKind {
        /// What it is, with its article.
        what: &'static str,
    },
    /// A header field that no tool would write.
    #[error("the kernel's {what} is malformed: {found}")]
    Malformed {
        /// The header or field.
        what: &'static str,
        /// The value and what is wrong with it.
        found: String,
    },
    /// An ELF file with nothing to load.
    #[error("the kernel has no segment to load")]
    NothingToLoad,
    /// A segment outside the addresses that a kernel may have.
    #[error(
        "the kernel wants to be at {start} with {length} bytes, which must lie within {allowed}"
    )]
    Misplaced {
        /// First address of the segment.
        start: GuestAddress,
        /// Its length in memory.
        length: u64,
        /// Where segments may be.
        allowed: GuestRange,
    },
    /// Two segments share memory.
    #[error("the kernel's segments {first} and {second} overlap in memory")]
    Overlap {
        /// The lower one.
        first: GuestRange,
        /// The other.
        second: GuestRange,
    },
    /// The entry point is in no segment.
    #[error("the kernel's {protocol} entry point {entry} is in none of its segments")]
    EntryOutside {
        /// The boot protocol of the entry.
        protocol: &'static str,
        /// The entry.
        entry: GuestAddress,
    },
    /// A bzImage from before the protocol version that is needed.
    #[error(
        "the bzImage has boot protocol {major}.{minor:02}, at least 2.06 is needed (Linux 2.6.22)"
    )]
    OldProtocol {
        /// Major version.
        major: u8,
        /// Minor version.
        minor: u8,
    },
    /// A zImage, which is loaded below 1 MiB.
    #[error("the kernel is a zImage, not a bzImage: it cannot be loaded above 1 MiB")]
    ZImage,
    /// A bzImage that can only be started in real or 32-bit mode.
    #[error(
        "the bzImage has no 64-bit entry point: it is a 32-bit kernel, or older than Linux 3.8"
    )]
    No64BitEntry,
}
