//! Connections over TCP.

use std::io;
use std::net::SocketAddr;

use executor::{Fd, PollFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with, sockopt};

/// Connects to an address.
pub async fn connect_tcp(address: SocketAddr) -> io::Result<Fd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    let started = rustix::net::connect(&socket, &address);
    let socket = Fd::unregistered(socket)?;
    match started {
        Ok(()) => return Ok(socket),
        Err(Errno::INPROGRESS) => {}
        Err(errno) => return Err(errno.into()),
    }
    socket.poll(PollFlags::OUT).await?;
    sockopt::socket_error(&socket)??;
    Ok(socket)
}
