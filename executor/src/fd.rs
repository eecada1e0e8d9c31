//! Files as the executor knows them.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FallocateFlags, OFlags};
use rustix::net::{RecvFlags, SendFlags};

use crate::address::SocketAddress;
use crate::buffer::{IoBuf, IoBufMut, IoVecs, IoVecsMut};
use crate::core::{self, Core};
use crate::driver::{Attached, FileId, Medium, Residence, Target};
use crate::ops::future::Submission;
use crate::ops::kinds::{
    Accept, Allocate, Connect, Poll, Read, ReadVectored, Receive, Send, Sync, Write, WriteVectored,
};
use crate::ops::op::Op;
use crate::ops::slots::Left;
use crate::ops::stream::{Notifications, PollStream};
use crate::ops::{CURRENT_POSITION, Expected, Operation};

/// A file, socket, pipe or eventfd that operations are started on.
///
/// It belongs to the executor of the thread that made it. Clones share the descriptor, which is
/// closed when the last clone is gone and the last operation has completed.
///
/// Operations start when their future is polled first. They take the buffer and give it back with
/// the result. Dropping the future cancels the operation; its buffer is dropped by the executor
/// when the kernel is done with it.
#[derive(Clone)]
pub struct Fd {
    pub(crate) inner: Rc<FdInner>,
}

pub(crate) struct FdInner {
    file: FileId,
    medium: Medium,
    /// A socket of which the last receive left nothing.
    emptied: Cell<bool>,
    signals: Cell<Signals>,
    pub(crate) core: Rc<Core>,
    descriptor: OwnedFd,
}

impl FdInner {
    /// The operation in the form that suits the file best. For sockets the way through the file
    /// layer is longer, and a write there to a peer that is gone would raise SIGPIPE.
    pub(crate) fn adapt(&self, operation: Operation) -> Operation {
        if self.medium == Medium::Other {
            return operation;
        }
        let data = if self.emptied.get() { Expected::Later } else { Expected::Perhaps };
        match operation {
            Operation::Read { pointer, length, .. }
            | Operation::Receive { pointer, length, flags: 0, .. } => {
                Operation::Receive { pointer, length, flags: 0, data }
            }
            Operation::Write { pointer, length, .. } => {
                let flags = SendFlags::NOSIGNAL.bits();
                Operation::Send { pointer, length, flags }
            }
            other => other,
        }
    }

    /// A receive has completed and left nothing, or something, in the socket.
    pub(crate) fn note_received(&self, left: Left) {
        self.emptied.set(left == Left::Nothing);
    }

    pub(crate) fn target(&self) -> Target {
        Target { fd: self.descriptor.as_raw_fd(), file: self.file }
    }
}

impl Drop for FdInner {
    fn drop(&mut self) {
        self.core.driver().detach(self.target());
    }
}

impl Fd {
    /// Takes a descriptor that will be used for long: it is registered with the ring while there
    /// is a free slot. Must be called on a thread whose executor runs.
    pub fn new(descriptor: impl Into<OwnedFd>) -> io::Result<Self> {
        Self::attach(descriptor.into(), Residence::Long)
    }

    /// Takes a descriptor for few operations, where registering would cost more than it saves.
    pub fn unregistered(descriptor: impl Into<OwnedFd>) -> io::Result<Self> {
        Self::attach(descriptor.into(), Residence::Short)
    }

    /// Takes a descriptor of a file that was opened for direct I/O, whose transfers are polled for: see
    /// [`DirectIo::Polled`](crate::DirectIo::Polled), which the executor has to have. The file system and
    /// the device must be able to, or transfers complete with `EOPNOTSUPP` or, in older kernels, by
    /// interrupts after all.
    pub fn polled(descriptor: impl Into<OwnedFd>) -> io::Result<Self> {
        let fd = Self::attach(descriptor.into(), Residence::Polled)?;
        if matches!(fd.inner.file, FileId::Polled(_)) {
            return Ok(fd);
        }
        Err(io::Error::other("this executor polls for no transfers"))
    }

