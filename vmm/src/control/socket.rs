//! The socket in the file system, and who may connect to it.

use std::borrow::Cow;
use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::process::geteuid;

use super::protocol::Refusal;
use crate::error::Hint;
use crate::serial_port::{SocketFile, remove_stale};

/// The control socket cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on the socket `{path}`", path = .path.display())]
pub struct SocketError {
    path: PathBuf,
    source: io::Error,
}

impl Hint for SocketError {
    fn hint(&self) -> Option<Cow<'static, str>> {
        match self.source.kind() {
            io::ErrorKind::AddrInUse => Some(
                "another machine listens there, or it is no socket: choose another path".into(),
            ),
            io::ErrorKind::PermissionDenied => Some("choose a folder that you may write".into()),
            _ => None,
        }
    }
}

/// A socket that listens. Its file goes with it.
#[derive(Debug)]
pub struct ControlSocket {
    pub(super) listener: OwnedFd,
    pub(super) file: SocketFile,
}

impl ControlSocket {
    /// Makes it, for the owner alone. Call it with one thread: the mode comes from the umask.
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        let failed = |source| SocketError { path: path.to_owned(), source };
        remove_stale(path).map_err(failed)?;
        // Nobody else may connect even between these calls.
        let before = rustix::process::umask(Mode::RWXG | Mode::RWXO | Mode::XUSR);
        let bound = UnixListener::bind(path);
        rustix::process::umask(before);
        let listener = bound.map_err(failed)?;
        let file = SocketFile::new(path.to_owned());
        fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(failed)?;
        Ok(Self { listener: listener.into(), file })
    }

    /// The socket once more, for somebody else to accept on.
    pub fn try_clone_listener(&self) -> io::Result<OwnedFd> {
        self.listener.try_clone()
    }
}

/// Whether the process at the other end may control this machine.
pub(super) fn check_peer(connection: impl AsFd) -> Result<(), Refusal> {
    let peer = rustix::net::sockopt::socket_peercred(connection)
        .map_err(|error| Refusal::new(format!("the system does not say who you are: {error}")))?;
    let owner = geteuid();
    if peer.uid == owner || peer.uid.is_root() {
        return Ok(());
    }
    let (you, owner) = (peer.uid.as_raw(), owner.as_raw());
    Err(Refusal::new(format!("user {you} may not control a machine of user {owner}"))
        .hint("only its owner and root may"))
}
