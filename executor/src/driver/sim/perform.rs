//! What operations do when they are due.

use std::os::fd::RawFd;
use std::time::Duration;

use libc::iovec;
use rustix::event::PollFlags;
use rustix::fs::FallocateFlags;

use super::World;
use super::disk::{Disk, Opened, Writeback};
use super::faults::Faults;
use super::numbers::Numbers;
use super::objects::Object;
use crate::driver::epoll::{Attempt, RealFile, RealOperation};
use crate::driver::{FileId, Target};
use crate::ops::slots::Token;
use crate::ops::{Operation, poll_bits};

/// An operation in flight.
pub(super) struct Pending {
    pub(super) token: Token,
    pub(super) operation: Operation,
    pub(super) file: File,
    pub(super) due: Due,
    /// Which operations go one after the other with it, and its number among all.
    pub(super) lane: Option<Lane>,
    pub(super) order: u64,
}

/// A direction of a real stream. What is sent there goes in order, as Linux has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    From(RawFd),
    To(RawFd),
}

impl Lane {
    pub(super) fn of(target: Target, operation: &Operation) -> Option<Self> {
        match name(operation) {
            _ if target.file != FileId::Plain => None,
            "read" | "receive" => Some(Lane::From(target.fd)),
            "write" | "send" => Some(Lane::To(target.fd)),
            _ => None,
        }
    }
}

/// What an operation works on.
pub(super) enum File {
    Simulated {
        index: u32,
        /// Signals of an eventfd that a stream of events has reported.
        seen: u64,
        /// What a sync has to write.
        writeback: Option<Writeback>,
    },
    Real(RealFile, RealOperation),
}

/// When an operation is tried next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    At(Duration),
    /// With every turn: it waits for something real.
    EachTurn,
    /// When its eventfd is signalled.
    OnSignal,
    /// It has happened; this is the result, and this is when it is told.
    Happened(Duration, i32),
}

/// What came of trying an operation.
pub(super) enum Outcome {
    Done(i32),
    /// It reports this and goes on.
    Event(i32),
    Wait,
}

impl World {
    /// Tries a pending operation.
    pub(super) fn attempt(&mut self, pending: &mut Pending) -> Outcome {
        match &mut pending.file {
            File::Real(file, operation) => {
                let again = pending.operation.readiness().is_some()
                    && self.faults.again.strikes(&mut self.random);
                if again {
                    return Outcome::Wait;
                }
                match operation.attempt(file) {
                    Attempt::Done(result) => Outcome::Done(result),
                    Attempt::Event(flags) => Outcome::Event(poll_bits(flags) as i32),
                    Attempt::Wait | Attempt::Retry => Outcome::Wait,
                }
            }
            File::Simulated { index, seen, writeback } => {
                let World { objects, random, faults, .. } = self;
                match objects.get(*index) {
                    Object::Event(event) => match pending.operation {
                        Operation::PollMultishot { .. } if event.signals > *seen => {
                            *seen = event.signals;
                            Outcome::Event(poll_bits(PollFlags::IN) as i32)
                        }
                        Operation::Poll { .. } if event.counter > 0 => {
                            Outcome::Done(poll_bits(PollFlags::IN) as i32)
                        }
                        Operation::Read { pointer, length: 8.., .. } if event.counter > 0 => {
                            let counter = std::mem::take(&mut event.counter);
                            // SAFETY: the memory is valid until the completion, as `Operation` says.
                            unsafe { pointer.cast::<u64>().write_unaligned(counter) };
                            Outcome::Done(8)
                        }
                        Operation::PollMultishot { .. }
                        | Operation::Poll { .. }
                        | Operation::Read { length: 8.., .. } => Outcome::Wait,
                        _ => Outcome::Done(-libc::EINVAL),
                    },
                    Object::Disk(disk) => {
                        let result = on_disk(disk, &pending.operation, writeback, faults, random);
                        Outcome::Done(result)
                    }
                    // It waits for its answer.
                    Object::Script(_) => Outcome::Wait,
                }
            }
        }
    }

