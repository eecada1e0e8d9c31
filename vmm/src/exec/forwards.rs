//! Ports of a guest here, and ports of this host there.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::pin::pin;
use std::str::FromStr;

use agent_client::{Forward, ForwardError, Guest, Session, expose, listening, publish};
use executor::{Either, select};

use super::{Error, Wanted, executor};
use crate::agent_secret;
use crate::signals::Signals;

/// A port of the guest's localhost that can be reached here: `[ADDRESS:]PORT[:GUESTPORT]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Publish {
    /// Where to listen; None is localhost, in both of its forms.
    address: Option<IpAddr>,
    port: u16,
    guest_port: u16,
}

/// A port of this host's localhost that can be reached in the guest: `GUESTPORT[:PORT]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expose {
    guest_port: u16,
    port: u16,
}

/// Not ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("ports are PORT, PORT:OTHER or, where this host listens, ADDRESS:PORT:OTHER")]
pub struct PortsError;

fn number(text: &str) -> Result<u16, PortsError> {
    text.parse().ok().filter(|port| *port != 0).ok_or(PortsError)
}

impl FromStr for Publish {
    type Err = PortsError;

    fn from_str(text: &str) -> Result<Self, PortsError> {
        let (first, guest) = match text.rsplit_once(':') {
            Some((first, guest)) => (first, number(guest)?),
            None => (text, number(text)?),
        };
        let (address, port) = match first.rsplit_once(':') {
            Some((address, port)) => {
                let address = address.trim_start_matches('[').trim_end_matches(']');
                (Some(address.parse().map_err(|_| PortsError)?), port)
            }
            None => (None, first),
        };
        Ok(Self { address, port: number(port)?, guest_port: guest })
    }
}

impl FromStr for Expose {
    type Err = PortsError;

    fn from_str(text: &str) -> Result<Self, PortsError> {
        let (guest, port) = text.split_once(':').unwrap_or((text, text));
        Ok(Self { guest_port: number(guest)?, port: number(port)? })
    }
}

/// All that is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ports {
    /// Of the guest, here.
    pub publish: Vec<Publish>,
    /// Of this host, there.
    pub expose: Vec<Expose>,
}

/// Makes them reachable, as long as the result is kept.
pub(super) async fn open(session: &Session, ports: &Ports) -> Result<Vec<Forward>, Error> {
    let mut open = Vec::new();
    for one in &ports.publish {
        let forward = |source| Error::Forward { port: one.port, source };
        let first = one.address.unwrap_or(Ipv4Addr::LOCALHOST.into());
        open.push(publish(session, (first, one.port).into(), one.guest_port).map_err(forward)?);
        if one.address.is_none() {
            open.extend(localhost_6(session, one.port, one.guest_port));
        }
    }
    for one in &ports.expose {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, one.port));
        let opened = expose(session, one.guest_port, address).await;
        open.push(opened.map_err(|source| Error::Forward { port: one.guest_port, source })?);
    }
    Ok(open)
}

/// A host may have no IPv6, or somebody else on the port there.
fn localhost_6(session: &Session, port: u16, guest_port: u16) -> Option<Forward> {
    let address = SocketAddr::from((Ipv6Addr::LOCALHOST, port));
    publish(session, address, guest_port)
        .inspect_err(|error| log::debug!("{address}: {error}"))
        .ok()
}

/// Which ports, of which guest.
#[derive(Debug)]
pub struct Forwarding {
    /// The socket of the guest's vsock device.
    pub socket: PathBuf,
    /// The file with its agent's secret.
    pub secret: PathBuf,
    /// Those that are named.
    pub ports: Ports,
    /// Whether all on which programs of the guest listen are wanted, under their own numbers.
    pub all: Wanted,
}

/// Keeps ports reachable until a signal or the guest's end, which is an error.
pub fn forward(forwarding: Forwarding, mut tell: impl FnMut(&str)) -> Result<(), Error> {
    let Forwarding { socket, secret, ports, all } = forwarding;
    let signals = Signals::block().map_err(Error::host("take over the signals"))?;
    let secret =
        agent_secret::read(&secret).map_err(|source| Error::Read { path: secret, source })?;
    executor()?.block_on(async {
        let mut signals = signals.listen().map_err(Error::host("listen to signals"))?;
        let work = async {
            let session = Session::open(&Guest::new(socket), &secret).await?;
            let _open = open(&session, &ports).await?;
            tell("ports are forwarded");
            follow(&session, all, &mut tell).await
        };
        match select(pin!(work), pin!(signals.ending(None, || {}))).await {
            Either::Left(result) => result,
            Either::Right(number) => number.map(drop).map_err(Error::host("read signals")),
        }
    })
}

/// Follows the ports of the guest for ever: this is also how its end is noticed.
async fn follow(session: &Session, all: Wanted, tell: &mut impl FnMut(&str)) -> Result<(), Error> {
    let mut known = Vec::new();
    let mut open: BTreeMap<u16, Vec<Forward>> = BTreeMap::new();
    loop {
        known = listening(session, &known).await?;
        if all == Wanted::No {
            continue;
        }
        open.retain(|port, _| {
            let stays = known.contains(port);
            if !stays {
                tell(&format!("port {port} is closed"));
            }
            stays
        });
        for &port in known.iter().filter(|port| !open.contains_key(port)).collect::<Vec<_>>() {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            match publish(session, address, port) {
                Ok(forward) => {
                    let forwards =
                        Some(forward).into_iter().chain(localhost_6(session, port, port));
                    open.insert(port, forwards.collect());
                    tell(&format!("port {port} of the guest is localhost:{port}"));
                }
                Err(ForwardError::Listen(error)) if error.kind() == io::ErrorKind::AddrInUse => {
                    tell(&format!("port {port} of the guest is in use here"));
                    open.insert(port, Vec::new());
                }
                Err(source) => return Err(Error::Forward { port, source }),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_have_two_ends() {
        let of = |text: &str| {
            text.parse().map(|Publish { address, port, guest_port }| (address, port, guest_port))
        };
        assert_eq!(of("8000"), Ok((None, 8000, 8000)));
        assert_eq!(of("8080:80"), Ok((None, 8080, 80)));
        assert_eq!(of("0.0.0.0:8080:80"), Ok((Some(Ipv4Addr::UNSPECIFIED.into()), 8080, 80)));
        assert_eq!(of("[::1]:8080:80"), Ok((Some(Ipv6Addr::LOCALHOST.into()), 8080, 80)));
        for text in ["", "0", "x", "1:", ":1", "65536", "1:2:3", "a:1:2"] {
            assert_eq!(of(text), Err(PortsError), "{text}");
        }
        assert_eq!("5432:15432".parse(), Ok(Expose { guest_port: 5432, port: 15432 }));
        assert_eq!("5432".parse(), Ok(Expose { guest_port: 5432, port: 5432 }));
        assert_eq!("1:2:3".parse::<Expose>(), Err(PortsError));
    }
}
