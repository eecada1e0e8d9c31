//! What a shared directory is made of, on its way to the thread or process that serves it.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use fileserver::{Ids, Ledger};
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{FsBackend, FsOptions, profile, shape};
use crate::virtio::backend::{BackendContext, DeviceProfile};
use crate::virtio::control::{Change, SharedDirectory};
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
    root: Root,
    ledger: ipc::Fd,
    options: FsOptions,
}

/// What the driver finds in the root.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Root {
    /// What is in a directory.
    Directory(ipc::Fd),
    /// Directories that were shared one by one. A place of one that is not shared any more stays empty:
    /// what the ledger has of it must not be taken for another's.
    Grants(Vec<Option<SharedDirectory>>),
}

impl Root {
    fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Directory(directory) => Self::Directory(directory.try_clone()?),
            Self::Grants(grants) => Self::Grants(grants.clone()),
        })
    }
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
        Self::of(Root::Directory(directory.into()), options)
    }

    /// Shares nothing yet.
    pub fn empty(options: FsOptions) -> Result<Self, FsError> {
        Self::of(Root::Grants(Vec::new()), options)
    }

    fn of(root: Root, options: FsOptions) -> Result<Self, FsError> {
        if options.tag.is_empty() || options.tag.len() > FsOptions::MAX_TAG {
            return Err(FsError::Tag { tag: options.tag });
        }
        let ledger = Ledger::create(shape(&options))
            .map_err(|source| FsError::Ledger { path: PathBuf::new(), source })?;
        Ok(Self { root, ledger: ledger.into(), options })
    }
}

impl FsParts {
    /// Whether directories come and go in it.
    pub fn takes_grants(&self) -> bool {
        matches!(self.root, Root::Grants(_))
    }

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
            root: self.root.try_clone()?,
            ledger: self.ledger.try_clone()?,
            options: self.options.clone(),
        })
    }

    fn remember(&mut self, change: &Change) {
        let Root::Grants(grants) = &mut self.root else { return };
        match change {
            // Shared once more is shared already.
            Change::Share(new) if grants.iter().flatten().any(|old| old.name == new.name) => {}
            Change::Share(new) => grants.push(Some(new.clone())),
            Change::Unshare { name } => {
                for place in grants.iter_mut() {
                    if place.as_ref().is_some_and(|shared| shared.name == *name) {
                        *place = None;
                    }
                }
            }
            _ => {}
        }
    }

    async fn run(self, inflight: Option<InflightRegion>, context: BackendContext) {
        let Self { root, ledger, options } = self;
        match FsBackend::new(root, &OwnedFd::from(ledger), options) {
            Ok(backend) => FsBackend { inflight, ..backend }.run(context).await,
            // The transport sees the channel close.
            Err(error) => log::error!("a shared directory cannot be served: {error}"),
        }
    }
}
