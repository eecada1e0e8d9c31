//! A port of the host that leads to the guest.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::NetValueError;

/// The protocol of a forwarded port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A port of the host that leads to the guest: `tcp:[ADDRESS]:PORT-:GUESTPORT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostForward {
    /// Its protocol.
    pub protocol: Protocol,
    /// Where the host listens; None is everywhere.
    pub address: Option<Ipv4Addr>,
    /// The port of the host.
    pub host_port: u16,
    /// The port of the guest.
    pub guest_port: u16,
}

impl FromStr for HostForward {
    type Err = NetValueError;

    fn from_str(text: &str) -> Result<Self, NetValueError> {
        parse_forward(text).ok_or(NetValueError::Forward)
    }
}

fn parse_forward(text: &str) -> Option<HostForward> {
    let (protocol, rest) = text.split_once(':')?;
    let protocol = match protocol {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        _ => return None,
    };
    let (host, guest) = rest.split_once('-')?;
    let (address, host_port) = match host.rsplit_once(':') {
        None | Some(("", _)) => (None, host.trim_start_matches(':')),
        Some((address, port)) => (Some(address.parse().ok()?), port),
    };
    // The guest has one address; only its port can be named.
    let guest_port = guest.strip_prefix(':')?;
    let port = |text: &str| text.parse().ok().filter(|port| *port != 0);
    Some(HostForward {
        protocol,
        address,
        host_port: port(host_port)?,
        guest_port: port(guest_port)?,
    })
}

impl TryFrom<String> for HostForward {
    type Error = NetValueError;

    fn try_from(text: String) -> Result<Self, NetValueError> {
        text.parse()
    }
}

impl From<HostForward> for String {
    fn from(forward: HostForward) -> Self {
        forward.to_string()
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

impl fmt::Display for HostForward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { protocol, address, host_port, guest_port } = self;
        match address {
            Some(address) => write!(f, "{protocol}:{address}:{host_port}-:{guest_port}"),
            None => write!(f, "{protocol}::{host_port}-:{guest_port}"),
        }
    }
}
