//! The sending end of a channel.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::error::{CallError, SendError, TrySendError};
use crate::oneshot::oneshot;
use crate::queue::{PushError, Queue};
use crate::waiters::Ticket;
use crate::{Deadline, Message, Reply, spin, timer};

/// The sending end of a channel. Clones send to the same receiver.
pub struct Sender<T: Message> {
    queue: Arc<Queue<T>>,
}

impl<T: Message> Sender<T> {
    pub(crate) fn new(queue: Arc<Queue<T>>) -> Self {
        Self { queue }
    }

    /// Sends if there is room now.
    pub fn try_send(&self, message: T) -> Result<(), TrySendError<T>> {
        self.queue.try_push(message).map_err(|error| match error {
            PushError::Full(message) => TrySendError::Full(message),
            PushError::Closed(message) | PushError::Moved(message) => TrySendError::Closed(message),
        })
    }

    /// Sends, waiting for room while the channel is full.
    pub async fn send(&self, message: T) -> Result<(), SendError> {
        let mut sending = Sending {
            sender: self,
            message: Some(message),
            ticket: None,
        };
        poll_fn(|context| sending.poll(context)).await
    }

    /// Sends from a thread without an executor, waiting for room until `deadline`.
    pub fn send_blocking(&self, message: T, deadline: Deadline) -> Result<(), SendError> {
        let mut sending = Sending {
            sender: self,
            message: Some(message),
            ticket: None,
        };
        if let Some(sent) = spin::look(|| sending.attempt()) {
            return sent;
        }
        spin::block_until(deadline, |context| sending.poll(context))
            .unwrap_or(Err(SendError::TimedOut))
    }

    /// Sends the request that `make` builds around a reply port and waits for the answer.
    pub async fn call<R: Message>(
        &self,
        make: impl FnOnce(Reply<R>) -> T,
        deadline: Deadline,
    ) -> Result<R, CallError> {
        let (port, mut waiting) = oneshot();
        let request = make(Reply::new(port));
        let mut sending = Sending {
            sender: self,
            message: Some(request),
            ticket: None,
        };
        let exchange = poll_fn(|context| {
            if sending.message.is_some() {
                match sending.poll(context) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                    Poll::Pending => return Poll::Pending,
                }
            }
            waiting.poll(context)
        });
        timer::until(deadline, exchange)
            .await
            .unwrap_or(Err(CallError::TimedOut))
    }

    /// [`Sender::call`] from a thread without an executor: it looks for the answer for a moment
    /// and then sleeps.
    pub fn call_blocking<R: Message>(
        &self,
        make: impl FnOnce(Reply<R>) -> T,
        deadline: Deadline,
    ) -> Result<R, CallError> {
        let (port, mut waiting) = oneshot();
        self.send_blocking(make(Reply::new(port)), deadline)?;
        if let Some(outcome) = spin::look(|| waiting.try_take()) {
            return outcome;
        }
        spin::block_until(deadline, |context| waiting.poll(context))
            .unwrap_or(Err(CallError::TimedOut))
    }
}

impl<T: Message> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.queue.add_sender();
        Self {
            queue: Arc::clone(&self.queue),
        }
    }
}

impl<T: Message> Drop for Sender<T> {
    fn drop(&mut self) {
        self.queue.drop_sender();
    }
}

impl<T: Message> fmt::Debug for Sender<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Sender")
            .field("capacity", &self.queue.capacity())
            .finish()
    }
}

/// A message on its way into a channel that may be full.
struct Sending<'a, T: Message> {
    sender: &'a Sender<T>,
    message: Option<T>,
    ticket: Option<Ticket>,
}

impl<T: Message> Sending<'_, T> {
    /// Sends if there is room; `None` while there is none.
    fn attempt(&mut self) -> Option<Result<(), SendError>> {
        match self.sender.try_send(self.message.take()?) {
            Ok(()) => Some(Ok(())),
            Err(TrySendError::Full(message)) => {
                self.message = Some(message);
                None
            }
            Err(TrySendError::Closed(_)) => Some(Err(SendError::Closed)),
            Err(TrySendError::PeerDied(_)) => Some(Err(SendError::PeerDied)),
            Err(TrySendError::Unsendable(why)) => Some(Err(SendError::Unsendable(why))),
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        if let Some(sent) = self.attempt() {
            return Poll::Ready(sent);
        }
        let queue = &self.sender.queue;
        self.ticket = Some(queue.full_waiters.register(self.ticket, context.waker()));
        queue.request_free_slot();
        // A slot may have got free before the flag was up.
        self.attempt().map_or(Poll::Pending, Poll::Ready)
    }
}

impl<T: Message> Drop for Sending<'_, T> {
    fn drop(&mut self) {
        let queue = &self.sender.queue;
        if let Some(ticket) = self.ticket
            && !queue.full_waiters.remove(ticket)
            && self.message.is_some()
        {
            // It was told of a free slot and does not use it: the next in line must know.
            queue.notify_one_full_waiter();
        }
    }
}
