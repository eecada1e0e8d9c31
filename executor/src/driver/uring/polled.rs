//! A second ring beside the executor's, for direct transfers that the kernel looks after only when it is asked
//! to (`IORING_SETUP_IOPOLL`): the device then sends no interrupt.
//!
//! Such a ring takes nothing but transfers, and nobody can sleep until one of them is complete. So as long as
//! there are some, the executor does not sleep and each of its turns asks.

use std::collections::VecDeque;
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;

use io_uring::squeue;

use super::files::FileTable;
use super::ring::{BATCH, Ring};
use crate::driver::FileId;
use crate::ops::Operation;
use crate::ops::slots::{Completion, Token};

/// Slots of its table of files: that of the one file that a device stands on, and some to spare.
pub(super) const FILES: u32 = 4;

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
        matches!(
            operation,
            Operation::Read { .. }
                | Operation::Write { .. }
                | Operation::ReadVectored { .. }
                | Operation::WriteVectored { .. }
        )
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