    /// A transfer by a system call of its own on a simulated disk, which the page cache may not serve.
    pub(super) fn on_the_spot(&mut self, file: FileId, operation: &Operation) -> Option<i32> {
        let FileId::Slot(index) = file else { return None };
        let World { objects, random, faults, .. } = self;
        let disk = match objects.get(index) {
            Object::Disk(disk) => disk,
            // An answer has to be waited for.
            Object::Script(_) => return Some(-libc::EAGAIN),
            Object::Event(_) => return None,
        };
        if faults.again.strikes(random) {
            return Some(-libc::EAGAIN);
        }
        Some(on_disk(disk, operation, &mut None, faults, random))
    }
}

/// Carries out an operation on a disk: its result or a negated errno.
fn on_disk(
    disk: &mut Disk,
    operation: &Operation,
    writeback: &mut Option<Writeback>,
    faults: &Faults,
    random: &mut Numbers,
) -> i32 {
    if faults.interrupted.strikes(random) {
        return -libc::EINTR;
    }
    match *operation {
        Operation::Read { pointer, length, offset } => {
            let piece = iovec { iov_base: pointer.cast(), iov_len: length as usize };
            read(disk, &[piece], offset, faults, random)
        }
        Operation::Write { pointer, length, offset } => {
            let piece = iovec { iov_base: pointer.cast_mut().cast(), iov_len: length as usize };
            write(disk, &[piece], offset, faults, random)
        }
        Operation::ReadVectored { iovecs, count, offset } => {
            // SAFETY: the list is valid until the completion, as `Operation` says.
            let pieces = unsafe { std::slice::from_raw_parts(iovecs, count as usize) };
            read(disk, pieces, offset, faults, random)
        }
        Operation::WriteVectored { iovecs, count, offset } => {
            // SAFETY: as above.
            let pieces = unsafe { std::slice::from_raw_parts(iovecs, count as usize) };
            write(disk, pieces, offset, faults, random)
        }
        Operation::Fsync | Operation::Fdatasync => {
            let writeback = writeback.take().unwrap_or_else(|| disk.begin_sync());
            sync(disk, writeback, Opened::ByActors, faults, random)
        }
        Operation::Fallocate { mode, offset, length } => {
            allocate(disk, mode, offset, length, faults, random)
        }
        Operation::Poll { flags } => poll_bits(flags & (PollFlags::IN | PollFlags::OUT)) as i32,
        _ => -libc::EINVAL,
    }
}

/// Ends a sync, well or not.
pub(super) fn sync(
    disk: &mut Disk,
    writeback: Writeback,
    by: Opened,
    faults: &Faults,
    random: &mut Numbers,
) -> i32 {
    if faults.sync_error.strikes(random) {
        disk.fail_sync(&writeback, by);
        return -libc::EIO;
    }
    match disk.end_sync(writeback, by) {
        Ok(()) => 0,
        Err(()) => -libc::EIO,
    }
}

/// How many of so many bytes are moved.
fn shortened(wanted: usize, faults: &Faults, random: &mut Numbers) -> usize {
    if wanted > 1 && faults.short.strikes(random) {
        random.within(1..wanted as u64) as usize
    } else {
        wanted
    }
}

/// How many bytes of the pieces lie inside the disk from an offset on.
fn inside(disk: &Disk, pieces: &[iovec], offset: u64) -> usize {
    let wanted: usize = pieces.iter().map(|piece| piece.iov_len).sum();
    let left = (disk.length() as u64).saturating_sub(offset);
    wanted.min(usize::try_from(left).unwrap_or(usize::MAX))
}

fn read(disk: &Disk, pieces: &[iovec], offset: u64, faults: &Faults, random: &mut Numbers) -> i32 {
    if faults.io_error.strikes(random) {
        return -libc::EIO;
    }
    let moved = shortened(inside(disk, pieces, offset), faults, random);
    each_piece(pieces, moved, |piece, done| disk.read(offset as usize + done, piece));
    moved as i32
}

