//! What keeps a directory from being served.

use std::borrow::Cow;
use std::io;
use std::path::PathBuf;

use ipc::SendError;

use crate::control::SocketError;
use crate::error::Hint;
use crate::outcome;
use crate::warden::WardenError;

/// Why a directory is not served, or not any more.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be opened.
    #[error("cannot share the directory `{}`", path.display())]
    Root {
        /// The directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The socket cannot be made.
    #[error("cannot listen for clients")]
    Socket(#[source] SocketError),
    /// There is no such port, or no vsock.
    #[error("cannot listen on port {port} of this host's vsock")]
    Vsock {
        /// The port.
        port: u32,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A descriptor that is to be inherited is none, or no socket.
    #[error("descriptor {descriptor} is no socket")]
    NotSocket {
        /// Its number.
        descriptor: i32,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Something that this host has to offer.
    #[error("cannot {doing}")]
    Host {
        /// What was tried.
        doing: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// There is no sandbox.
    #[error(transparent)]
    Warden(#[from] WardenError),
    /// There is no process in it.
    #[error("cannot serve files in a sandbox: {0}")]
    Sandbox(String),
    /// The process cannot be told what to do.
    #[error("cannot hand the directory to its process")]
    Start(#[source] SendError),
    /// The process died.
    #[error("the process that serves the files ended: {0}")]
    Died(String),
    /// The process that makes sandboxes is gone.
    #[error("the process that watches over the files' server died")]
    WardenDied,
}

impl Error {
    pub(super) fn host(doing: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Host { doing, source }
    }

    pub(super) fn executor(doing: &'static str) -> impl Fn(executor::Error) -> Self {
        move |error| Self::Host { doing, source: io::Error::other(error) }
    }
}

impl Hint for Error {
    fn hint(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Socket(error) => error.hint(),
            Self::Vsock { source, .. } if source.raw_os_error() == Some(libc::EAFNOSUPPORT) => {
                let words = "load the module `vhost_vsock`; the guest of a `vmm run --vsock path=PATH` needs none: it \
                             connects to `--socket PATH_PORT`";
                Some(words.into())
            }
            Self::Sandbox(_) | Self::Warden(_) => {
                Some("`vmm doctor` says what the sandbox lacks".into())
            }
            Self::NotSocket { .. } => {
                Some("start vmm with the socket open at that number, and not closed on exec".into())
            }
            _ => None,
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Died(_) | Self::WardenDied => outcome::CRASH,
            _ => outcome::BAD_INPUT,
        }
    }
}
