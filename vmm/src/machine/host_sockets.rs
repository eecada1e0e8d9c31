//! The host's side of a vsock device: what needs the right to make sockets, which the device's
//! process does not have.
//!
//! ```text
//!   made here before any sandbox:   PATH and PATH.seqpacket, listening ──► device
//!   while the machine runs:         device ── ConnectRequest ──► here ── PATH_port ──► device
//! ```

use std::borrow::Cow;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use devices::virtio::parts::DeviceParts;
use devices::virtio::vsock::{
    ConnectRequest, Refused, SocketKind, VsockError, VsockOptions, VsockParts,
};
use executor::{Either, Instant, select};
use ipc::Receiver;
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::Error;
use super::backends::OpenDevice;
use crate::config::VsockConfig;

/// Requests that the device has sent and that were not looked at.
const REQUEST_CAPACITY: usize = 64;
/// Requests that wait for a program which is slow to accept; more wait in the channel.
const MOST_WAITING: usize = 256;
/// For how long a request waits for such a program. Linux gives up after two seconds.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often it is tried meanwhile: nothing tells when a listening Unix socket has room again.
const AGAIN: Duration = Duration::from_millis(5);
/// Connections that wait to be accepted; the kernel has a limit of its own.
const BACKLOG: i32 = 4096;

/// Why there is no vsock device.
#[derive(Debug, thiserror::Error)]
pub enum HostSocketError {
    /// A program listens there.
    #[error("another program listens on `{path}`", path = .path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// The socket cannot be made.
    #[error("cannot listen on `{path}`", path = .path.display())]
    Listen {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The device cannot be made.
    #[error(transparent)]
    Device(#[from] VsockError),
}

impl HostSocketError {
    /// What to do.
    pub fn hint(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::InUse { .. } => Some("give each machine a socket of its own".into()),
            Self::Listen { source, path } if source.kind() == io::ErrorKind::AddrInUse => Some(
                format!("`{}` is no socket; remove it or name another path", path.display()).into(),
            ),
            _ => None,
        }
    }
}

/// The host's side of one device.
#[derive(Debug)]
pub(super) struct HostSockets {
    config: VsockConfig,
    requests: Receiver<ConnectRequest>,
    _files: [SocketFile; 2],
}

/// A socket in the file system; it goes with this.
#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Somebody else may have removed it already.
        let _ = fs::remove_file(&self.0);
    }
}

/// Makes what the device stands on.
pub(super) fn open(config: &VsockConfig) -> Result<(OpenDevice, HostSockets), Error> {
    let (stream, stream_file) = listen(config.path.clone(), SocketType::STREAM)?;
    let (seqpacket, seqpacket_file) = listen(config.seqpacket_path(), SocketType::SEQPACKET)?;
    let (connects, requests) = ipc::channel(REQUEST_CAPACITY);
    let options = VsockOptions {
        connections: config.connections.get(),
        ..VsockOptions::new(config.cid.get())
    };
    let parts =
        VsockParts::new(options, stream, seqpacket, connects).map_err(HostSocketError::Device)?;
    let name = format!("vsock {}", config.path.display());
    let files = [stream_file, seqpacket_file];
    let sockets = HostSockets { config: config.clone(), requests, _files: files };
    Ok((OpenDevice::new(name, DeviceParts::Vsock(parts)), sockets))
}

fn listen(path: PathBuf, kind: SocketType) -> Result<(OwnedFd, SocketFile), HostSocketError> {
    if is_socket(&path) {
        match connect(&path, kind) {
            // A machine that was killed left it.
            Err(Errno::CONNREFUSED) => drop(fs::remove_file(&path)),
            _ => return Err(HostSocketError::InUse { path }),
        }
    }
    let failed =
        |error: Errno| HostSocketError::Listen { path: path.clone(), source: error.into() };
    let socket = socket(kind).map_err(failed)?;
    let address = SocketAddrUnix::new(&path).map_err(failed)?;
    rustix::net::bind(&socket, &address).map_err(failed)?;
    let file = SocketFile(path.clone());
    // Nobody can connect before it listens.
    rustix::fs::chmod(&path, Mode::RUSR | Mode::WUSR).map_err(failed)?;
    rustix::net::listen(&socket, BACKLOG).map_err(failed)?;
    Ok((socket, file))
}

fn is_socket(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
}

fn socket(kind: SocketType) -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(AddressFamily::UNIX, kind, flags, None)
}

fn connect(path: &Path, kind: SocketType) -> rustix::io::Result<OwnedFd> {
    let socket = socket(kind)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

/// A request that waits for a program.
struct Waiting {
    request: ConnectRequest,
    until: Instant,
}

impl HostSockets {
    /// Connects for the device until the machine ends; then the sockets are removed.
    pub(super) async fn serve(mut self) {
        let mut waiting: Vec<Waiting> = Vec::new();
        loop {
            let happened = {
                let room = MOST_WAITING - waiting.len();
                let next = next(&mut self.requests, room);
                let again = pause(waiting.len());
                select(pin!(next), pin!(again)).await
            };
            match happened {
                Either::Left(request) => {
                    let until = executor::now() + PATIENCE;
                    waiting.extend(self.try_once(Waiting { request, until }));
                }
                Either::Right(()) => {
                    let attempts = std::mem::take(&mut waiting);
                    waiting.extend(attempts.into_iter().filter_map(|one| self.try_once(one)));
                }
            }
        }
    }

    /// Answers a request, unless the program there is slow to accept.
    fn try_once(&self, waiting: Waiting) -> Option<Waiting> {
        let ConnectRequest { port, kind, .. } = waiting.request;
        let path = self.config.port_path(port);
        let kind = match kind {
            SocketKind::Stream => SocketType::STREAM,
            SocketKind::Seqpacket => SocketType::SEQPACKET,
        };
        let answer = match connect(&path, kind) {
            Err(Errno::AGAIN) if executor::now() < waiting.until => return Some(waiting),
            Ok(socket) => Ok(socket.into()),
            Err(error) => {
                log::debug!("vsock: nobody takes connections on `{}`: {error}", path.display());
                Err(Refused)
            }
        };
        waiting.request.reply.send(answer);
        None
    }
}

/// The next request, if there is room for one that waits.
async fn next(requests: &mut Receiver<ConnectRequest>, room: usize) -> ConnectRequest {
    if room > 0
        && let Ok(request) = requests.recv().await
    {
        return request;
    }
    std::future::pending().await
}

/// Until it is time to try again, if anything waits for that.
async fn pause(waiting: usize) {
    if waiting > 0 {
        executor::sleep(AGAIN).await;
    } else {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests;
