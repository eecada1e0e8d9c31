//! Where connections come from: vsock in a guest, or a Unix socket.
//!
//! A Unix socket speaks the dialect that our hosts speak in front of a guest: whoever connects
//! writes `CONNECT PORT\n` and reads `OK NUMBER\n`, and the other way round port P of the host is
//! the socket `PATH_P`. So a host cannot tell an agent in a guest from one that is an ordinary
//! process.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use executor::{Fd, IoBuf, RecvFlags, SendFlags, SocketAddress};
use proto::{CONTROL_PORT, STREAM_PORT};

use crate::vsock;

/// A connection that does not name its port is closed after this time.
const PATIENCE: Duration = Duration::from_secs(10);
/// `CONNECT 4294967295\n` has 19 bytes.
const MAX_LINE: usize = 32;
/// After an error of `accept` that may pass, such as no free descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How the agent is reached.
#[derive(Clone, Debug)]
pub(crate) enum Transport {
    Vsock,
    Unix(PathBuf),
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Port {
    Control,
    Stream,
}

impl Port {
    fn from_number(number: u32) -> Option<Self> {
        match number {
            CONTROL_PORT => Some(Port::Control),
            STREAM_PORT => Some(Port::Stream),
            _ => None,
        }
    }
}

type Connected = Rc<dyn Fn(Fd, Port)>;

impl Transport {
    /// Listens, and from then on hands each connection to `connected`.
    pub(crate) fn listen(&self, connected: impl Fn(Fd, Port) + 'static) -> io::Result<()> {
        let connected: Connected = Rc::new(connected);
        match self {
            Transport::Vsock => {
                for (number, port) in [(CONTROL_PORT, Port::Control), (STREAM_PORT, Port::Stream)] {
                    let listener = Fd::new(vsock::listen(number)?)?;
                    executor::spawn(accept_vsock(listener, port, Rc::clone(&connected))).detach();
                }
            }
            Transport::Unix(path) => {
                let listener = UnixListener::bind(path)?;
                std::fs::set_permissions(path, PermissionsExt::from_mode(0o600))?;
                executor::spawn(accept_unix(Fd::new(listener)?, connected)).detach();
            }
        }
        Ok(())
    }

    /// Connects to a port of the host.
    pub(crate) async fn connect_to_host(&self, port: u32) -> io::Result<Fd> {
        let (socket, address) = match self {
            Transport::Vsock => (vsock::socket()?, SocketAddress::vsock(vsock::HOST_CONTEXT, port)),
            Transport::Unix(path) => {
                let mut path = path.clone().into_os_string();
                path.push(format!("_{port}"));
                (unix_socket()?, SocketAddress::unix(path)?)
            }
        };
        let socket = Fd::unregistered(socket)?;
        socket.connect(address).await?;
        Ok(socket)
    }
}

fn unix_socket() -> io::Result<OwnedFd> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    Ok(socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?)
}

async fn accept_vsock(listener: Fd, port: Port, connected: Connected) {
    loop {
        let connection = accept(&listener).await;
        match vsock::peer_context(&connection) {
            Ok(vsock::HOST_CONTEXT) => match Fd::new(connection) {
                Ok(connection) => connected(connection, port),
                Err(error) => log::warn!("cannot use a connection: {error}"),
            },
            Ok(context) => log::warn!("a connection from context {context} was refused"),
            Err(error) => log::warn!("a connection from nowhere was refused: {error}"),
        }
    }
}

async fn accept_unix(listener: Fd, connected: Connected) {
    loop {
        let connection = accept(&listener).await;
        let connected = Rc::clone(&connected);
        let greet = async move {
            let connection = Fd::new(connection)?;
            let port = executor::timeout(PATIENCE, greet(&connection)).await;
            if let Some(port) = port.map_err(io::Error::other)?? {
                connected(connection, port);
            }
            io::Result::Ok(())
        };
        executor::spawn(async move {
            if let Err(error) = greet.await {
                log::debug!("a connection did not name its port: {error}");
            }
        })
        .detach();
    }
}

async fn accept(listener: &Fd) -> OwnedFd {
    loop {
        match listener.accept().await {
            Ok(connection) => return connection,
            Err(error) => {
                log::warn!("cannot accept a connection: {error}");
                executor::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Reads the line that names the port and answers it. None: there is no such port.
async fn greet(connection: &Fd) -> io::Result<Option<Port>> {
    let mut line = Vec::with_capacity(MAX_LINE);
    // One by one: what comes after the line belongs to the port.
    while line.last() != Some(&b'\n') {
        let filled = line.len();
        if filled == MAX_LINE {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let (received, slice) =
            connection.recv(line.slice(filled..=filled), RecvFlags::empty()).await;
        line = slice.into_inner();
        if received? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let Some((port, number)) = parse_connect(&line) else {
        return Ok(None);
    };
    let (sent, _) = connection.send(format!("OK {number}\n"), SendFlags::NOSIGNAL).await;
    sent?;
    Ok(Some(port))
}

pub(crate) fn parse_connect(line: &[u8]) -> Option<(Port, u32)> {
    let text = std::str::from_utf8(line).ok()?;
    let number = text.strip_prefix("CONNECT ")?.strip_suffix('\n')?.parse().ok()?;
    Some((Port::from_number(number)?, number))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ports_are_named() {
        assert_eq!(parse_connect(b"CONNECT 8888\n"), Some((Port::Control, 8888)));
        assert_eq!(parse_connect(b"CONNECT 8889\n"), Some((Port::Stream, 8889)));
        for line in ["CONNECT 1\n", "CONNECT 8888", "CONNECT  8888\n", "connect 8888\n", "\n"] {
            assert_eq!(parse_connect(line.as_bytes()), None, "{line:?}");
        }
    }

    proptest! {
        #[test]
        fn any_line_is_read(line: Vec<u8>) {
            let _ = parse_connect(&line);
        }
    }
}
