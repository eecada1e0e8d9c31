//! Ports of the guest on this host, and ports of this host in the guest.
//!
//! ```text
//!   publish   here:PORT ──▶ Connect ──▶ stream ══ relay ══ the guest's localhost
//!   expose    the guest's localhost:PORT ══ vsock ══ relay ══ an address here
//! ```

use std::cell::Cell;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use executor::{Fd, TaskGroup};
use proto::v1;
use rustix::net::sockopt;

use crate::listener::HostPort;
use crate::session::{CallError, Session};

/// Connections of one port at a time.
const MAX_CONNECTIONS: usize = 1024;
/// After an error of `accept` that may pass.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Ports of vsock for connections out of the guest begin here: those of TCP end before.
const FIRST_VSOCK_PORT: u32 = 1 << 16;

/// A port that leads to the other side. Dropped, it takes no more connections; those that there are go on.
#[derive(Debug)]
pub struct Forward {
    _accepting: TaskGroup,
    _socket: Option<HostPort>,
}

/// Why a port leads nowhere.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// This side does not listen.
    #[error("cannot listen for connections")]
    Listen(#[source] io::Error),
    /// The other does not.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// Listens here and passes every connection on to a port of the guest.
pub fn publish(
    session: &Session,
    address: SocketAddr,
    guest_port: u16,
) -> Result<Forward, ForwardError> {
    let listener = TcpListener::bind(address).and_then(Fd::unregistered);
    let listener = listener.map_err(ForwardError::Listen)?;
    let session = session.clone();
    let to_guest = move |connection: OwnedFd| {
        let session = session.clone();
        async move {
            let request = v1::ConnectRequest { port: guest_port.into() };
            let opened = async {
                let reply = session.agent().connect(request).await?.into_inner();
                session.open_stream(&reply.stream).await
            };
            match opened.await {
                Ok(stream) => rpc::relay(Fd::unregistered(connection)?, stream).await,
                Err(error) => {
                    // As if nobody listened here: a reset instead of an end.
                    let _ = sockopt::set_socket_linger(&connection, Some(Duration::ZERO));
                    Err(io::Error::other(error))
                }
            }
        }
    };
    let accepting = TaskGroup::new();
    accepting.spawn(accept(listener, to_guest));
    Ok(Forward { _accepting: accepting, _socket: None })
}

/// Has the guest listen on its loopback, and passes every connection on to an address here.
pub async fn expose(
    session: &Session,
    guest_port: u16,
    address: SocketAddr,
) -> Result<Forward, ForwardError> {
    let host_port = FIRST_VSOCK_PORT + u32::from(guest_port);
    let socket = HostPort::bind(session.guest(), host_port).map_err(ForwardError::Listen)?;
    let listener = socket.listen().map_err(ForwardError::Listen)?;
    let request = v1::ListenRequest { port: guest_port.into(), host_port };
    session.agent().listen(request).await.map_err(CallError::from)?;
    let to_host = move |connection| async move {
        rpc::relay(Fd::unregistered(connection)?, rpc::connect_tcp(address).await?).await
    };
    let accepting = TaskGroup::new();
    accepting.spawn(accept(listener, to_host));
    Ok(Forward { _accepting: accepting, _socket: Some(socket) })
}

/// Ports on which programs of the guest listen for its own loopback, as soon as they are not those that are
/// known.
pub async fn listening(session: &Session, known: &[u16]) -> Result<Vec<u16>, CallError> {
    let known = known.iter().map(|&port| port.into()).collect();
    let reply = session.agent().ports(v1::PortsRequest { known }).await?.into_inner();
    Ok(reply.ports.into_iter().filter_map(|port| u16::try_from(port).ok()).collect())
}

async fn accept<F>(listener: Fd, serve: impl Fn(OwnedFd) -> F)
where
    F: Future<Output = io::Result<()>> + 'static,
{
    let connections = Rc::new(Cell::new(0));
    loop {
        match listener.accept().await {
            Ok(_) if connections.get() >= MAX_CONNECTIONS => {
                log::warn!("a connection was refused: there are {MAX_CONNECTIONS} already");
            }
            Ok(connection) => {
                connections.set(connections.get() + 1);
                let (served, connections) = (serve(connection), Rc::clone(&connections));
                executor::spawn(async move {
                    if let Err(error) = served.await {
                        log::debug!("a connection broke: {error}");
                    }
                    connections.set(connections.get() - 1);
                })
                .detach();
            }
            Err(error) => {
                log::warn!("cannot accept a connection: {error}");
                executor::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
