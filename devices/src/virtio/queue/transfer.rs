//! File operations on guest memory: the one place that hands its addresses to the kernel.
//!
//! [`GuestOps`] wraps [`executor::OpSet`]: each operation carries a guard of the memory it works on,
//! so that memory stays mapped until the completion arrives, whatever happens to the back end.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::rc::Rc;
use std::task::{Context, Poll};

use executor::{FallocateFlags, Fd, Op, OpSet, PollFlags, iovec};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::buffers::{GuestBuffers, Side};
use super::chain::Segment;
use crate::memory::{FileView, GuestMemory};

/// What an operation is called by; queues use the head of the chain.
pub type Tag = u16;

/// An operation that is over.
#[derive(Debug)]
pub struct Completed {
    /// What the operation was called by.
    pub tag: Tag,
    /// Bytes, or why it failed.
    pub result: io::Result<u32>,
    /// The buffer of an operation on host memory.
    pub pages: Option<Pages>,
}

/// Host memory in whole pages, for direct I/O where the guest's buffers are not aligned.
#[derive(Debug)]
pub struct Pages(Vec<Page>);

/// Direct I/O asks for the alignment of a logical block, which is a page at most.
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(4096))]
struct Page([u8; 4096]);

impl Pages {
    /// At least `bytes` bytes of zeroes.
    pub fn new(bytes: usize) -> Self {
        Self(vec![Page([0; 4096]); bytes.div_ceil(4096)])
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// The bytes.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.0.as_mut_bytes()
    }
}

/// The most that one call moves.
const MOST_BYTES: usize = 0x7fff_f000;

/// For what a transfer on the spot may keep the thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// For nothing: what is not in the page cache goes through the ring.
    Never,
    /// For memory, and for whatever a copy into or out of it may have to wait.
    ForMemory,
}

impl Wait {
    fn flags(self) -> i32 {
        match self {
            Self::Never => libc::RWF_NOWAIT,
            Self::ForMemory => 0,
        }
    }
}

/// What became of a transfer on the spot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// It is done, as far as one call goes.
    Now,
    /// It would have had to wait, or failed, and goes through the ring.
    Later,
}

/// What keeps an operation's memory alive.
#[derive(Debug)]
struct Guard {
    tag: Tag,
    _memory: Option<Rc<GuestMemory>>,
    pages: Option<Pages>,
}

/// A fixed number of file operations under way.
#[derive(Debug)]
pub struct GuestOps {
    set: OpSet<Guard>,
    /// Operations that were done on the spot.
    immediate: VecDeque<(Tag, u32)>,
}

/// There is no room for another operation. Bounding what is in flight by the capacity avoids it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoRoom;

impl GuestOps {
    /// Room for `capacity` operations. Needs an executor on this thread.
    pub fn new(capacity: usize) -> Self {
        Self { set: OpSet::with_capacity(capacity), immediate: VecDeque::new() }
    }

    /// Move data between the file and guest memory: writable buffers are read into, readable ones
    /// are written from.
    pub fn transfer(
        &mut self,
        file: &Fd,
        buffers: &GuestBuffers,
        side: Side,
        offset: u64,
        tag: Tag,
    ) -> Result<(), NoRoom> {
        let op = operation(file, buffers, side, offset);
        self.submit(op, tag, Some(buffers.memory().clone()), None)
    }

    /// As [`GuestOps::transfer`], but by a system call of its own, as far as `wait` allows.
    pub fn transfer_inline(
        &mut self,
        file: &Fd,
        wait: Wait,
        buffers: &GuestBuffers,
        side: Side,
        offset: u64,
        tag: Tag,
    ) -> Result<Moved, NoRoom> {
        if self.in_flight() == self.set.capacity() {
            return Err(NoRoom);
        }
        let moved = match file.simulated(operation(file, buffers, side, offset)) {
            None => transfer_now(file.as_fd(), wait, buffers, side, offset),
            Some(result) => result.ok().filter(|moved| *moved > 0),
        };
        match moved {
            Some(bytes) => {
                self.immediate.push_back((tag, bytes));
                Ok(Moved::Now)
            }
            None => self.transfer(file, buffers, side, offset, tag).map(|()| Moved::Later),
        }
    }

