//! System calls on the host's sockets. None of them waits, and none is more than the policy of
//! the process allows.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendFlags, Shutdown,
    SocketFlags,
};

/// Send what the socket takes.
pub(super) fn send(socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    let pieces = [IoSlice::new(bytes)];
    let sent = rustix::net::sendmsg(socket, &pieces, &mut SendAncillaryBuffer::default(), flags);
    Ok(sent.map_err(patient)?)
}

/// Receive what the socket has. A message that is longer than `bytes` is an error.
pub(super) fn receive(socket: BorrowedFd<'_>, bytes: &mut [u8]) -> io::Result<usize> {
    let mut pieces = [IoSliceMut::new(bytes)];
    let mut nothing = RecvAncillaryBuffer::default();
    let received = rustix::net::recvmsg(socket, &mut pieces, &mut nothing, RecvFlags::DONTWAIT)
        .map_err(patient)?;
    if received.flags.contains(ReturnFlags::TRUNC) {
        return Err(Errno::MSGSIZE.into());
    }
    Ok(received.bytes)
}

/// Accept a connection if one waits.
pub(super) fn accept(listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    Ok(rustix::net::accept_with(listener, SocketFlags::CLOEXEC).map_err(patient)?)
}

/// Say that no more comes, or that no more is taken. A socket whose peer is gone need not know.
pub(super) fn shut(socket: BorrowedFd<'_>, how: Shutdown) {
    let _ = rustix::net::shutdown(socket, how);
}

/// An interrupted call has done nothing and is made again when the socket is ready.
fn patient(error: Errno) -> Errno {
    if error == Errno::INTR { Errno::AGAIN } else { error }
}
