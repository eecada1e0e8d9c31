//! Addresses and routes of an interface, by the old ioctls (netdevice(7)): they need neither a
//! netlink socket nor a parser.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};

use proto::v1;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use tonic::Status;

const RESOLVER: &str = "/etc/resolv.conf";

/// Sets up one interface as the request says.
pub(crate) fn configure(request: &v1::ConfigureNetworkRequest) -> Result<(), Status> {
    let address = parse(&request.address)?;
    if request.prefix > 32 {
        return Err(Status::invalid_argument("a prefix has at most 32 bits"));
    }
    let gateway = match request.gateway.as_str() {
        "" => None,
        text => Some(parse(text)?),
    };
    let servers: Vec<_> =
        request.nameservers.iter().map(|text| parse(text)).collect::<Result<_, _>>()?;
    let name = match request.interface.as_str() {
        "" => first_interface().ok_or_else(|| Status::not_found("there is no interface"))?,
        name => name.to_owned(),
    };
    let refuse = |error: io::Error| Status::failed_precondition(format!("{name}: {error}"));
    let interface = Interface::open(&name).map_err(refuse)?;
    interface.set(libc::SIOCSIFADDR, address).map_err(refuse)?;
    interface.set(libc::SIOCSIFNETMASK, mask(request.prefix)).map_err(refuse)?;
    interface.up().map_err(refuse)?;
    if let Some(gateway) = gateway {
        interface.add_default_route(gateway).map_err(refuse)?;
    }
    write_resolver(&servers).map_err(refuse)
}

/// Brings the loopback interface up.
pub(crate) fn loopback_up() -> io::Result<()> {
    Interface::open("lo")?.up()
}

fn parse(text: &str) -> Result<Ipv4Addr, Status> {
    text.parse().map_err(|_| Status::invalid_argument(format!("`{text}` is no IPv4 address")))
}

fn mask(prefix: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::MAX.checked_shl(32 - prefix).unwrap_or(0))
}

fn first_interface() -> Option<String> {
    let names = std::fs::read_dir("/sys/class/net").ok()?;
    let names = names.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter(|name| name != "lo").min()
}

fn write_resolver(servers: &[Ipv4Addr]) -> io::Result<()> {
    if servers.is_empty() {
        return Ok(());
    }
    let mut lines = String::new();
    for server in servers {
        lines.push_str("nameserver ");
        lines.push_str(&server.to_string());
        lines.push('\n');
    }
    std::fs::create_dir_all("/etc")?;
    std::fs::write(RESOLVER, lines)
}

struct Interface {
    socket: OwnedFd,
    request: libc::ifreq,
}

impl Interface {
    fn open(name: &str) -> io::Result<Self> {
        // SAFETY: all zeroes is a valid request.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        // One zero byte stays at the end.
        if name.is_empty() || name.len() >= request.ifr_name.len() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        let socket =
            socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
        Ok(Interface { socket, request })
    }

    fn set(&self, what: libc::Ioctl, address: Ipv4Addr) -> io::Result<()> {
        let mut request = self.request;
        request.ifr_ifru.ifru_addr = socket_address(address);
        // SAFETY: both requests read an `ifreq` with an address.
        check(unsafe { libc::ioctl(self.socket.as_raw_fd(), what, &raw mut request) })
    }

    fn up(&self) -> io::Result<()> {
        let mut request = self.request;
        // SAFETY: reads the name and writes the flags of an `ifreq`.
        check(unsafe {
            libc::ioctl(self.socket.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request)
        })?;
        // SAFETY: the kernel has just written this field.
        unsafe { request.ifr_ifru.ifru_flags |= (libc::IFF_UP | libc::IFF_RUNNING) as i16 };
        // SAFETY: reads name and flags of an `ifreq`.
        check(unsafe { libc::ioctl(self.socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw mut request) })
    }

    fn add_default_route(&self, gateway: Ipv4Addr) -> io::Result<()> {
        // SAFETY: all zeroes is a valid route.
        let mut route: libc::rtentry = unsafe { std::mem::zeroed() };
        route.rt_dst = socket_address(Ipv4Addr::UNSPECIFIED);
        route.rt_genmask = socket_address(Ipv4Addr::UNSPECIFIED);
        route.rt_gateway = socket_address(gateway);
        route.rt_flags = libc::RTF_UP | libc::RTF_GATEWAY;
        let mut name = self.request.ifr_name;
        route.rt_dev = name.as_mut_ptr();
        // SAFETY: reads an `rtentry`, whose name lives until the call returns.
        match check(unsafe {
            libc::ioctl(self.socket.as_raw_fd(), libc::SIOCADDRT, &raw mut route)
        }) {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
            result => result,
        }
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn socket_address(address: Ipv4Addr) -> libc::sockaddr {
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: 0,
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.octets()) },
        sin_zero: [0; 8],
    };
    // SAFETY: both are plain data of the same size.
    unsafe { std::mem::transmute::<libc::sockaddr_in, libc::sockaddr>(address) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_have_the_prefix() {
        assert_eq!(mask(24), Ipv4Addr::new(255, 255, 255, 0));
        assert_eq!(mask(0), Ipv4Addr::UNSPECIFIED);
        assert_eq!(mask(32), Ipv4Addr::BROADCAST);
    }

    #[test]
    fn wrong_requests_are_refused_before_anything_changes() {
        let request = |address: &str, prefix| v1::ConfigureNetworkRequest {
            interface: "no-such-interface-at-all".into(),
            address: address.into(),
            prefix,
            ..Default::default()
        };
        for wrong in [request("", 24), request("1.2.3", 24), request("1.2.3.4", 33)] {
            assert_eq!(configure(&wrong).unwrap_err().code(), tonic::Code::InvalidArgument);
        }
        let missing = configure(&request("1.2.3.4", 24)).unwrap_err();
        assert_eq!(missing.code(), tonic::Code::FailedPrecondition);
    }
}
