//! Why a queue cannot go on.

use thiserror::Error;

use crate::virtio::queue::QueueError;
use crate::virtio::worker::KickError;

/// A driver broke the rules, or the kernel those of eventfds.
#[derive(Debug, Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Queue(#[from] QueueError),
    #[error("chain {head} has {bytes} bytes to receive into, less than a header")]
    ShortBuffer { head: u16, bytes: u32 },
    #[error("{pieces} pieces of receive buffers hold only {bytes} bytes")]
    Scattered { pieces: usize, bytes: u32 },
    #[error("chain {head} has no byte for the answer to a command")]
    NoAck { head: u16 },
    #[error(transparent)]
    Kick(#[from] KickError),
}
