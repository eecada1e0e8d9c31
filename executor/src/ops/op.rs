//! What can be submitted to a set of operations.

use libc::iovec;
use rustix::event::PollFlags;
use rustix::fs::FallocateFlags;

use super::Operation;
use crate::fd::Fd;

/// An operation to submit to an [`OpSet`](crate::OpSet).
#[derive(Clone, Copy, Debug)]
pub struct Op<'a> {
    pub(super) file: &'a Fd,
    pub(super) what: What<'a>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum What<'a> {
    Plain(Operation),
    Read { segments: &'a [iovec], offset: u64 },
    Write { segments: &'a [iovec], offset: u64 },
}

impl<'a> Op<'a> {
    /// Reads `length` bytes at byte `offset` of the file to `pointer`.
    ///
    /// # Safety
    ///
    /// The memory is valid for writes until the payload that is submitted with this operation is
    /// dropped or returned, also when the payload is moved.
    pub unsafe fn read(file: &'a Fd, pointer: *mut u8, length: u32, offset: u64) -> Self {
        Op { file, what: What::Plain(Operation::Read { pointer, length, offset }) }
    }

    /// Writes `length` bytes from `pointer` at byte `offset` of the file.
    ///
    /// # Safety
    ///
    /// The memory is valid for reads until the payload that is submitted with this operation is
    /// dropped or returned, also when the payload is moved.
    pub unsafe fn write(file: &'a Fd, pointer: *const u8, length: u32, offset: u64) -> Self {
        Op { file, what: What::Plain(Operation::Write { pointer, length, offset }) }
    }

    /// Reads at byte `offset` into segments. The list is copied; more than 1024 segments complete
    /// with `EINVAL`.
    ///
    /// # Safety
    ///
    /// As for [`read`](Self::read), for the memory of all segments.
    pub unsafe fn readv(file: &'a Fd, segments: &'a [iovec], offset: u64) -> Self {
        Op { file, what: What::Read { segments, offset } }
    }

    /// Writes segments at byte `offset`. The list is copied; more than 1024 segments complete with
    /// `EINVAL`.
    ///
    /// # Safety
    ///
    /// As for [`write`](Self::write), for the memory of all segments.
    pub unsafe fn writev(file: &'a Fd, segments: &'a [iovec], offset: u64) -> Self {
        Op { file, what: What::Write { segments, offset } }
    }

    /// Writes the file's data and metadata to stable storage.
    pub fn fsync(file: &'a Fd) -> Self {
        Op { file, what: What::Plain(Operation::Fsync) }
    }

    /// Writes the file's data to stable storage.
    pub fn fdatasync(file: &'a Fd) -> Self {
        Op { file, what: What::Plain(Operation::Fdatasync) }
    }

    /// Allocates, zeroes or frees a range of the file.
    pub fn fallocate(file: &'a Fd, mode: FallocateFlags, offset: u64, length: u64) -> Self {
        Op { file, what: What::Plain(Operation::Fallocate { mode, offset, length }) }
    }

    /// Waits until one of `flags` holds; the result is those that do.
    pub fn poll(file: &'a Fd, flags: PollFlags) -> Self {
        Op { file, what: What::Plain(Operation::Poll { flags }) }
    }
}

impl Op<'_> {
    /// Shows the operation to `with`.
    pub(crate) fn on<R>(&self, with: impl FnOnce(&Operation) -> R) -> R {
        match self.what {
            What::Plain(operation) => with(&operation),
            What::Read { segments, offset } => {
                let (iovecs, count) = (segments.as_ptr(), segments.len() as u32);
                with(&Operation::ReadVectored { iovecs, count, offset })
            }
            What::Write { segments, offset } => {
                let (iovecs, count) = (segments.as_ptr(), segments.len() as u32);
                with(&Operation::WriteVectored { iovecs, count, offset })
            }
        }
    }
}
