//! A second ring beside the executor's, for direct transfers that the kernel looks after only when it is asked
//! to (`IORING_SETUP_IOPOLL`): the device then sends no interrupt.
//!
//! Such a ring takes nothing but transfers of a piece that a device takes at once, and nobody can sleep until one of
//! them is complete. So as long as there are some, the executor does not sleep and each of its turns asks.

use std::collections::VecDeque;
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::slice;

use io_uring::squeue;

use super::files::FileTable;
use super::ring::{BATCH, Ring};
use crate::config::DirectIo;
use crate::driver::FileId;
use crate::ops::Operation;
use crate::ops::slots::{Completion, Token};

/// Slots of its table of files: that of the one file that a device stands on, and some to spare.
pub(super) const FILES: u32 = 4;

/// Between pieces that are no neighbours some devices take nothing but whole pages.
const PAGE: usize = 4096;

/// Whether the kernel hands these pieces to a device as one.
fn is_undivided(pieces: &[libc::iovec]) -> bool {
    let bytes = pieces.iter().map(|piece| piece.iov_len).sum::<usize>();
    let fits = |pair: &[libc::iovec]| {
        let (end, begin) = (pair[0].iov_base as usize + pair[0].iov_len, pair[1].iov_base as usize);
        end == begin || (end.is_multiple_of(PAGE) && begin.is_multiple_of(PAGE))
    };
    bytes <= DirectIo::MOST_POLLED && pieces.windows(2).all(fits)
}

pub(super) struct Polled {
    pub(super) ring: Ring,
    files: FileTable,
    in_flight: usize,
}

impl Polled {
    pub(super) fn new(ring: Ring, files: FileTable) -> Self {
        Polled { ring, files, in_flight: 0 }
    }

    /// Whether the ring takes such an operation.
    pub(super) fn takes(operation: &Operation) -> bool {
        match *operation {
            Operation::Read { length, .. } | Operation::Write { length, .. } => {
                length as usize <= DirectIo::MOST_POLLED
            }
            Operation::ReadVectored { iovecs, count, .. }
            | Operation::WriteVectored { iovecs, count, .. } => {
                // SAFETY: the pieces of an operation are there until it is complete.
                is_undivided(unsafe { slice::from_raw_parts(iovecs, count as usize) })
            }
            _ => false,
        }
    }

    pub(super) fn attach(&mut self, fd: BorrowedFd<'_>) -> FileId {
        match self.files.register(&self.ring.inner, fd) {
            FileId::Slot(slot) => FileId::Polled(Some(slot)),
            FileId::Plain | FileId::Polled(_) => FileId::Polled(None),
        }
    }

    pub(super) fn detach(&mut self, slot: Option<u32>) {
        if let Some(slot) = slot {
            self.files.unregister(&self.ring.inner, FileId::Slot(slot));
        }
    }

    pub(super) fn submit(&mut self, entry: &squeue::Entry) {
        self.in_flight += 1;
        self.ring.push(entry);
    }

    /// Whether there is anything to ask for.
    pub(super) fn is_busy(&self) -> bool {
        self.in_flight > 0
    }

    /// Hands over what is queued and asks what is complete.
    pub(super) fn look(&mut self) {
        if self.is_busy() {
            self.ring.poll();
        }
    }

    pub(super) fn reap(&mut self, completions: &mut VecDeque<Completion>) {
        if !self.is_busy() {
            return;
        }
        loop {
            let mut batch = [const { MaybeUninit::uninit() }; BATCH];
            let batch = self.ring.take(&mut batch);
            if batch.is_empty() {
                return;
            }
            self.in_flight -= batch.len();
            completions.extend(batch.iter().map(|entry| {
                Completion::only(Token::from_bits(entry.user_data()), entry.result())
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST_BYTES: usize = DirectIo::MOST_POLLED;

    #[test]
    fn transfers_that_a_device_may_have_to_divide_are_not_polled_for() {
        let undivided = |pieces: &[(usize, usize)]| {
            let piece = |(base, length)| libc::iovec { iov_base: base as *mut _, iov_len: length };
            is_undivided(&pieces.iter().copied().map(piece).collect::<Vec<_>>())
        };
        assert!(undivided(&[(0x10200, MOST_BYTES)]));
        assert!(!undivided(&[(0x10000, MOST_BYTES + 512)]));
        assert!(!undivided(&[(0x10000, MOST_BYTES), (0x50000, 512)]));
        assert!(undivided(&[(0x10200, 0xe00), (0x50000, PAGE), (0x30000, 512)]));
        assert!(undivided(&[(0x10000, 512), (0x10200, 512)]), "neighbours");
        assert!(!undivided(&[(0x10000, 512), (0x50000, PAGE)]), "one ends inside of a page");
        assert!(!undivided(&[(0x10000, PAGE), (0x50200, 512)]), "one begins inside of a page");
        let read = |length| Operation::Read { pointer: std::ptr::null_mut(), length, offset: 0 };
        assert!(Polled::takes(&read(4096)));
        assert!(!Polled::takes(&read(128 << 10)));
        assert!(!Polled::takes(&Operation::Fdatasync));
    }
}
