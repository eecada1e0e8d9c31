//! What can go wrong between the two ends of a channel.

use thiserror::Error;

/// A message could not be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SendError {
    /// The receiver is gone in good order.
    #[error("the receiver of the channel is gone")]
    Closed,
    /// The process that held the receiver died or broke the protocol.
    #[error("the process at the other end of the channel died")]
    PeerDied,
    /// The channel stayed full until the deadline.
    #[error("the channel stayed full until the deadline")]
    TimedOut,
    /// The message can never cross to the other process.
    #[error("the message cannot cross to the other process: {0}")]
    Unsendable(#[from] Unsendable),
}

/// Why a message can not cross to another process, however long one waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Unsendable {
    /// The encoded form is larger than the ring of the channel.
    #[error("its encoded form is larger than the ring of the channel")]
    TooLarge,
    /// Serialization itself failed.
    #[error("it does not serialize")]
    Encoding,
    /// More handles (fds, reply ports, channel ends) than one frame carries.
    #[error("it carries more handles than one frame can")]
    TooManyHandles,
    /// A handle inside it leads to a third process; links do not relay.
    #[error("it carries a handle that belongs to another link")]
    ForeignHandle,
    /// A file descriptor could not be duplicated or passed.
    #[error("a file descriptor in it cannot be passed")]
    Descriptor,
    /// The shared memory of the link has no room for the channel whose end is inside.
    #[error("the link has no room for the channel whose end it carries")]
    NoRoom,
}

/// A message could not be queued at once. It comes back where that is of use.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum TrySendError<T> {
    /// The channel is full.
    #[error("the channel is full")]
    Full(T),
    /// The receiver is gone in good order.
    #[error("the receiver of the channel is gone")]
    Closed(T),
    /// The process that held the receiver died or broke the protocol.
    #[error("the process at the other end of the channel died")]
    PeerDied(T),
    /// The message can never cross to the other process.
    #[error("the message cannot cross to the other process: {0}")]
    Unsendable(Unsendable),
}

/// Nothing will be received any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RecvError {
    /// All senders are gone in good order.
    #[error("all senders of the channel are gone")]
    Closed,
    /// The process that held the last sender died or broke the protocol.
    #[error("the process at the other end of the channel died")]
    PeerDied,
}

/// Nothing was received at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TryRecvError {
    /// Nothing is there now.
    #[error("the channel is empty")]
    Empty,
    /// All senders are gone in good order.
    #[error("all senders of the channel are gone")]
    Closed,
    /// The process that held the last sender died or broke the protocol.
    #[error("the process at the other end of the channel died")]
    PeerDied,
}

/// Nothing was received until the deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RecvBlockingError {
    /// Nothing came until the deadline.
    #[error("nothing was received until the deadline")]
    TimedOut,
    /// All senders are gone in good order.
    #[error("all senders of the channel are gone")]
    Closed,
    /// The process that held the last sender died or broke the protocol.
    #[error("the process at the other end of the channel died")]
    PeerDied,
}

/// A call got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CallError {
    /// The process at the other end died or broke the protocol.
    #[error("the process that was called died")]
    PeerDied,
    /// No answer came until the deadline.
    #[error("no answer came until the deadline")]
    TimedOut,
    /// The receiver of the request is gone in good order.
    #[error("the actor that was called is gone")]
    Closed,
    /// The request was taken and its reply port dropped unanswered, or the request or its answer
    /// can not cross to the other process.
    #[error("the actor that was called did not answer the request")]
    Refused,
}

impl From<RecvError> for TryRecvError {
    fn from(error: RecvError) -> Self {
        match error {
            RecvError::Closed => Self::Closed,
            RecvError::PeerDied => Self::PeerDied,
        }
    }
}

impl From<RecvError> for RecvBlockingError {
    fn from(error: RecvError) -> Self {
        match error {
            RecvError::Closed => Self::Closed,
            RecvError::PeerDied => Self::PeerDied,
        }
    }
}

impl From<SendError> for CallError {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Closed => Self::Closed,
            SendError::PeerDied => Self::PeerDied,
            SendError::TimedOut => Self::TimedOut,
            SendError::Unsendable(_) => Self::Refused,
        }
    }
}
