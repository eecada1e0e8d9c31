//! Reading and writing guest memory by value.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{GuestAddress, GuestMemory, HostRange, MemoryError};

/// Up to this many bytes are copied word by word, volatile: a ring index or a descriptor is read
/// once and not torn. Longer ones are payload, where the libc copy is several times faster.
const WORD_COPY_LIMIT: usize = 64;

impl GuestMemory {
    /// Reads a value. Naturally aligned values of 1, 2, 4 and 8 bytes are read in one access.
    pub fn read_obj<T: FromBytes + IntoBytes>(
        &self,
        address: GuestAddress,
    ) -> Result<T, MemoryError> {
        let mut value = T::new_zeroed();
        self.read_slice(address, value.as_mut_bytes())?;
        Ok(value)
    }

    /// Writes a value. Naturally aligned values of 1, 2, 4 and 8 bytes are written in one access.
    pub fn write_obj<T: IntoBytes + Immutable>(
        &self,
        address: GuestAddress,
        value: &T,
    ) -> Result<(), MemoryError> {
        self.write_slice(address, value.as_bytes())
    }

    /// Fills `data` from memory at `address`, across adjacent regions. On an error `data` holds
    /// some of it.
    pub fn read_slice(&self, address: GuestAddress, data: &mut [u8]) -> Result<(), MemoryError> {
        self.for_each_part(address, data.len(), |done, range| {
            let part = &mut data[done..done + range.len()];
            // SAFETY: The range is mapped while `self` lives and as long as `part`, which is ours.
            unsafe { load(range.as_ptr(), part) };
            Ok(())
        })
    }

    /// Writes `data` to memory at `address`, across adjacent regions. On an error some of it may
    /// have been written.
    pub fn write_slice(&self, address: GuestAddress, data: &[u8]) -> Result<(), MemoryError> {
        self.for_each_part(address, data.len(), |done, range| {
            let part = &data[done..done + range.len()];
            // SAFETY: The range is mapped while `self` lives and as long as `part`, which is ours.
            unsafe { store(part, range.as_ptr()) };
            Ok(())
        })
    }

    /// Reads exactly `length` bytes of a file straight into memory at `address`.
    pub fn read_exact_from(
        &self,
        address: GuestAddress,
        length: usize,
        file: BorrowedFd<'_>,
        file_offset: u64,
    ) -> Result<(), MemoryError> {
        self.for_each_part(address, length, |done, range| {
            read_file(range, file, file_offset.saturating_add(done as u64))
                .map_err(|source| MemoryError::ReadFile { address, length: length as u64, source })
        })
    }

    /// Calls `access` with each contiguous part and the bytes that were before it.
    fn for_each_part(
        &self,
        address: GuestAddress,
        length: usize,
        mut access: impl FnMut(usize, HostRange) -> Result<(), MemoryError>,
    ) -> Result<(), MemoryError> {
        let mut done = 0;
        while done < length {
            let range = address
                .checked_add(done as u64)
                .and_then(|address| self.host_prefix(address, length - done))
                .ok_or(MemoryError::OutOfRange { address, length: length as u64 })?;
            access(done, range)?;
            done += range.len();
        }
        Ok(())
    }
}

/// Fills a range from a file.
fn read_file(range: HostRange, file: BorrowedFd<'_>, file_offset: u64) -> io::Result<()> {
    let mut done = 0;
    while done < range.len() {
        let offset = file_offset
            .checked_add(done as u64)
            .and_then(|offset| libc::off_t::try_from(offset).ok())
            .ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: The rest of the range is mapped; the kernel writes at most its length.
        let read = unsafe {
            libc::pread(
                file.as_raw_fd(),
                range.as_ptr().add(done).cast(),
                range.len() - done,
                offset,
            )
        };
        match read {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read if read > 0 => done += read as usize,
            _ => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
    Ok(())
}

/// Copies from guest memory.
///
/// # Safety
/// `guest` is valid for reads of `to.len()` bytes.
#[inline]
#[expect(clippy::cast_ptr_alignment, reason = "`access_width` looks at the alignment")]
unsafe fn load(guest: *const u8, to: &mut [u8]) {
    if to.len() > WORD_COPY_LIMIT {
        // SAFETY: As for this function; `to` is ours, so it does not overlap. That the guest
        // changes the bytes meanwhile means that we get some mixture of old and new ones, just as
        // from the kernel's copy in a `write` system call.
        unsafe { ptr::copy_nonoverlapping(guest, to.as_mut_ptr(), to.len()) };
        return;
    }
    let mut done = 0;
    while done < to.len() {
        let width = access_width(guest as usize + done, to.len() - done);
        let part = &mut to[done..done + width];
        // SAFETY: `done + width` is at most the length, and the address is aligned to `width`.
        unsafe {
            let word = guest.add(done);
            match width {
                8 => part.copy_from_slice(&word.cast::<u64>().read_volatile().to_ne_bytes()),
                4 => part.copy_from_slice(&word.cast::<u32>().read_volatile().to_ne_bytes()),
                2 => part.copy_from_slice(&word.cast::<u16>().read_volatile().to_ne_bytes()),
                _ => part[0] = word.read_volatile(),
            }
        }
        done += width;
    }
}

/// Copies to guest memory.
///
/// # Safety
/// `guest` is valid for writes of `from.len()` bytes.
#[inline]
#[expect(clippy::cast_ptr_alignment, reason = "`access_width` looks at the alignment")]
unsafe fn store(from: &[u8], guest: *mut u8) {
    if from.len() > WORD_COPY_LIMIT {
        // SAFETY: As for this function; `from` is ours, so it does not overlap.
        unsafe { ptr::copy_nonoverlapping(from.as_ptr(), guest, from.len()) };
        return;
    }
    let mut done = 0;
    while done < from.len() {
        let width = access_width(guest as usize + done, from.len() - done);
        let mut bytes = [0; 8];
        bytes[..width].copy_from_slice(&from[done..done + width]);
        let value = u64::from_le_bytes(bytes);
        // SAFETY: `done + width` is at most the length, and the address is aligned to `width`.
        unsafe {
            let word = guest.add(done);
            match width {
                8 => word.cast::<u64>().write_volatile(value.to_le()),
                4 => word.cast::<u32>().write_volatile((value as u32).to_le()),
                2 => word.cast::<u16>().write_volatile((value as u16).to_le()),
                _ => word.write_volatile(value as u8),
            }
        }
        done += width;
    }
}

/// The widest access that is naturally aligned at `address` and at most `length` bytes long.
#[inline]
fn access_width(address: usize, length: usize) -> usize {
    [8, 4, 2]
        .into_iter()
        .find(|width| *width <= length && address.is_multiple_of(*width))
        .unwrap_or(1)
}
