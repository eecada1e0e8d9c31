//! What can go wrong.

use std::borrow::Cow;
use std::io;
use std::path::PathBuf;

use loadgen::LoadError;
use thiserror::Error;

use crate::error::Hint;

/// Why there are no figures.
#[derive(Debug, Error)]
pub enum BenchError {
    /// The file to work on.
    #[error("cannot use {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Writing destroys what is in it.
    #[error("the workload would overwrite {}", .0.display())]
    WouldOverwrite(PathBuf),
    /// A back end did not come up.
    #[error("{name} does not serve: {reason}")]
    NoService {
        /// Whose.
        name: String,
        /// What it said, or what happened.
        reason: String,
    },
    /// The load failed.
    #[error("the load on {name}")]
    Load {
        /// Which contestant.
        name: String,
        /// Why.
        source: LoadError,
    },
    /// Something of this machine.
    #[error("cannot {doing}")]
    Host {
        /// What was tried.
        doing: &'static str,
        /// Why not.
        source: io::Error,
    },
}

impl BenchError {
    /// There is nothing to take a median of.
    pub(super) fn no_round() -> Self {
        Self::Host { doing: "measure without a round", source: io::ErrorKind::InvalidInput.into() }
    }

    pub(super) fn host(doing: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Host { doing, source }
    }
}

impl Hint for BenchError {
    fn hint(&self) -> Option<Cow<'static, str>> {
        let hint = match self {
            Self::File { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                "`--create 1G` makes it, full of random bytes"
            }
            Self::WouldOverwrite(_) => "say `--overwrite` if nothing in it is of value",
            Self::Load { source: LoadError::NoRun(_), .. } => {
                "run its command by hand: what it says is not shown here"
            }
            Self::NoService { .. } => "run its command by hand to see more of what it says",
            _ => return None,
        };
        Some(hint.into())
    }
}
