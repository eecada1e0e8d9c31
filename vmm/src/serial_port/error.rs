//! Why there is no serial port.

use std::borrow::Cow;
use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::error::Hint;

/// Why there is no serial port.
#[derive(Debug, Error)]
pub enum Error {
    /// The output file cannot be made.
    #[error("cannot write the serial port's file `{path}`", path = .path.display())]
    Create {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The socket cannot be made.
    #[error("cannot listen on the serial port's socket `{path}`", path = .path.display())]
    Listen {
        /// The socket.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// There is no new pseudo-terminal.
    #[error("cannot make a pseudo-terminal for the serial port")]
    Pty(#[source] io::Error),
    /// Standard input or output cannot be used.
    #[error("cannot use standard input and output for the serial port")]
    Stdio(#[source] io::Error),
    /// The terminal refuses its modes.
    #[error("cannot make the terminal raw for the serial port")]
    Terminal(#[source] io::Error),
    /// The executor cannot take the file.
    #[error("cannot wait for the serial port's host end")]
    Attach(#[source] io::Error),
}

impl Hint for Error {
    fn hint(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Create { source, .. } | Self::Listen { source, .. }
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                Some("choose a folder that you may write".into())
            }
            Self::Listen { source, .. } if source.kind() == io::ErrorKind::AddrInUse => {
                Some("another process listens there; choose another path, or end it".into())
            }
            Self::Pty(_) => Some("is /dev/pts mounted? `--serial file=PATH` works without".into()),
            Self::Terminal(_) => Some("`--serial null` or `</dev/null` leaves it alone".into()),
            _ => None,
        }
    }
}
