//! Reply ports: the way back for one answer, carried inside the request.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Message;
use crate::oneshot::Port;

/// A one-shot port for the answer to one request. It travels inside the request, like any field.
///
/// Dropping it unanswered tells the caller [`CallError::Refused`](crate::CallError::Refused).
#[must_use = "the caller waits for an answer; dropping the port refuses the request"]
pub struct Reply<R: Message> {
    port: Port<R>,
}

impl<R: Message> Reply<R> {
    pub(crate) fn new(port: Port<R>) -> Self {
        Self { port }
    }

    /// Answers the request. Does nothing when the caller has stopped waiting.
    pub fn send(self, answer: R) {
        self.port.answer(answer);
    }
}

impl<R: Message> fmt::Debug for Reply<R> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Reply")
    }
}

impl<R: Message> Serialize for Reply<R> {
    fn serialize<S: Serializer>(&self, _serializer: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom(
            "a reply port crosses only inside a message on a link",
        ))
    }
}

impl<'de, R: Message> Deserialize<'de> for Reply<R> {
    fn deserialize<D: Deserializer<'de>>(_deserializer: D) -> Result<Self, D::Error> {
        Err(serde::de::Error::custom(
            "a reply port crosses only inside a message on a link",
        ))
    }
}
