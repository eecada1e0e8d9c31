//! Connections into a guest, through the Unix socket that its vsock device listens on.
//!
//! ```text
//!   host ──▶ socket   CONNECT 8888\n
//!   host ◀── socket   OK 1073741824\n        (the host's port)
//! ```

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use executor::{Fd, IoBuf, RecvFlags, SendFlags, SocketAddress};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// The longest answer: `OK 4294967295\n` has 14 bytes.
const MAX_LINE: usize = 32;
/// A guest that lives answers within milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// A guest, by the path of its socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guest {
    path: PathBuf,
}

/// Why there is no connection to a port of a guest.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody listens on the guest's socket.
    #[error("cannot connect to the guest's socket `{}`", path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The connection ended or broke before the answer.
    #[error("nobody in the guest listens on port {port}")]
    Refused {
        /// The port.
        port: u32,
        /// What happened to the connection.
        #[source]
        source: io::Error,
    },
    /// The answer is not one.
    #[error("the guest's socket answered in another language")]
    Answer,
    /// No answer came.
    #[error("the guest did not accept a connection to port {port} in {PATIENCE:?}")]
    TimedOut {
        /// The port.
        port: u32,
    },
}

impl Guest {
    /// The guest behind a socket.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Guest { path: path.into() }
    }

    /// The socket.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The socket to which the guest's connections to a port of the host go.
    pub fn host_port_path(&self, port: u32) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(format!("_{port}"));
        path.into()
    }

    /// Connects to a port.
    pub async fn connect(&self, port: u32) -> Result<Fd, ConnectError> {
        executor::timeout(PATIENCE, self.try_connect(port))
            .await
            .unwrap_or(Err(ConnectError::TimedOut { port }))
    }

    async fn try_connect(&self, port: u32) -> Result<Fd, ConnectError> {
        let unreachable = |source| ConnectError::Socket { path: self.path.clone(), source };
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
            .map_err(|errno| unreachable(errno.into()))?;
        let socket = Fd::new(socket).map_err(unreachable)?;
        let address = SocketAddress::unix(&self.path).map_err(unreachable)?;
        socket.connect(address).await.map_err(unreachable)?;

        let refused = |source| ConnectError::Refused { port, source };
        let (sent, _) = socket.send(format!("CONNECT {port}\n"), SendFlags::NOSIGNAL).await;
        sent.map_err(refused)?;
        let line = receive_line(&socket).await.map_err(refused)?;
        if is_ok(&line) { Ok(socket) } else { Err(ConnectError::Answer) }
    }
}

/// Reads up to the end of the line and no further: what follows belongs to the port.
async fn receive_line(socket: &Fd) -> io::Result<Vec<u8>> {
    let mut line = Vec::with_capacity(MAX_LINE);
    while line.last() != Some(&b'\n') && line.len() < MAX_LINE {
        let filled = line.len();
        let (received, slice) = socket.recv(line.slice(filled..=filled), RecvFlags::empty()).await;
        line = slice.into_inner();
        if received? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(line)
}

/// Whether a line is `OK NUMBER\n`.
pub(crate) fn is_ok(line: &[u8]) -> bool {
    let number = line.strip_prefix(b"OK ").and_then(|rest| rest.strip_suffix(b"\n"));
    number.is_some_and(|digits| !digits.is_empty() && digits.iter().all(u8::is_ascii_digit))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_ok_and_a_number_is_an_acceptance() {
        assert!(is_ok(b"OK 1073741824\n"));
        for line in ["OK\n", "OK \n", "OK 1", "OK x\n", "ok 1\n", "CONNECT 1\n", "\n", ""] {
            assert!(!is_ok(line.as_bytes()), "{line:?}");
        }
    }

    #[test]
    fn ports_of_the_host_are_beside_the_socket() {
        let path = Guest::new("/run/vm.sock").host_port_path(7777);
        assert_eq!(path, Path::new("/run/vm.sock_7777"));
    }

    proptest! {
        #[test]
        fn any_line_is_read(line: Vec<u8>) {
            let _ = is_ok(&line);
        }
    }
}
