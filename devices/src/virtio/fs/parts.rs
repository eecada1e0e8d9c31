//! What a shared directory is made of, on its way to the thread or process that serves it.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use fileserver::{Ids, Ledger};
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{FsBackend, FsOptions, profile, shape};
use crate::virtio::backend::{BackendContext, DeviceProfile};
use crate::virtio::parts::Parts;
use crate::virtio::queue::InflightRegion;

/// A directory that cannot be shared.
#[derive(Debug, Error)]
pub enum FsError {
    /// It cannot be opened.
    #[error("cannot open the directory `{}`", path.display())]
    Open {
        /// The directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The memory that survives its server cannot be made.
    #[error("cannot keep what a driver knows of `{}`", path.display())]
    Ledger {
        /// The directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: fileserver::LedgerError,
    },
    /// There are two directories under one tag, or the tag is none.
    #[error("a tag has 1 to {} bytes, not `{tag}`", FsOptions::MAX_TAG)]
    Tag {
        /// What was asked for.
        tag: String,
    },
}

/// An open directory, what was asked for, and the memory of what the driver knows.
#[derive(Debug, Serialize, Deserialize)]
pub struct FsParts {
    directory: ipc::Fd,
    ledger: ipc::Fd,
    options: FsOptions,
}

impl FsParts {
    /// Opens a directory.
    pub fn open(path: &Path, options: FsOptions) -> Result<Self, FsError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|errno| FsError::Open { path: path.into(), source: errno.into() })?;
        Self::new(directory, options).map_err(|error| match error {
            FsError::Ledger { source, .. } => FsError::Ledger { path: path.into(), source },
            error => error,
        })
    }

    /// Shares a directory that is open.
    pub fn new(directory: OwnedFd, options: FsOptions) -> Result<Self, FsError> {
        if options.tag.is_empty() || options.tag.len() > FsOptions::MAX_TAG {
            return Err(FsError::Tag { tag: options.tag });
        }
        let ledger = Ledger::create(shape(&options))
            .map_err(|source| FsError::Ledger { path: PathBuf::new(), source })?;
        Ok(Self { directory: directory.into(), ledger: ledger.into(), options })
    }
}

impl FsParts {
    /// Whose files are whose.
    pub fn ids(&self) -> &Ids {
        &self.options.ids
    }
}

impl Parts for FsParts {
    fn profile(&self) -> DeviceProfile {
        profile(&self.options)
    }

    fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            directory: self.directory.try_clone()?,
            ledger: self.ledger.try_clone()?,
            options: self.options.clone(),
        })
    }

    async fn run(self, inflight: Option<InflightRegion>, context: BackendContext) {
        let Self { directory, ledger, options } = self;
        let directory = File::from(OwnedFd::from(directory));
        match FsBackend::new(directory, &OwnedFd::from(ledger), options) {
            Ok(backend) => FsBackend { inflight, ..backend }.run(context).await,
            // The transport sees the channel close.
            Err(error) => log::error!("a shared directory cannot be served: {error}"),
        }
    }
}
