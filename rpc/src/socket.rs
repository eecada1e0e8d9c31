//! A socket of the executor in hyper's terms.

use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use executor::{Fd, PollFlags, RecvFlags, SendFlags};
use hyper::rt::{Read, ReadBufCursor, Write};
use rustix::io::Errno;

/// What one receive takes at most: a control message with its frames is far shorter.
const RECEIVE_BYTES: usize = 4096;

type Readiness = Pin<Box<dyn Future<Output = io::Result<PollFlags>>>>;

/// A connected stream socket.
///
/// Each transfer is tried at once, and the executor is asked to wait only if the socket says so.
/// These are control connections; what has volume goes over raw streams.
pub struct Socket {
    fd: Fd,
    received: Box<[u8; RECEIVE_BYTES]>,
    readable: Option<Readiness>,
    writable: Option<Readiness>,
}

impl Socket {
    /// Takes a connected stream socket.
    pub fn new(fd: Fd) -> Self {
        Socket { fd, received: Box::new([0; RECEIVE_BYTES]), readable: None, writable: None }
    }
}

/// Tries `transfer` until it does not say `EAGAIN`, waiting for `flags` in between.
fn poll_transfer(
    fd: &Fd,
    waiting: &mut Option<Readiness>,
    flags: PollFlags,
    context: &mut Context<'_>,
    mut transfer: impl FnMut() -> rustix::io::Result<usize>,
) -> Poll<io::Result<usize>> {
    loop {
        if let Some(readiness) = waiting {
            let ready = ready!(readiness.as_mut().poll(context));
            *waiting = None;
            ready?;
        }
        match transfer() {
            Ok(count) => return Poll::Ready(Ok(count)),
            Err(Errno::AGAIN) => *waiting = Some(Box::pin(fd.poll(flags))),
            Err(Errno::INTR) => {}
            Err(errno) => return Poll::Ready(Err(errno.into())),
        }
    }
}

impl Read for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let Socket { fd, received, readable, .. } = self.get_mut();
        let length = received.len().min(buffer.remaining());
        let received = &mut received[..length];
        let count = ready!(poll_transfer(fd, readable, PollFlags::IN, context, || {
            rustix::net::recv(fd.as_fd(), &mut *received, RecvFlags::DONTWAIT)
                .map(|(count, _)| count)
        }))?;
        buffer.put_slice(&received[..count]);
        Poll::Ready(Ok(()))
    }
}

impl Write for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Socket { fd, writable, .. } = self.get_mut();
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        poll_transfer(fd, writable, PollFlags::OUT, context, || {
            rustix::net::send(fd.as_fd(), bytes, flags)
        })
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match rustix::net::shutdown(self.fd.as_fd(), rustix::net::Shutdown::Write) {
            // The other side was faster.
            Ok(()) | Err(Errno::NOTCONN) => Poll::Ready(Ok(())),
            Err(errno) => Poll::Ready(Err(errno.into())),
        }
    }
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Socket").field("fd", &self.fd).finish_non_exhaustive()
    }
}