    fn attach(descriptor: OwnedFd, residence: Residence) -> io::Result<Self> {
        let core = core::current().ok_or_else(|| {
            io::Error::other("a descriptor needs an executor that runs on this thread")
        })?;
        let Attached { file, medium } = core.driver().attach(descriptor.as_fd(), residence);
        let (emptied, signals) = (Cell::new(false), Cell::new(Signals::MakeNonBlocking));
        Ok(Fd { inner: Rc::new(FdInner { file, medium, emptied, signals, core, descriptor }) })
    }

    /// Whether it has a slot in the ring's table of registered files.
    pub fn is_registered(&self) -> bool {
        matches!(self.inner.file, FileId::Slot(_))
    }

    /// Reads at a byte offset. A vector is filled up to its capacity and its length grows over
    /// what was read.
    pub fn read_at<B: IoBufMut>(
        &self,
        buffer: B,
        offset: u64,
    ) -> impl Future<Output = (io::Result<usize>, B)> + use<B> {
        Submission::new(&self.inner, Read { buffer, offset })
    }

    /// Writes the initialised bytes of a buffer at a byte offset.
    pub fn write_at<B: IoBuf>(
        &self,
        buffer: B,
        offset: u64,
    ) -> impl Future<Output = (io::Result<usize>, B)> + use<B> {
        Submission::new(&self.inner, Write { buffer, offset })
    }

    /// Reads from a stream, or at the file's current position.
    pub fn read<B: IoBufMut>(
        &self,
        buffer: B,
    ) -> impl Future<Output = (io::Result<usize>, B)> + use<B> {
        self.read_at(buffer, CURRENT_POSITION)
    }

    /// Writes to a stream, or at the file's current position.
    pub fn write<B: IoBuf>(
        &self,
        buffer: B,
    ) -> impl Future<Output = (io::Result<usize>, B)> + use<B> {
        self.write_at(buffer, CURRENT_POSITION)
    }

    /// Reads into several pieces of memory at a byte offset.
    pub fn readv_at<B: IoVecsMut>(
        &self,
        buffers: B,
        offset: u64,
    ) -> impl Future<Output = (io::Result<usize>, B)> + use<B> {
        Submission::new(&self.inner, ReadVectored { buffers, offset })
    }

    /// Writes several pieces of memory at a byte offset.
    pub fn writev_at<B: IoVecs>(
        &self,
        buffers: B,
        offset: u64,
    ) -> impl Future<Output = (io::Result<usize>, B)> + use<B> {
        Submission::new(&self.inner, WriteVectored { buffers, offset })
    }

    /// Writes the file's data and metadata to stable storage.
    pub fn fsync(&self) -> impl Future<Output = io::Result<()>> + use<> {
        Submission::new(&self.inner, Sync::DataAndMetadata)
    }

    /// Writes the file's data to stable storage.
    pub fn fdatasync(&self) -> impl Future<Output = io::Result<()>> + use<> {
        Submission::new(&self.inner, Sync::Data)
    }

    /// Allocates, zeroes or frees a range of the file.
    pub fn fallocate(
        &self,
        mode: FallocateFlags,
        offset: u64,
        length: u64,
    ) -> impl Future<Output = io::Result<()>> + use<> {
        Submission::new(&self.inner, Allocate { mode, offset, length })
    }

    /// Waits until one of `flags` holds, and returns those that do.
    pub fn poll(&self, flags: PollFlags) -> impl Future<Output = io::Result<PollFlags>> + use<> {
        Submission::new(&self.inner, Poll { flags })
    }

    /// Watches for `flags` again and again, with one operation for many events where possible.
    ///
    /// Like an edge-triggered epoll, an event says that something happened, not that it still
    /// holds: read until `EAGAIN` before waiting again.
    pub fn poll_stream(&self, flags: PollFlags) -> PollStream {
        PollStream::new(self, flags)
    }

    /// Watches an eventfd whose writers only want to be noticed. Its counter is never read, so an
    /// event costs no system call of its own.
    pub fn notifications(&self) -> Notifications {
        Notifications::new(self)
    }

