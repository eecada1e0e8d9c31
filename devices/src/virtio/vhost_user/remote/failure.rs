//! Why rings are not served.

use std::io;

use thiserror::Error;

use super::super::front_end::FrontEndError;
use super::RemoteError;

/// The back end is no longer there, or not the one that the driver found.
#[derive(Debug, Error)]
pub(super) enum Failure {
    #[error(transparent)]
    FrontEnd(#[from] FrontEndError),
    #[error("it does not offer what the driver uses: features {0:#x}")]
    Features(u64),
    #[error("it has {0} queues, fewer than the driver found")]
    Queues(usize),
    #[error("queue {0}: its rings are not in the guest's memory")]
    NoMemory(u16),
    #[error(transparent)]
    Remote(#[from] RemoteError),
    #[error(transparent)]
    System(#[from] io::Error),
}
