//! A device of our machines whose back end is another program.
//!
//! ```text
//!   transport ── BackendRequest ──► session ── messages on a socket ──► the other program
//!                                    │  ▲                                   │
//!                    keeps rings, record of what is in flight               │
//!                                    │  └──── the connection ends ──────────┘
//!                                    └──► connects again, as long as it takes, and hands all of it over
//!
//!   guest ──kick──► eventfd ──► the other program ──interrupt──► irqfd ──► guest
//! ```
//!
//! Whoever serves a device so sees all of the guest's memory. What it says is untrusted all the same.

mod failure;
mod profile;
mod rings;
mod session;

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipc::Fd;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use self::session::Session;
use super::front_end::{FrontEnd, FrontEndError};
use crate::virtio::backend::{BackendContext, DeviceProfile};
use crate::virtio::net::MacAddress;
use crate::virtio::parts::Parts;
use crate::virtio::queue::InflightRegion;

/// How long the other program may take for an answer: less than a driver's vCPU waits for a reset.
const PATIENCE: Duration = Duration::from_secs(4);

/// What kind of device it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RemoteKind {
    /// A disk.
    Blk,
    /// A network.
    Net,
    /// A file system.
    Fs,
    /// Sockets.
    Vsock,
    /// A source of entropy.
    Rng,
    /// A console, or ports with names.
    Console,
}

impl RemoteKind {
    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Blk => "blk",
            Self::Net => "net",
            Self::Fs => "fs",
            Self::Vsock => "vsock",
            Self::Rng => "rng",
            Self::Console => "console",
        }
    }
}

/// What is wanted of a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteOptions {
    /// What it is.
    pub kind: RemoteKind,
    /// Where its back end listens.
    pub socket: PathBuf,
    /// Queues for requests, where a kind can have several; fewer if the back end has fewer.
    pub queues: u16,
    /// What a file system is mounted by, if its back end does not say that.
    pub tag: Option<String>,
    /// The address of a network whose back end has none.
    pub mac: Option<MacAddress>,
}

/// Why there is no such device.
#[derive(Debug, Error)]
pub enum RemoteError {
    /// Nobody listens.
    #[error("cannot connect to `{}`", socket.display())]
    Connect {
        /// Where.
        socket: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Whoever listens does not speak the protocol, or not long.
    #[error("the back end at `{}` cannot be used", socket.display())]
    FrontEnd {
        /// Where.
        socket: PathBuf,
        /// Why not.
        #[source]
        source: FrontEndError,
    },
    /// It is not what is wanted.
    #[error("the back end at `{}` {problem}", socket.display())]
    Unfit {
        /// Where.
        socket: PathBuf,
        /// What is wrong.
        problem: &'static str,
    },
    /// There is no random address for a network.
    #[error("cannot make up a MAC address")]
    Mac(#[source] io::Error),
}

/// A device that was asked what it is.
#[derive(Debug, Serialize, Deserialize)]
pub struct RemoteParts {
    options: RemoteOptions,
    profile: DeviceProfile,
    /// The connection by which it was asked: some back ends end with their first one.
    connection: Option<Open>,
}

/// A connection and what was agreed on it.
#[derive(Debug, Serialize, Deserialize)]
struct Open {
    socket: Fd,
    agreed: u64,
}

impl RemoteParts {
    /// Connects to the back end, which has to be there, and asks what it is.
    pub fn open(options: RemoteOptions) -> Result<Self, RemoteError> {
        let path = || options.socket.clone();
        let socket = connect(&options.socket)
            .map_err(|source| RemoteError::Connect { socket: path(), source })?;
        let front_end = FrontEnd::with_patience(socket, PATIENCE);
        let asked = front_end.and_then(|mut front_end| {
            let offer = profile::ask(&mut front_end, options.kind)?;
            Ok((front_end, offer))
        });
        let (front_end, offer) =
            asked.map_err(|source| RemoteError::FrontEnd { socket: path(), source })?;
        let profile = profile::of(&options, offer)?;
        let agreed = front_end.agreed();
        let socket = OwnedFd::from(front_end.into_socket()).into();
        Ok(Self { options, profile, connection: Some(Open { socket, agreed }) })
    }

    /// What was asked for.
    pub fn options(&self) -> &RemoteOptions {
        &self.options
    }
}

impl Parts for RemoteParts {
    fn profile(&self) -> DeviceProfile {
        self.profile.clone()
    }

    /// Without the connection, which must end when whoever has it lets go of it.
    fn try_clone(&self) -> io::Result<Self> {
        let (options, profile) = (self.options.clone(), self.profile.clone());
        Ok(Self { options, profile, connection: None })
    }

    /// The other program keeps its own record of what is in flight.
    async fn run(self, _: Option<InflightRegion>, context: BackendContext) {
        let Self { options, profile, connection } = self;
        let front_end = connection
            .map(|Open { socket, agreed }| FrontEnd::resume(OwnedFd::from(socket).into(), agreed));
        Session::new(options, profile, context, front_end).run().await;
    }
}

/// A connection with whoever listens there. Does not wait: a queue that is full counts as nobody.
fn connect(path: &Path) -> io::Result<UnixStream> {
    let address = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    loop {
        match rustix::net::connect(&socket, &address) {
            Ok(()) => break,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    let socket = UnixStream::from(socket);
    socket.set_nonblocking(false)?;
    Ok(socket)
}
