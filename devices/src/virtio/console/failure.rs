//! Why a queue cannot go on, and why a console cannot be made.

use std::io;

use thiserror::Error;

use super::{MAX_NAME_BYTES, MAX_PORTS};
use crate::virtio::queue::QueueError;
use crate::virtio::worker::KickError;

/// A driver broke the rules, or the kernel those of eventfds.
#[derive(Debug, Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Queue(#[from] QueueError),
    #[error("chain {head} has {bytes} bytes for a message of {wanted}")]
    ShortBuffer { head: u16, bytes: u32, wanted: usize },
    #[error(transparent)]
    Kick(#[from] KickError),
}

/// What keeps ports from being a console. Each message says what to do.
#[derive(Debug, Error)]
pub enum ConsoleError {
    /// The number of ports is out of range.
    #[error("a console cannot have {count} ports; it takes 1 to {MAX_PORTS}")]
    Ports {
        /// What was asked for.
        count: usize,
    },
    /// A name that a guest could not find the port by.
    #[error(
        "`{name}` is not a name for a port; it takes 1 to {MAX_NAME_BYTES} printable ASCII \
         characters without `/` and spaces"
    )]
    Name {
        /// What was asked for.
        name: String,
    },
    /// The memory for what survives the back end could not be made.
    #[error("cannot make a memory for the state of the console")]
    State {
        /// Why.
        #[source]
        source: io::Error,
    },
}
