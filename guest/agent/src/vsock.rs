//! vsock sockets (vsock(7)).

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// The host, seen from a guest. Loopback and other guests have other numbers.
pub(crate) const HOST_CONTEXT: u32 = libc::VMADDR_CID_HOST;

/// Connections that wait to be accepted. A host may start many commands at once.
const BACKLOG: i32 = 128;

/// A stream socket.
pub(crate) fn socket() -> io::Result<OwnedFd> {
    // SAFETY: makes a descriptor; nothing else is touched.
    let fd = unsafe { libc::socket(libc::AF_VSOCK, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made and has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A socket that listens on a port of every context of this machine.
pub(crate) fn listen(port: u32) -> io::Result<OwnedFd> {
    let socket = socket()?;
    let mut address = empty_address();
    address.svm_family = libc::AF_VSOCK as libc::sa_family_t;
    address.svm_cid = libc::VMADDR_CID_ANY;
    address.svm_port = port;
    let length = size_of::<libc::sockaddr_vm>() as libc::socklen_t;
    // SAFETY: the address is valid for the length that is given with it.
    let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
    if bound < 0 {
        return Err(io::Error::last_os_error());
    }
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// The context at the other end of a connection.
pub(crate) fn peer_context(connection: impl AsFd) -> io::Result<u32> {
    let mut address = empty_address();
    let mut length = size_of::<libc::sockaddr_vm>() as libc::socklen_t;
    // SAFETY: there is room for as many bytes as `length` says.
    let result = unsafe {
        let socket = connection.as_fd().as_raw_fd();
        libc::getpeername(socket, (&raw mut address).cast(), &raw mut length)
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    if i32::from(address.svm_family) != libc::AF_VSOCK {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(address.svm_cid)
}

fn empty_address() -> libc::sockaddr_vm {
    // SAFETY: all zeroes is a valid address.
    unsafe { std::mem::zeroed() }
}
