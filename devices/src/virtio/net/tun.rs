//! The system calls on tap descriptors and on the interfaces behind them: the one place that speaks
//! to the kernel's tun driver (Linux `Documentation/networking/tuntap.rst`).

use std::ffi::{c_int, c_short, c_uint, c_ulong};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::offload::Offloads;
use super::protocol::HEADER_BYTES;

/// Frames, not IP packets.
pub(super) const IFF_TAP: c_short = libc::IFF_TAP as c_short;
/// No protocol information before each frame.
pub(super) const IFF_NO_PI: c_short = libc::IFF_NO_PI as c_short;
/// A virtio header before each frame.
pub(super) const IFF_VNET_HDR: c_short = libc::IFF_VNET_HDR as c_short;
/// Several descriptors for one interface.
pub(super) const IFF_MULTI_QUEUE: c_short = libc::IFF_MULTI_QUEUE as c_short;

/// An interface name of the kernel: up to 15 bytes and a zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct InterfaceName([u8; libc::IFNAMSIZ]);

impl InterfaceName {
    /// None if no interface can be called so. `%d` in it asks the kernel for a number.
    pub(super) fn new(name: &str) -> Option<Self> {
        let fits = (1..libc::IFNAMSIZ).contains(&name.len()) && name != "." && name != "..";
        let plain = name.bytes().all(|c| c.is_ascii_graphic() && c != b'/' && c != b':');
        if !fits || !plain {
            return None;
        }
        let mut bytes = [0; libc::IFNAMSIZ];
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        Some(Self(bytes))
    }
}

impl std::fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = self.0.split(|byte| *byte == 0).next().unwrap_or_default();
        f.write_str(&String::from_utf8_lossy(text))
    }
}

/// What all requests about interfaces pass.
struct Request(libc::ifreq);

impl Request {
    fn new(name: InterfaceName) -> Self {
        // SAFETY: all zeroes is a valid `ifreq`: integers and pointers that nobody follows.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        request.ifr_name = name.0.map(|byte| byte as libc::c_char);
        Self(request)
    }

    fn name(&self) -> InterfaceName {
        InterfaceName(self.0.ifr_name.map(|byte| byte as u8))
    }

    fn flags(&self) -> c_short {
        // SAFETY: all members of the union are integers for the requests made here, and it was
        // zeroed as a whole.
        unsafe { self.0.ifr_ifru.ifru_flags }
    }

    fn number(&self) -> c_int {
        // SAFETY: as in `flags`.
        unsafe { self.0.ifr_ifru.ifru_mtu }
    }

    /// Make a request that reads and writes the structure.
    fn make(&mut self, fd: &impl AsFd, request: c_ulong) -> io::Result<()> {
        let structure: *mut libc::ifreq = &raw mut self.0;
        // SAFETY: the requests of this file take an `ifreq`, which lives until the call returns.
        check(unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), request, structure) })
    }
}

fn check(result: c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Open the tun driver; the descriptor is of no interface yet.
pub(super) fn open() -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
    Ok(rustix::fs::open("/dev/net/tun", flags, Mode::empty())?)
}

/// Make the descriptor a queue of an interface, which is made if there is none of that name.
pub(super) fn attach(
    fd: &impl AsFd,
    name: InterfaceName,
    flags: c_short,
) -> io::Result<InterfaceName> {
    let mut request = Request::new(name);
    request.0.ifr_ifru.ifru_flags = flags;
    request.make(fd, libc::TUNSETIFF as c_ulong)?;
    Ok(request.name())
}

/// The interface and mode of a descriptor.
pub(super) fn interface(fd: &impl AsFd) -> io::Result<(InterfaceName, c_short)> {
    let mut request = Request::new(InterfaceName([0; libc::IFNAMSIZ]));
    request.make(fd, libc::TUNGETIFF as c_ulong)?;
    Ok((request.name(), request.flags()))
}

/// Put headers of virtio's length before each frame.
pub(super) fn set_header_length(fd: &impl AsFd) -> io::Result<()> {
    let length = HEADER_BYTES as c_int;
    let request = libc::TUNSETVNETHDRSZ as c_ulong;
    // SAFETY: the request reads an integer, which lives until the call returns.
    check(unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), request, &raw const length) })
}

/// Let frames be written without limit: whoever sends faster than the host takes loses frames in
/// the host, as on any network, and none waits and is overtaken.
pub(super) fn set_unlimited(fd: &impl AsFd) -> io::Result<()> {
    let bytes = c_int::MAX;
    let request = libc::TUNSETSNDBUF as c_ulong;
    // SAFETY: the request reads an integer, which lives until the call returns.
    check(unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), request, &raw const bytes) })
}

