//! The host's end of a stream: an interface with an address, a neighbour there, and a program that reads or
//! writes through the kernel's TCP. It is the same whatever carries the frames.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::net::sockopt::{
    Timeout, set_socket_recv_buffer_size_force, set_socket_timeout, set_tcp_congestion,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::tcp::Wire;
use super::{Meter, PERIOD, pattern, place};
use crate::LoadError;
use crate::flood::PATIENCE;
use crate::frames::Direction;

const HOST: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const OURS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// Any port that is no privileged one.
const OUR_PORT: u16 = 40_000;
/// Bytes that the kernel may hold of what nobody read yet.
const BUFFER: usize = 4 << 20;
/// Bytes that the program reads or writes by a call.
const PIECE: usize = 256 << 10;
/// How often it looks whether it is over.
const GLANCE: Duration = Duration::from_millis(50);

/// A program of the host that takes or gives a stream.
pub(super) struct Host {
    wire: Wire,
    over: Arc<AtomicBool>,
    program: JoinHandle<Result<(), LoadError>>,
}

impl Host {
    /// Prepares an interface of this network, which may be about to appear, and waits for a connection.
    pub(super) fn start(
        interface: &str,
        direction: Direction,
        meter: Meter,
    ) -> Result<Self, LoadError> {
        let host_mac = prepare(interface).map_err(LoadError::system("prepare a tap"))?;
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0));
        let listener = listener.map_err(LoadError::system("listen for a stream"))?;
        // Whoever accepts inherits them.
        let set = set_socket_timeout(&listener, Timeout::Recv, Some(GLANCE))
            .and_then(|()| set_socket_timeout(&listener, Timeout::Send, Some(GLANCE)))
            .and_then(|()| set_socket_recv_buffer_size_force(&listener, BUFFER))
            // The kernel's own choice may be one that spreads frames over time.
            .and_then(|()| set_tcp_congestion(&listener, "reno"));
        set.map_err(|errno| crate::ring::system("set up a socket", errno))?;
        let address = listener.local_addr().map_err(LoadError::system("listen for a stream"))?;
        let over = Arc::new(AtomicBool::new(false));
        let is_over = over.clone();
        let program = std::thread::spawn(move || serve(&listener, direction, &meter, &is_over));
        let wire = Wire {
            host_mac,
            our_mac: OUR_MAC,
            host: HOST,
            ours: OURS,
            host_port: address.port(),
            our_port: OUR_PORT,
        };
        Ok(Self { wire, over, program })
    }

    /// Both ends.
    pub(super) fn wire(&self) -> Wire {
        self.wire
    }

    /// Ends the program. Its trouble is told first: it is the cause of the driver's.
    pub(super) fn finish<T>(self, outcome: Result<T, LoadError>) -> Result<T, LoadError> {
        self.over.store(true, Ordering::Relaxed);
        let joined = self.program.join();
        joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        outcome
    }
}

fn serve(
    listener: &TcpListener,
    direction: Direction,
    meter: &Meter,
    over: &AtomicBool,
) -> Result<(), LoadError> {
    while !over.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((connection, _)) => {
                return match direction {
                    Direction::Send => take(connection, meter, over),
                    Direction::Receive => give(connection, over),
                };
            }
            Err(error) if is_pause(&error) => {}
            Err(error) => return Err(LoadError::system("accept a stream")(error)),
        }
    }
    Ok(())
}

/// Reads and compares.
fn take(mut connection: TcpStream, meter: &Meter, over: &AtomicBool) -> Result<(), LoadError> {
    let pattern = pattern();
    let mut piece = vec![0; PIECE];
    let mut done = 0;
    while !over.load(Ordering::Relaxed) {
        let bytes = match connection.read(&mut piece) {
            // The driver hung up, which is how it ends.
            Ok(0) => break,
            Ok(bytes) => bytes,
            Err(error) if is_pause(&error) => continue,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
            Err(error) => return Err(LoadError::system("read a stream")(error)),
        };
        let mut rest = &piece[..bytes];
        while !rest.is_empty() {
            let expected = &pattern[place(done)..];
            let (part, others) = rest.split_at(rest.len().min(PERIOD));
            if part != &expected[..part.len()] {
                return Err(LoadError::Wrong("the host read other bytes of a stream".into()));
            }
            done += part.len() as u64;
            rest = others;
        }
        meter.add(bytes);
    }
    Ok(())
}

