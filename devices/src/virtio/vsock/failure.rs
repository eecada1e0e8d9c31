//! Why a device cannot go on.

use thiserror::Error;

use crate::virtio::queue::QueueError;
use crate::virtio::worker::KickError;

/// A driver broke the rules of queues, or the kernel those of eventfds.
#[derive(Debug, Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Queue(#[from] QueueError),
    #[error("chain {head} has {bytes} bytes to receive into, no more than a header")]
    ShortBuffer { head: u16, bytes: u32 },
    #[error("chain {head} has {bytes} bytes for an event, too few")]
    ShortEvent { head: u16, bytes: u32 },
    #[error(transparent)]
    Kick(#[from] KickError),
}
