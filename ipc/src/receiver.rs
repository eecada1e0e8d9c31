//! The receiving end of a channel.

use std::fmt;
use std::future::poll_fn;
use std::task::{Context, Poll};

use crate::error::{RecvBlockingError, RecvError, TryRecvError};
use crate::queue::Consumer;
use crate::{Deadline, Message, spin};

/// The receiving end of a channel. There is exactly one.
pub struct Receiver<T: Message> {
    consumer: Consumer<T>,
}

impl<T: Message> Receiver<T> {
    pub(crate) fn new(consumer: Consumer<T>) -> Self {
        Self { consumer }
    }

    /// Takes the oldest message if one is there.
    pub fn try_recv(&mut self) -> Result<T, TryRecvError> {
        if let Some(message) = self.consumer.try_pop() {
            return Ok(message);
        }
        if self.consumer.is_finished() {
            Err(TryRecvError::Closed)
        } else {
            Err(TryRecvError::Empty)
        }
    }

    /// Waits for the next message. Dropping the future loses nothing.
    pub async fn recv(&mut self) -> Result<T, RecvError> {
        poll_fn(|context| self.poll_recv(context)).await
    }

    /// One poll of [`Receiver::recv`], for actors that wait on several things by hand.
    pub fn poll_recv(&mut self, context: &mut Context<'_>) -> Poll<Result<T, RecvError>> {
        self.consumer
            .poll_pop(context)
            .map(|message| message.ok_or(RecvError::Closed))
    }

    /// Waits for the next message on a thread without an executor: it looks for a moment and then
    /// sleeps.
    pub fn recv_blocking(&mut self, deadline: Deadline) -> Result<T, RecvBlockingError> {
        let found = spin::look(|| match self.try_recv() {
            Err(TryRecvError::Empty) => None,
            other => Some(other),
        });
        match found {
            Some(Ok(message)) => return Ok(message),
            Some(Err(TryRecvError::PeerDied)) => return Err(RecvBlockingError::PeerDied),
            Some(Err(_)) => return Err(RecvBlockingError::Closed),
            None => {}
        }
        spin::block_until(deadline, |context| self.poll_recv(context))
            .map_or(Err(RecvBlockingError::TimedOut), |received| {
                received.map_err(Into::into)
            })
    }
}

impl<T: Message> fmt::Debug for Receiver<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Receiver")
            .field("capacity", &self.consumer.queue().capacity())
            .finish()
    }
}