/// Writes.
fn give(mut connection: TcpStream, over: &AtomicBool) -> Result<(), LoadError> {
    let pattern = pattern();
    let mut done = 0;
    while !over.load(Ordering::Relaxed) {
        match connection.write(&pattern[place(done)..]) {
            Ok(bytes) => done += bytes as u64,
            Err(error) if is_pause(&error) => {}
            Err(error)
                if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) =>
            {
                break;
            }
            Err(error) => return Err(LoadError::system("write a stream")(error)),
        }
    }
    Ok(())
}

fn is_pause(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

/// Gives an interface its address and a neighbour that it need not ask for; tells its own hardware address.
fn prepare(interface: &str) -> std::io::Result<[u8; 6]> {
    let (family, kind) = (AddressFamily::INET, SocketType::DGRAM);
    let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
    let begin = Instant::now();
    while let Err(errno) = rustix::net::netdevice::name_to_index(socket.as_fd(), interface) {
        if begin.elapsed() > PATIENCE {
            return Err(errno.into());
        }
        std::thread::yield_now();
    }
    let mut request = named(interface);
    request.ifr_ifru.ifru_addr = address(HOST);
    ask(&socket, libc::SIOCSIFADDR, &mut request)?;
    let mut request = named(interface);
    request.ifr_ifru.ifru_addr = address(Ipv4Addr::new(255, 255, 255, 0));
    ask(&socket, libc::SIOCSIFNETMASK, &mut request)?;
    let mut request = named(interface);
    ask(&socket, libc::SIOCGIFHWADDR, &mut request)?;
    // SAFETY: the kernel has just filled in this member, and any bytes are valid in it.
    #[allow(unsafe_code)]
    let hardware = unsafe { request.ifr_ifru.ifru_hwaddr }.sa_data;
    let mut neighbour = libc::arpreq {
        arp_pa: address(OURS),
        arp_ha: plain_address(libc::ARPHRD_ETHER, &OUR_MAC),
        arp_flags: libc::ATF_PERM | libc::ATF_COM,
        arp_netmask: plain_address(0, &[]),
        arp_dev: request.ifr_name,
    };
    ask(&socket, libc::SIOCSARP, &mut neighbour)?;
    Ok(std::array::from_fn(|at| hardware[at] as u8))
}

/// A request about an interface.
fn named(interface: &str) -> libc::ifreq {
    // SAFETY: all zeroes is a valid `ifreq`: integers and pointers that nobody follows.
    #[allow(unsafe_code)]
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays zero.
    let room = request.ifr_name.len() - 1;
    for (to, from) in request.ifr_name[..room].iter_mut().zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    request
}

/// A `sockaddr_in`: two bytes of port, then the address.
fn address(address: Ipv4Addr) -> libc::sockaddr {
    plain_address(libc::AF_INET as u16, &[&[0, 0], &address.octets()[..]].concat())
}

fn plain_address(family: libc::sa_family_t, bytes: &[u8]) -> libc::sockaddr {
    let mut sa_data = [0; 14];
    for (to, from) in sa_data.iter_mut().zip(bytes) {
        *to = *from as libc::c_char;
    }
    libc::sockaddr { sa_family: family, sa_data }
}

/// Makes a request that reads and writes a structure.
fn ask<T>(socket: &OwnedFd, request: libc::Ioctl, structure: &mut T) -> std::io::Result<()> {
    // SAFETY: all requests here are about a structure of this type, which lives until the call returns.
    #[allow(unsafe_code)]
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), request, std::ptr::from_mut(structure)) };
    if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}
