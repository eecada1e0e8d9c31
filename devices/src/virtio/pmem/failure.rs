//! Why a queue cannot go on.

use thiserror::Error;

use crate::virtio::queue::QueueError;
use crate::virtio::worker::KickError;

/// A driver broke the rules, or the kernel those of eventfds.
#[derive(Debug, Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Queue(#[from] QueueError),
    #[error("chain {head} has no room for the answer to a request")]
    NoAnswer { head: u16 },
    #[error(transparent)]
    Kick(#[from] KickError),
}
