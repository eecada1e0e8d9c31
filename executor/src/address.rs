//! Socket addresses in the form that the kernel reads.

use std::io;
use std::mem;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// An address to connect to: IPv4, IPv6, a path, or vsock.
#[derive(Clone)]
pub struct SocketAddress {
    // Boxed: the kernel reads it while a `connect` is in flight, and values move.
    storage: Box<libc::sockaddr_storage>,
    length: libc::socklen_t,
}

impl SocketAddress {
    fn new<A: Copy>(address: A) -> Self {
        const { assert!(size_of::<A>() <= size_of::<libc::sockaddr_storage>()) };
        const { assert!(align_of::<A>() <= align_of::<libc::sockaddr_storage>()) };
        // SAFETY: all zeroes is a valid `sockaddr_storage`.
        let mut storage: Box<libc::sockaddr_storage> = Box::new(unsafe { mem::zeroed() });
        // SAFETY: size and alignment were checked above; the types are plain data.
        unsafe { std::ptr::from_mut(&mut *storage).cast::<A>().write(address) };
        SocketAddress { storage, length: size_of::<A>() as libc::socklen_t }
    }

    /// A Unix socket at a path.
    pub fn unix(path: impl AsRef<Path>) -> io::Result<Self> {
        let bytes = path.as_ref().as_os_str().as_bytes();
        // SAFETY: all zeroes is a valid `sockaddr_un`.
        let mut address: libc::sockaddr_un = unsafe { mem::zeroed() };
        address.sun_family = libc::AF_UNIX as libc::sa_family_t;
        if bytes.len() >= address.sun_path.len() || bytes.contains(&0) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the path of a Unix socket has at most 107 bytes and no zero byte",
            ));
        }
        for (to, &from) in address.sun_path.iter_mut().zip(bytes) {
            *to = from as libc::c_char;
        }
        Ok(Self::new(address))
    }

    /// A vsock port of a context.
    pub fn vsock(context: u32, port: u32) -> Self {
        // SAFETY: all zeroes is a valid `sockaddr_vm`.
        let mut address: libc::sockaddr_vm = unsafe { mem::zeroed() };
        address.svm_family = libc::AF_VSOCK as libc::sa_family_t;
        address.svm_cid = context;
        address.svm_port = port;
        Self::new(address)
    }

    pub(crate) fn as_raw(&self) -> (*const libc::sockaddr, libc::socklen_t) {
        (std::ptr::from_ref(&*self.storage).cast(), self.length)
    }
}

impl From<SocketAddr> for SocketAddress {
    fn from(address: SocketAddr) -> Self {
        match address {
            SocketAddr::V4(v4) => Self::new(libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
                sin_zero: [0; 8],
            }),
            SocketAddr::V6(v6) => Self::new(libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: v6.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                sin6_scope_id: v6.scope_id(),
            }),
        }
    }
}

impl std::fmt::Debug for SocketAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SocketAddress(family {})", self.storage.ss_family)
    }
}
