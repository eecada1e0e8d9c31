//! Copies kernel, initrd and boot structures into guest RAM.
//!
//! The copy is most of the time between exec and the first guest instruction, and nearly all of
//! it is the kernel handing out pages. Writing to the memfd lets it skip zeroing them and the page
//! faults of a copy through the mapping: half the time, measured with a 33 MB file (12 ms against
//! 25 ms). Pages that are all zeros (`.bss` is in the file of a vmlinux) are not written at all.

use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use arch::x86_64::kernel::{KernelImage, Segment};
use devices::memory::{GuestAddress, GuestMemory};

/// Bytes moved by one read and one write; fits the second-level cache, so the second touch of
/// each byte is cheap.
const CHUNK: usize = 512 << 10;
/// What is looked at for being all zeros: a page of the guest.
const PAGE: usize = 4096;

/// Where bytes for the guest come from.
#[derive(Debug)]
pub(super) enum Source {
    /// A file that the user named.
    File { file: File, path: PathBuf },
    /// Part of this program: the built-in guest.
    Embedded(&'static [u8]),
}

/// A copy into guest RAM that failed.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file could not be read, or became shorter after it was looked at.
    #[error("cannot read {length} bytes at offset {offset} of {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Where in the file.
        offset: u64,
        /// How much.
        length: u64,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The destination is not RAM.
    #[error("{length} bytes at guest address {address:#x} are not inside the guest's RAM")]
    Outside {
        /// First guest address.
        address: u64,
        /// How much.
        length: u64,
    },
    /// The host ran out of memory.
    #[error("cannot write to guest memory")]
    Write(#[source] io::Error),
}

/// Copies the segments of a kernel image.
pub(super) fn load_kernel(
    image: &KernelImage,
    source: &Source,
    memory: &GuestMemory,
) -> Result<(), LoadError> {
    // RAM is zero at the start, so what a segment's memory has beyond its file needs no work.
    image.segments().iter().try_for_each(|segment: &Segment| {
        copy(source, segment.file_offset, segment.file_size, segment.address.value(), memory)
    })
}

/// Copies `length` bytes at `offset` of `source` to guest address `to`.
pub(super) fn copy(
    source: &Source,
    offset: u64,
    length: u64,
    to: u64,
    memory: &GuestMemory,
) -> Result<(), LoadError> {
    let target = Target::find(memory, to, length)?;
    match source {
        Source::Embedded(bytes) => {
            let bytes = slice_at(bytes, offset, length).ok_or_else(|| LoadError::Read {
                path: "the built-in guest".into(),
                offset,
                length,
                source: io::ErrorKind::UnexpectedEof.into(),
            })?;
            target.write(bytes, 0)
        }
        Source::File { file, path } => copy_file(file, path, offset, length, &target),
    }
}

fn slice_at(bytes: &[u8], offset: u64, length: u64) -> Option<&[u8]> {
    bytes.get(usize::try_from(offset).ok()?..)?.get(..usize::try_from(length).ok()?)
}

fn copy_file(
    file: &File,
    path: &Path,
    offset: u64,
    length: u64,
    target: &Target<'_>,
) -> Result<(), LoadError> {
    let mut buffer = vec![0; CHUNK.min(usize::try_from(length).unwrap_or(CHUNK))];
    let mut done = 0;
    while done < length {
        let chunk = &mut buffer[..CHUNK.min((length - done) as usize)];
        file.read_exact_at(chunk, offset + done).map_err(|source| LoadError::Read {
            path: path.to_owned(),
            offset: offset + done,
            length: chunk.len() as u64,
            source,
        })?;
        target.write(chunk, done)?;
        done += chunk.len() as u64;
    }
    Ok(())
}

/// A range of guest RAM as a range of the file that backs it.
struct Target<'a> {
    backing: BorrowedFd<'a>,
    offset: u64,
}

impl<'a> Target<'a> {
    fn find(memory: &'a GuestMemory, address: u64, length: u64) -> Result<Self, LoadError> {
        let outside = LoadError::Outside { address, length };
        let end = address.checked_add(length).ok_or(LoadError::Outside { address, length })?;
        memory
            .regions()
            .find(|region| {
                region.guest_base.0 <= address && end <= region.guest_base.0 + region.length
            })
            .map(|region| Self {
                backing: region.file,
                offset: region.file_offset + (address - region.guest_base.0),
            })
            .ok_or(outside)
    }

    /// Writes `bytes` at `at`, leaving out pages of zeros.
    fn write(&self, bytes: &[u8], at: u64) -> Result<(), LoadError> {
        let mut start = 0;
        while start < bytes.len() {
            let run = data_run(&bytes[start..]);
            let (data, zeros) = (start..start + run.data, run.zeros);
            let offset = self.offset + at + start as u64;
            write_all(self.backing, &bytes[data], offset).map_err(LoadError::Write)?;
            start += run.data + zeros;
        }
        Ok(())
    }
}

/// How far data goes from the start of a slice, and how many zeros follow it.
struct Run {
    data: usize,
    zeros: usize,
}

fn data_run(bytes: &[u8]) -> Run {
    let mut pages = bytes.chunks(PAGE);
    let is_zero = |page: &&[u8]| page.iter().all(|byte| *byte == 0);
    let data = pages.by_ref().take_while(|page| !is_zero(page)).map(<[u8]>::len).sum();
    // take_while consumed the first page of zeros, so count them from the data on.
    let zeros = bytes[data..].chunks(PAGE).take_while(is_zero).map(<[u8]>::len).sum();
    Run { data, zeros }
}

fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(fd, bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                bytes = &bytes[count..];
                offset += count as u64;
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Writes a boot structure into guest RAM.
pub(super) fn write(memory: &GuestMemory, blob: &arch::Blob) -> Result<(), LoadError> {
    memory.write_slice(GuestAddress(blob.address.value()), &blob.bytes).map_err(|_| {
        LoadError::Outside { address: blob.address.value(), length: blob.bytes.len() as u64 }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_split_at_pages_of_zeros() {
        let mut bytes = vec![0u8; 3 * PAGE + 10];
        bytes[5] = 1;
        bytes[3 * PAGE + 1] = 1;
        let run = data_run(&bytes);
        assert_eq!((run.data, run.zeros), (PAGE, 2 * PAGE));
        let run = data_run(&bytes[3 * PAGE..]);
        assert_eq!((run.data, run.zeros), (10, 0));
        let run = data_run(&bytes[PAGE..3 * PAGE]);
        assert_eq!((run.data, run.zeros), (0, 2 * PAGE));
    }
}
