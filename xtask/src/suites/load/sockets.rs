//! Sockets by plain calls of the C library.

use std::ffi::{c_int, c_long, c_short, c_void};
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

const AF_UNIX: c_int = 1;
const AF_VSOCK: c_int = 40;
const HOST: u32 = 2;
const BACKLOG: c_int = 4096;
/// Bytes of a path, with the zero at its end.
const LONGEST_PATH: usize = 108;
pub const POLLIN: c_short = 1;
pub const POLLOUT: c_short = 4;
pub const MSG_DONTWAIT: c_int = 0x40;
const SHUT_WR: c_int = 1;
const MSG_NOSIGNAL: c_int = 0x4000;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Stream = 1,
    Seqpacket = 5,
}

#[repr(C)]
struct SockaddrVm {
    family: u16,
    reserved: u16,
    port: u32,
    cid: u32,
    zero: [u8; 4],
}

#[repr(C)]
struct SockaddrUn {
    family: u16,
    path: [u8; LONGEST_PATH],
}

#[repr(C)]
pub struct PollFd {
    pub fd: c_int,
    pub events: c_short,
    pub revents: c_short,
}

mod c {
    use super::*;

    unsafe extern "C" {
        pub fn socket(family: c_int, kind: c_int, protocol: c_int) -> c_int;
        pub fn connect(fd: c_int, address: *const c_void, length: u32) -> c_int;
        pub fn bind(fd: c_int, address: *const c_void, length: u32) -> c_int;
        pub fn listen(fd: c_int, backlog: c_int) -> c_int;
        pub fn accept(fd: c_int, address: *mut c_void, length: *mut u32) -> c_int;
        pub fn poll(fds: *mut PollFd, count: c_long, timeout: c_int) -> c_int;
        pub fn send(fd: c_int, data: *const c_void, length: usize, flags: c_int) -> isize;
        pub fn recv(fd: c_int, data: *mut c_void, length: usize, flags: c_int) -> isize;
        pub fn shutdown(fd: c_int, how: c_int) -> c_int;
    }
}

fn new(family: c_int, kind: Kind) -> io::Result<OwnedFd> {
    // SAFETY: a plain call.
    own(unsafe { c::socket(family, kind as c_int, 0) })
}

fn own(fd: c_int) -> io::Result<OwnedFd> {
    match fd {
        ..0 => Err(io::Error::last_os_error()),
        // SAFETY: it is new.
        fd => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
    }
}

fn check(result: c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Connects to a port of the host, or over TCP.
pub fn connect(place: &str, kind: Kind) -> io::Result<OwnedFd> {
    match place.split_once(':') {
        Some(("vsock", port)) => connect_to_host(port.parse().map_err(io::Error::other)?, kind),
        Some(("tcp", address)) => TcpStream::connect(address).map(OwnedFd::from),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

/// Listens at a path, or for TCP.
pub fn listen(place: &str, kind: Kind) -> io::Result<OwnedFd> {
    match place.split_once(':') {
        Some(("unix", path)) => listen_at(path, kind),
        Some(("tcp", address)) => TcpListener::bind(address).map(OwnedFd::from),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

fn connect_to_host(port: u32, kind: Kind) -> io::Result<OwnedFd> {
    let fd = new(AF_VSOCK, kind)?;
    let family = AF_VSOCK as u16;
    let address = SockaddrVm { family, reserved: 0, port, cid: HOST, zero: [0; 4] };
    // SAFETY: the address lives during the call and is that long.
    check(unsafe {
        c::connect(fd.as_raw_fd(), (&raw const address).cast(), size_of_val(&address) as u32)
    })?;
    Ok(fd)
}

fn listen_at(path: &str, kind: Kind) -> io::Result<OwnedFd> {
    let fd = new(AF_UNIX, kind)?;
    let mut address = SockaddrUn { family: AF_UNIX as u16, path: [0; LONGEST_PATH] };
    let room = address.path[..LONGEST_PATH - 1].get_mut(..path.len());
    room.ok_or(io::ErrorKind::InvalidFilename)?.copy_from_slice(path.as_bytes());
    // SAFETY: as in `connect_to_host`.
    check(unsafe {
        c::bind(fd.as_raw_fd(), (&raw const address).cast(), size_of_val(&address) as u32)
    })?;
    // SAFETY: a plain call.
    check(unsafe { c::listen(fd.as_raw_fd(), BACKLOG) })?;
    Ok(fd)
}

/// The next who connects.
pub fn accept_one(listener: &OwnedFd) -> io::Result<OwnedFd> {
    // SAFETY: nobody asks for an address.
    own(unsafe { c::accept(listener.as_raw_fd(), std::ptr::null_mut(), std::ptr::null_mut()) })
}

/// Waits for up to a minute; how many are ready.
pub fn wait(fds: &mut [PollFd]) -> usize {
    // SAFETY: the list lives during the call.
    let ready = unsafe { c::poll(fds.as_mut_ptr(), fds.len() as c_long, 60_000) };
    usize::try_from(ready).unwrap_or(0)
}

/// Says that nothing more comes.
pub fn shut_down_writes(fd: &OwnedFd) -> io::Result<()> {
    // SAFETY: a plain call.
    check(unsafe { c::shutdown(fd.as_raw_fd(), SHUT_WR) })
}

pub fn send_some(fd: &OwnedFd, data: &[u8], flags: c_int) -> io::Result<usize> {
    // SAFETY: the data live during the call and are that long.
    let sent =
        unsafe { c::send(fd.as_raw_fd(), data.as_ptr().cast(), data.len(), flags | MSG_NOSIGNAL) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

pub fn receive_some(fd: &OwnedFd, data: &mut [u8], flags: c_int) -> io::Result<usize> {
    // SAFETY: the buffer lives during the call and is that long.
    let received = unsafe { c::recv(fd.as_raw_fd(), data.as_mut_ptr().cast(), data.len(), flags) };
    usize::try_from(received).map_err(|_| io::Error::last_os_error())
}