    /// Copy from a file to guest memory without a system call. Nothing is begun where the view does not have the
    /// bytes, or not what the file holds.
    pub fn copy_now(
        &mut self,
        view: &FileView,
        buffers: &GuestBuffers,
        offset: u64,
        tag: Tag,
    ) -> Result<Moved, NoRoom> {
        if self.in_flight() == self.set.capacity() {
            return Err(NoRoom);
        }
        if !buffers.copy_from_view(view, offset) {
            return Ok(Moved::Later);
        }
        self.immediate.push_back((tag, buffers.bytes()));
        Ok(Moved::Now)
    }

    /// Move `length` bytes between the file and host memory.
    ///
    /// # Panics
    ///
    /// If `pages` is shorter.
    pub fn transfer_pages(
        &mut self,
        file: &Fd,
        mut pages: Pages,
        side: Side,
        length: u32,
        offset: u64,
        tag: Tag,
    ) -> Result<(), NoRoom> {
        let pointer = pages.bytes_mut()[..length as usize].as_mut_ptr();
        // SAFETY: the guard owns the pages, whose memory does not move with it.
        let op = unsafe {
            match side {
                Side::Writable => Op::read(file, pointer, length, offset),
                Side::Readable => Op::write(file, pointer, length, offset),
            }
        };
        self.submit(op, tag, None, Some(pages))
    }

    /// Make the file's data durable.
    pub fn fdatasync(&mut self, file: &Fd, tag: Tag) -> Result<(), NoRoom> {
        self.submit(Op::fdatasync(file), tag, None, None)
    }

    /// Make the file's data and attributes durable.
    pub fn fsync(&mut self, file: &Fd, tag: Tag) -> Result<(), NoRoom> {
        self.submit(Op::fsync(file), tag, None, None)
    }

    /// Zero or free a range of the file.
    pub fn fallocate(
        &mut self,
        file: &Fd,
        mode: FallocateFlags,
        offset: u64,
        length: u64,
        tag: Tag,
    ) -> Result<(), NoRoom> {
        self.submit(Op::fallocate(file, mode, offset, length), tag, None, None)
    }

    /// Wait until the file is ready for something.
    pub fn poll(&mut self, file: &Fd, flags: PollFlags, tag: Tag) -> Result<(), NoRoom> {
        self.submit(Op::poll(file, flags), tag, None, None)
    }

    /// The next completion.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Completed> {
        if let Some((tag, bytes)) = self.immediate.pop_front() {
            let (result, pages) = (Ok(bytes), None);
            return Poll::Ready(Completed { tag, result, pages });
        }
        self.set.poll_next(context).map(|(guard, result)| Completed {
            tag: guard.tag,
            result,
            pages: guard.pages,
        })
    }

    /// Operations submitted whose completions were not taken yet.
    pub fn in_flight(&self) -> usize {
        self.set.in_flight() + self.immediate.len()
    }

    /// Transfers that were done on the spot and not taken yet.
    pub fn done_on_the_spot(&self) -> usize {
        self.immediate.len()
    }

    /// Operations that are not over yet.
    pub fn waiting(&self) -> usize {
        self.set.waiting()
    }

    /// Ask the kernel to give up what is in flight; all of it still completes.
    pub fn cancel_all(&mut self) {
        self.set.cancel_all();
    }

    /// Ready when nothing is in flight any more, of which all was given up; no result counts.
    pub fn poll_cancelled(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.cancel_all();
        while self.in_flight() > 0 {
            drop(std::task::ready!(self.poll_next(context)));
        }
        Poll::Ready(())
    }

    fn submit(
        &mut self,
        op: Op<'_>,
        tag: Tag,
        memory: Option<Rc<GuestMemory>>,
        pages: Option<Pages>,
    ) -> Result<(), NoRoom> {
        let guard = Guard { tag, _memory: memory, pages };
        self.set.submit(op, guard).map_err(|_| NoRoom)
    }
}