fn write(
    disk: &mut Disk,
    pieces: &[iovec],
    offset: u64,
    faults: &Faults,
    random: &mut Numbers,
) -> i32 {
    if faults.no_space.strikes(random) {
        return -libc::ENOSPC;
    }
    let mut moved = inside(disk, pieces, offset);
    if moved == 0 {
        return if pieces.iter().all(|piece| piece.iov_len == 0) { 0 } else { -libc::EFBIG };
    }
    let failed = faults.io_error.strikes(random);
    moved = if failed { torn(moved, random) } else { shortened(moved, faults, random) };
    each_piece(pieces, moved, |piece, done| disk.write(offset as usize + done, piece));
    if failed { -libc::EIO } else { moved as i32 }
}

/// How many of so many bytes are written of a write that does not end well.
fn torn(wanted: usize, random: &mut Numbers) -> usize {
    // Whole blocks: what a page cache or a disk takes at once.
    (random.below(wanted as u64 + 1) as usize) / 512 * 512
}

fn allocate(
    disk: &mut Disk,
    mode: FallocateFlags,
    offset: u64,
    length: u64,
    faults: &Faults,
    random: &mut Numbers,
) -> i32 {
    let end = offset.saturating_add(length);
    if length == 0 || end > disk.length() as u64 {
        return -libc::EINVAL;
    }
    if faults.no_space.strikes(random) {
        return -libc::ENOSPC;
    }
    let failed = faults.io_error.strikes(random);
    let length = if failed { torn(length as usize, random) } else { length as usize };
    if mode.intersects(FallocateFlags::PUNCH_HOLE | FallocateFlags::ZERO_RANGE) {
        disk.zero(offset as usize, length);
    }
    if failed { -libc::EIO } else { 0 }
}

/// Calls `each` with the pieces up to `limit` bytes, and how many came before.
fn each_piece(pieces: &[iovec], limit: usize, mut each: impl FnMut(&mut [u8], usize)) {
    let mut done = 0;
    for piece in pieces {
        let length = piece.iov_len.min(limit - done);
        if length > 0 {
            // SAFETY: the memory is valid until the completion, as `Operation` says, for what `each`
            // does with it; nobody else runs meanwhile.
            let bytes =
                unsafe { std::slice::from_raw_parts_mut(piece.iov_base.cast::<u8>(), length) };
            each(bytes, done);
            done += length;
        }
    }
}

/// How many bytes a transfer is of.
pub(super) fn bytes(operation: &Operation) -> u64 {
    match *operation {
        Operation::ReadVectored { iovecs, count, .. }
        | Operation::WriteVectored { iovecs, count, .. } => {
            // SAFETY: the list is valid until the completion, as `Operation` says.
            let pieces = unsafe { std::slice::from_raw_parts(iovecs, count as usize) };
            pieces.iter().map(|piece| piece.iov_len as u64).sum()
        }
        ref other => extent(other).1,
    }
}

/// What an operation is called in the log.
pub(super) fn name(operation: &Operation) -> &'static str {
    match operation {
        Operation::Read { .. } | Operation::ReadVectored { .. } => "read",
        Operation::Write { .. } | Operation::WriteVectored { .. } => "write",
        Operation::Fsync | Operation::Fdatasync => "sync",
        Operation::Fallocate { .. } => "allocate",
        Operation::Poll { .. } | Operation::PollMultishot { .. } => "poll",
        Operation::Accept => "accept",
        Operation::Connect { .. } => "connect",
        Operation::Send { .. } => "send",
        Operation::Receive { .. } => "receive",
    }
}

/// Where an operation works, and on how much.
pub(super) fn extent(operation: &Operation) -> (u64, u64) {
    match *operation {
        Operation::Read { length, offset, .. } | Operation::Write { length, offset, .. } => {
            (offset, length.into())
        }
        Operation::ReadVectored { count, offset, .. }
        | Operation::WriteVectored { count, offset, .. } => (offset, count.into()),
        Operation::Fallocate { offset, length, .. } => (offset, length),
        Operation::Send { length, .. } | Operation::Receive { length, .. } => (0, length.into()),
        _ => (0, 0),
    }
}
