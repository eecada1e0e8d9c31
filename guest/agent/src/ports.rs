//! Ports of the guest's loopback interface, for the host; and ports of the host, for the guest.
//!
//! ```text
//!   Connect   host ──ticket──▶ stream ══ relay ══▶ 127.0.0.1:PORT, or ::1
//!   Listen    127.0.0.1:PORT ◀── programs;  each connection ══ relay ══▶ vsock port of the host
//! ```

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::rc::Rc;
use std::time::Duration;

use executor::{Fd, Task};
use proto::v1;
use tonic::Status;

use crate::process::Owner;
use crate::streams::Streams;
use crate::transport::Transport;

/// Who listens on the loopback answers at once, or its queue is full.
const PATIENCE: Duration = Duration::from_secs(5);
/// An offered connection that nobody takes is closed.
const TICKET_LIFE: Duration = Duration::from_secs(10);
/// Connections at a time, each way, and listeners.
const MAX_CONNECTIONS: usize = 1024;
const MAX_LISTENERS: usize = 64;
/// After an error of `accept` that may pass.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Listeners and connections of all hosts together.
#[derive(Default)]
pub(crate) struct Ports {
    listeners: RefCell<Vec<Listener>>,
    connections: Rc<Cell<usize>>,
}

/// A port that leads to the host.
struct Listener {
    owner: Owner,
    port: u16,
    task: Task<()>,
}

/// One of the connections.
struct Place(Rc<Cell<usize>>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Ports {
    fn place(connections: &Rc<Cell<usize>>) -> Option<Place> {
        (connections.get() < MAX_CONNECTIONS).then(|| {
            connections.set(connections.get() + 1);
            Place(Rc::clone(connections))
        })
    }

    /// Connects to a port and offers its bytes.
    pub(crate) async fn connect(
        &self,
        request: v1::ConnectRequest,
        streams: &Streams,
    ) -> Result<v1::ConnectReply, Status> {
        let port = number(request.port)?;
        let place = Self::place(&self.connections)
            .ok_or_else(|| Status::resource_exhausted("there are too many connections"))?;
        let connected = executor::timeout(PATIENCE, connect(port)).await;
        let socket = connected
            .unwrap_or_else(|elapsed| Err(io::Error::other(elapsed)))
            .map_err(|error| Status::unavailable(format!("port {port}: {error}")))?;
        let offer = streams
            .offer(move |stream| {
                executor::spawn(async move {
                    if let Err(error) = rpc::relay(stream, socket).await {
                        log::debug!("a connection to port {port} broke: {error}");
                    }
                    drop(place);
                })
                .detach();
            })
            .map_err(|error| Status::resource_exhausted(error.to_string()))?;
        let stream = offer.ticket.to_vec();
        executor::spawn(async move {
            executor::sleep(TICKET_LIFE).await;
            drop(offer);
        })
        .detach();
        Ok(v1::ConnectReply { stream })
    }

    /// Listens for programs of the guest until the control connection ends.
    pub(crate) fn listen(
        &self,
        request: v1::ListenRequest,
        owner: Owner,
        transport: &Transport,
    ) -> Result<v1::ListenReply, Status> {
        let port = number(request.port)?;
        let mut listeners = self.listeners.borrow_mut();
        if listeners.len() >= MAX_LISTENERS {
            return Err(Status::resource_exhausted("there are too many listeners"));
        }
        let refuse = |error: io::Error| match error.kind() {
            io::ErrorKind::AddrInUse => Status::already_exists(format!("port {port} is in use")),
            _ => Status::failed_precondition(format!("port {port}: {error}")),
        };
        let mut sockets = vec![
            std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port))
                .and_then(Fd::new)
                .map_err(refuse)?,
        ];
        // A kernel without IPv6 does without.
        sockets.extend(
            std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, port)).and_then(Fd::new).ok(),
        );
        for socket in sockets {
            let (transport, connections) = (transport.clone(), Rc::clone(&self.connections));
            let serve = serve(socket, transport, request.host_port, connections);
            listeners.push(Listener { owner, port, task: executor::spawn(serve) });
        }
        Ok(v1::ListenReply {})
    }

    /// Ends the listeners of a control connection that is gone; connections go on.
    pub(crate) fn abandon(&self, owner: Owner) {
        let mut listeners = self.listeners.borrow_mut();
        let (gone, stay): (Vec<_>, Vec<_>) =
            listeners.drain(..).partition(|one| one.owner == owner);
        *listeners = stay;
        drop(listeners);
        for one in gone {
            one.task.cancel();
        }
    }

    /// Whether a port leads to the host, and so is none of the guest's.
    pub(crate) fn is_own(&self, port: u16) -> bool {
        self.listeners.borrow().iter().any(|one| one.port == port)
    }
}

fn number(port: u32) -> Result<u16, Status> {
    u16::try_from(port)
        .ok()
        .filter(|port| *port != 0)
        .ok_or_else(|| Status::invalid_argument("there is no such port"))
}

/// A program of the guest listens on either of the loopback's addresses.
async fn connect(port: u16) -> io::Result<Fd> {
    match rpc::connect_tcp((Ipv4Addr::LOCALHOST, port).into()).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            let other = rpc::connect_tcp((Ipv6Addr::LOCALHOST, port).into()).await;
            other.map_err(|_| error)
        }
        result => result,
    }
}

async fn serve(listener: Fd, transport: Transport, host_port: u32, connections: Rc<Cell<usize>>) {
    loop {
        let accepted = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                log::warn!("cannot accept a connection: {error}");
                executor::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(place) = Ports::place(&connections) else {
            log::warn!("a connection was refused: there are {MAX_CONNECTIONS} already");
            continue;
        };
        let transport = transport.clone();
        executor::spawn(async move {
            let relayed = async {
                let here = Fd::new(accepted)?;
                rpc::relay(here, transport.connect_to_host(host_port).await?).await
            };
            if let Err(error) = relayed.await {
                log::debug!("a connection to the host broke: {error}");
            }
            drop(place);
        })
        .detach();
    }
}