/// Which offloads the frames that the interface gives may need. Holds for all its queues.
pub(super) fn set_offloads(fd: &impl AsFd, offloads: Offloads) -> io::Result<()> {
    // The flags of linux/if_tun.h are in the order of ours.
    let flags = c_ulong::from(offloads.consistent().bits() as c_uint);
    let request = libc::TUNSETOFFLOAD as c_ulong;
    // SAFETY: the argument is a number.
    check(unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), request, flags) })
}

const _: () = assert!(Offloads::CHECKSUM.bits() == libc::TUN_F_CSUM);
const _: () = assert!(Offloads::TSO4.bits() == libc::TUN_F_TSO4);
const _: () = assert!(Offloads::TSO6.bits() == libc::TUN_F_TSO6);
const _: () = assert!(Offloads::ECN.bits() == libc::TUN_F_TSO_ECN);
const _: () = assert!(Offloads::UFO.bits() == libc::TUN_F_UFO);
const _: () = assert!(Offloads::USO4.bits() == libc::TUN_F_USO4);
const _: () = assert!(Offloads::USO6.bits() == libc::TUN_F_USO6);

/// Whether frames reach a queue of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum QueueState {
    Attached,
    Detached,
}

/// Attach a queue to its interface again, or detach it. It must be in the other state.
pub(super) fn set_queue(fd: &impl AsFd, state: QueueState) -> io::Result<()> {
    let mut request = Request::new(InterfaceName([0; libc::IFNAMSIZ]));
    request.0.ifr_ifru.ifru_flags = match state {
        QueueState::Attached => libc::IFF_ATTACH_QUEUE as c_short,
        QueueState::Detached => libc::IFF_DETACH_QUEUE as c_short,
    };
    request.make(fd, libc::TUNSETQUEUE as c_ulong)
}

fn control_socket() -> io::Result<OwnedFd> {
    let (family, kind) = (AddressFamily::INET, SocketType::DGRAM);
    Ok(rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None)?)
}

/// The number of the interface of that name, if there is one. Another one that is made later has another number.
pub(super) fn index(name: InterfaceName) -> io::Result<Option<c_int>> {
    let mut request = Request::new(name);
    match request.make(&control_socket()?, libc::SIOCGIFINDEX as c_ulong) {
        Ok(()) => Ok(Some(request.number())),
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether the interface is up.
#[cfg(test)]
pub(super) fn is_up(name: InterfaceName) -> io::Result<bool> {
    let mut request = Request::new(name);
    request.make(&control_socket()?, libc::SIOCGIFFLAGS as c_ulong)?;
    Ok(request.flags() & libc::IFF_UP as c_short != 0)
}

/// The interface's MTU.
pub(super) fn mtu(name: InterfaceName) -> io::Result<c_int> {
    let mut request = Request::new(name);
    request.make(&control_socket()?, libc::SIOCGIFMTU as c_ulong)?;
    Ok(request.number())
}

/// Set the interface's MTU.
pub(super) fn set_mtu(name: InterfaceName, mtu: u16) -> io::Result<()> {
    let mut request = Request::new(name);
    request.0.ifr_ifru.ifru_mtu = mtu.into();
    request.make(&control_socket()?, libc::SIOCSIFMTU as c_ulong)
}

/// Bring the interface up.
pub(super) fn bring_up(name: InterfaceName) -> io::Result<()> {
    let socket = control_socket()?;
    let mut request = Request::new(name);
    request.make(&socket, libc::SIOCGIFFLAGS as c_ulong)?;
    request.0.ifr_ifru.ifru_flags = request.flags() | libc::IFF_UP as c_short;
    request.make(&socket, libc::SIOCSIFFLAGS as c_ulong)
}

/// Give the interface an IPv4 address and its network.
pub(super) fn set_address(name: InterfaceName, address: [u8; 4], prefix: u8) -> io::Result<()> {
    let socket = control_socket()?;
    let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0).to_be_bytes();
    for (what, bytes) in [(libc::SIOCSIFADDR, address), (libc::SIOCSIFNETMASK, mask)] {
        let mut request = Request::new(name);
        let mut data = [0 as libc::c_char; 14];
        // A `sockaddr_in`: two bytes of port, then the address.
        for (to, from) in data[2..6].iter_mut().zip(bytes) {
            *to = from as libc::c_char;
        }
        let sa_family = libc::AF_INET as libc::sa_family_t;
        request.0.ifr_ifru.ifru_addr = libc::sockaddr { sa_family, sa_data: data };
        request.make(&socket, what as c_ulong)?;
    }
    Ok(())
}
