//! Sockets of this host's own vsock (`AF_VSOCK`), which guests of other machines connect to.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// Clients that wait to be accepted.
const BACKLOG: libc::c_int = 32;
const ADDRESS_BYTES: libc::socklen_t = size_of::<libc::sockaddr_vm>() as libc::socklen_t;

/// A socket that listens on a port, for whoever knows this host.
pub(super) fn listen(port: u32) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC;
    // SAFETY: a plain system call.
    let socket = unsafe { libc::socket(libc::AF_VSOCK, kind, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call made this descriptor for nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    let mut address = nobody();
    (address.svm_cid, address.svm_port) = (libc::VMADDR_CID_ANY, port);
    // SAFETY: the kernel reads so many bytes of the address, which lives during the call.
    let bound =
        unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), ADDRESS_BYTES) };
    if bound != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a plain system call.
    if unsafe { libc::listen(socket.as_raw_fd(), BACKLOG) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(socket)
}

/// The context id of whoever is at the other end.
pub(super) fn peer(socket: impl AsFd) -> io::Result<u32> {
    let mut address = nobody();
    let mut length = ADDRESS_BYTES;
    let socket = socket.as_fd().as_raw_fd();
    // SAFETY: the kernel writes so many bytes of the address at most, which lives during the call.
    let result = unsafe { libc::getpeername(socket, (&raw mut address).cast(), &raw mut length) };
    match result {
        0 if address.svm_family == libc::AF_VSOCK as libc::sa_family_t => Ok(address.svm_cid),
        0 => Err(io::ErrorKind::Unsupported.into()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn nobody() -> libc::sockaddr_vm {
    // SAFETY: all zeros are an address.
    let address: libc::sockaddr_vm = unsafe { std::mem::zeroed() };
    libc::sockaddr_vm { svm_family: libc::AF_VSOCK as libc::sa_family_t, ..address }
}
