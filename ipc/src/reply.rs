//! Reply ports: the way back for one answer, carried inside the request.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::codec::{self, Outgoing};
use crate::link::handle::{Handle, RemotePort};
use crate::oneshot::{Port, Waiting, oneshot};
use crate::{CallError, Message};

/// A one-shot port for the answer to one request. It travels inside the request, like any field.
///
/// Dropping it unanswered tells the caller [`CallError::Refused`](crate::CallError::Refused).
#[must_use = "the caller waits for an answer; dropping the port refuses the request"]
pub struct Reply<R> {
    port: Kind<R>,
}

enum Kind<R> {
    /// The caller is in this process.
    Local(Port<R>),
    /// The caller is at the other end of a link.
    Remote(RemotePort),
}

/// Where the answer to a request arrives, for those who can wait neither as a task nor as a thread.
pub struct Answer<R> {
    waiting: Waiting<R>,
}

impl<R: Message> Answer<R> {
    /// The answer, if it is there, or that there will be none.
    pub fn try_take(&mut self) -> Option<Result<R, CallError>> {
        self.waiting.try_take()
    }
}

impl<R> fmt::Debug for Answer<R> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Answer")
    }
}

impl<R: Message> Reply<R> {
    /// A port for a request of one's own making, and where its answer arrives.
    pub fn pair() -> (Self, Answer<R>) {
        let (port, waiting) = oneshot();
        (Self::new(port), Answer { waiting })
    }

    pub(crate) fn new(port: Port<R>) -> Self {
        Self { port: Kind::Local(port) }
    }

    /// Answers the request. Does nothing when the caller has stopped waiting.
    pub fn send(self, answer: R) {
        match self.port {
            Kind::Local(port) => port.answer(answer),
            Kind::Remote(port) => port.answer(&answer),
        }
    }
}

impl<R> fmt::Debug for Reply<R> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Reply")
    }
}

impl<R: Message> Serialize for Reply<R> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        codec::depart(serializer, || match &self.port {
            Kind::Local(port) => {
                let shared = Arc::clone(port.shared());
                Ok(Outgoing::Port(shared))
            }
            Kind::Remote(_) => Err(codec::Refusal::ForeignHandle),
        })
    }
}

impl<'de, R: Message> Deserialize<'de> for Reply<R> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        codec::arrive(deserializer, |core, handle, _| match handle {
            Handle::Reply(slot) => Ok(Self { port: Kind::Remote(RemotePort::new(core, slot)) }),
            _ => Err("a reply port was expected and another handle came"),
        })
    }
}
