//! What a directory over 9P is made of, on its way to the thread or process that serves it.

use std::io;
use std::os::fd::OwnedFd;

use fileserver::{Ids, Ledger};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{P9Backend, P9Options, profile, shape};
use crate::virtio::backend::{BackendContext, DeviceProfile};
use crate::virtio::parts::Parts;
use crate::virtio::queue::InflightRegion;

/// A directory that cannot be shared.
#[derive(Debug, Error)]
pub enum P9Error {
    /// The memory that survives its server cannot be made.
    #[error("cannot keep what a driver knows of the directory")]
    Ledger(#[source] fileserver::LedgerError),
    /// The tag is none.
    #[error("a tag has 1 to {} bytes, not `{tag}`", P9Options::MAX_TAG)]
    Tag {
        /// What was asked for.
        tag: String,
    },
}

/// An open directory, what was asked for, and the memory of what the driver knows.
#[derive(Debug, Serialize, Deserialize)]
pub struct P9Parts {
    directory: ipc::Fd,
    ledger: ipc::Fd,
    options: P9Options,
}

impl P9Parts {
    /// Shares a directory that is open; `O_PATH` will do.
    pub fn new(directory: OwnedFd, options: P9Options) -> Result<Self, P9Error> {
        if options.tag.is_empty() || options.tag.len() > P9Options::MAX_TAG {
            return Err(P9Error::Tag { tag: options.tag });
        }
        let ledger = Ledger::create(shape()).map_err(P9Error::Ledger)?;
        Ok(Self { directory: directory.into(), ledger: ledger.into(), options })
    }

    /// Whose files are whose.
    pub fn ids(&self) -> &Ids {
        &self.options.ids
    }
}

impl Parts for P9Parts {
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
        match P9Backend::new(directory.into(), &OwnedFd::from(ledger), &options) {
            Ok(backend) => P9Backend { inflight, ..backend }.run(context).await,
            // The transport sees the channel close.
            Err(error) => log::error!("a directory cannot be served over 9P: {error}"),
        }
    }
}