/// Send what a socket takes at once from guest memory; one message, where it has messages.
pub fn send_now(socket: BorrowedFd<'_>, buffers: &GuestBuffers) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    let message = message(buffers);
    // SAFETY: the segments lie in guest memory that `buffers` keeps mapped during the call.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, flags) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Receive what a socket has at once into guest memory.
pub fn receive_now(socket: BorrowedFd<'_>, buffers: &GuestBuffers) -> io::Result<usize> {
    let mut message = message(buffers);
    // SAFETY: as in `send_now`; guest memory is mapped writable.
    let received =
        unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
    usize::try_from(received).map_err(|_| io::Error::last_os_error())
}

fn message(buffers: &GuestBuffers) -> libc::msghdr {
    // SAFETY: all zero is a message without address, pieces or anything beside them.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    let segments = as_iovecs(buffers.segments());
    // The kernel does not write to the list.
    header.msg_iov = segments.as_ptr().cast_mut().cast();
    header.msg_iovlen = segments.len().min(libc::UIO_MAXIOV as usize) as _;
    header
}

/// The operation that moves data between a file and buffers; whoever submits it keeps these.
fn operation<'a>(file: &'a Fd, buffers: &'a GuestBuffers, side: Side, offset: u64) -> Op<'a> {
    let segments = as_iovecs(buffers.segments());
    // SAFETY: the segments lie in `buffers.memory()`. `GuestOps::transfer` keeps that mapped by the
    // guard, `GuestOps::transfer_inline` by the borrow, as the operation is over when it returns.
    unsafe {
        match (segments, side) {
            // Without a vector there is none for the kernel to copy.
            ([one], Side::Writable) if one.iov_len <= MOST_BYTES => {
                Op::read(file, one.iov_base.cast(), one.iov_len as u32, offset)
            }
            ([one], Side::Readable) if one.iov_len <= MOST_BYTES => {
                Op::write(file, one.iov_base.cast(), one.iov_len as u32, offset)
            }
            (_, Side::Writable) => Op::readv(file, segments, offset),
            (_, Side::Readable) => Op::writev(file, segments, offset),
        }
    }
}

/// Move what can be moved. None if that is nothing, or if it failed: the ring says why.
fn transfer_now(
    file: BorrowedFd<'_>,
    wait: Wait,
    buffers: &GuestBuffers,
    side: Side,
    offset: u64,
) -> Option<u32> {
    let (fd, offset) = (file.as_raw_fd(), i64::try_from(offset).ok()?);
    let segments = as_iovecs(buffers.segments());
    let count = segments.len().min(libc::UIO_MAXIOV as usize) as i32;
    let iovecs = segments.as_ptr().cast::<libc::iovec>();
    // SAFETY: the segments lie in guest memory that `buffers` keeps mapped during the call.
    let moved = unsafe {
        match (segments, wait, side) {
            // Without a vector there is none for the kernel to copy.
            ([one], Wait::ForMemory, Side::Writable) => {
                libc::pread(fd, one.iov_base.cast(), one.iov_len, offset)
            }
            ([one], Wait::ForMemory, Side::Readable) => {
                libc::pwrite(fd, one.iov_base.cast(), one.iov_len, offset)
            }
            (_, _, Side::Writable) => libc::preadv2(fd, iovecs, count, offset, wait.flags()),
            (_, _, Side::Readable) => libc::pwritev2(fd, iovecs, count, offset, wait.flags()),
        }
    };
    u32::try_from(moved).ok().filter(|moved| *moved > 0)
}

fn as_iovecs(segments: &[Segment]) -> &[iovec] {
    // SAFETY: a segment has the layout of an iovec: a pointer and a length, `repr(C)`.
    unsafe { std::slice::from_raw_parts(segments.as_ptr().cast(), segments.len()) }
}
