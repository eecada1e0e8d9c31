//! The process that serves clients: what it gets, and its life.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use executor::Fd;
use fileserver::{Access, Ids};
use p9::{Acl, Connections, Serving, SessionOptions};
use serde::{Deserialize, Serialize};

use super::vsock;

/// Where clients come from.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Socket {
    /// A socket that listens.
    Listener(ipc::Fd),
    /// One that listens on a vsock, for the guest with this context id alone.
    Guest(ipc::Fd, u32),
    /// The only client there is.
    Client(ipc::Fd),
}

impl Socket {
    pub(super) fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Listener(socket) => Self::Listener(socket.try_clone()?),
            Self::Guest(socket, cid) => Self::Guest(socket.try_clone()?, *cid),
            Self::Client(socket) => Self::Client(socket.try_clone()?),
        })
    }
}

/// How clients are served.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct ClientsOptions {
    pub(super) access: Access,
    pub(super) acl: Acl,
    pub(super) msize: u32,
    pub(super) ids: Ids,
}

/// All that the process works on; one message.
#[derive(Debug, Serialize, Deserialize)]
pub struct ClientsStart {
    pub(super) directory: ipc::Fd,
    pub(super) socket: Socket,
    pub(super) options: ClientsOptions,
}

impl ClientsStart {
    /// Serves until the only client has gone; from a listening socket for ever.
    pub async fn run(self) -> io::Result<()> {
        let Self { directory, socket, options } = self;
        let ClientsOptions { access, acl, msize, ids } = options;
        let options = SessionOptions { msize, acl };
        let connections =
            Connections::new(Serving { directory: directory.into(), access, ids, options });
        match socket {
            Socket::Listener(listener) => {
                connections.accept(&Fd::new(OwnedFd::from(listener))?, |_| Ok(())).await;
            }
            Socket::Guest(listener, cid) => {
                let listener = Fd::new(OwnedFd::from(listener))?;
                let check = |socket: BorrowedFd<'_>| match vsock::peer(socket)? {
                    peer if peer == cid => Ok(()),
                    peer => Err(io::Error::other(format!("context id {peer} is not {cid}"))),
                };
                connections.accept(&listener, check).await;
            }
            Socket::Client(client) => {
                connections.add(client.into());
                connections.wait().await;
            }
        }
        Ok(())
    }
}