    /// Accepts a connection; the descriptor is close-on-exec.
    pub fn accept(&self) -> impl Future<Output = io::Result<OwnedFd>> + use<> {
        Submission::new(&self.inner, Accept)
    }

    /// Connects a socket.
    pub fn connect(
        &self,
        address: impl Into<SocketAddress>,
    ) -> impl Future<Output = io::Result<()>> + 'static {
        Submission::new(&self.inner, Connect { address: address.into() })
    }

    /// Sends on a connected socket.
    pub fn send<B: IoBuf>(
        &self,
        buffer: B,
        flags: SendFlags,
    ) -> impl Future<Output = (io::Result<usize>, B)> + use<B> {
        Submission::new(&self.inner, Send { buffer, flags })
    }

    /// Receives from a connected socket.
    pub fn recv<B: IoBufMut>(
        &self,
        buffer: B,
        flags: RecvFlags,
    ) -> impl Future<Output = (io::Result<usize>, B)> + use<B> {
        Submission::new(&self.inner, Receive { buffer, flags })
    }

    /// What a system call of one's own would give that does `op` at once, if the file is not one of
    /// the kernel's: `EAGAIN` where it would have to wait. None for all others: make the call.
    pub fn simulated(&self, op: Op<'_>) -> Option<io::Result<u32>> {
        let result = op
            .on(|operation| self.inner.core.driver().on_the_spot(self.inner.target(), operation))?;
        Some(u32::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result)))
    }

    /// Adds one to the counter of an eventfd, as an irqfd or a doorbell wants it: queued now, done
    /// with the next visit to the kernel, no result.
    ///
    /// The eventfd is made non-blocking the first time, if its flags are not [somebody else's](Fd::keep_flags):
    /// `io_uring` would hand a blocking one to a worker thread.
    pub fn signal(&self) {
        match self.inner.signals.get() {
            Signals::Queued => {}
            Signals::OnTheSpot => return self.signal_on_the_spot(),
            Signals::MakeNonBlocking | Signals::KeepFlags => {
                self.inner.signals.set(self.way_of_signals());
                return self.signal();
            }
        }
        self.inner.core.driver().signal(self.inner.target());
    }

    /// Leaves the flags of the file as they are: it is used by another program, too, which may rely on them.
    #[must_use]
    pub fn keep_flags(self) -> Self {
        self.inner.signals.set(Signals::KeepFlags);
        self
    }

    #[cold]
    fn way_of_signals(&self) -> Signals {
        let result = rustix::fs::fcntl_getfl(self).and_then(|flags| {
            if flags.contains(OFlags::NONBLOCK) {
                return Ok(Signals::Queued);
            }
            if self.inner.signals.get() == Signals::KeepFlags {
                return Ok(Signals::OnTheSpot);
            }
            rustix::fs::fcntl_setfl(self, flags | OFlags::NONBLOCK).map(|()| Signals::Queued)
        });
        result.unwrap_or_else(|error| {
            // It still works, only slower.
            log::debug!("cannot make an eventfd non-blocking: {error}");
            Signals::Queued
        })
    }

    /// Two system calls, and neither waits: a counter that is full rings already.
    #[cold]
    fn signal_on_the_spot(&self) {
        let mut room = [PollFd::new(self, PollFlags::OUT)];
        let signalled = poll(&mut room, Some(&Timespec::default())).and_then(|ready| match ready {
            0 => Ok(0),
            _ => rustix::io::write(self, &1_u64.to_ne_bytes()),
        });
        if let Err(error) = signalled {
            log::debug!("cannot signal an eventfd: {error}");
        }
    }
}

/// How an eventfd is signalled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Signals {
    /// Not yet; it is made non-blocking first.
    MakeNonBlocking,
    /// Not yet; it stays as it is.
    KeepFlags,
    /// It never waits: with the next visit to the kernel.
    Queued,
    /// It might wait, and stays so.
    OnTheSpot,
}

impl AsFd for Fd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.descriptor.as_fd()
    }
}

impl std::fmt::Debug for Fd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fd")
            .field("descriptor", &self.inner.descriptor)
            .field("registered", &self.is_registered())
            .finish()
    }
}
