//! The sending end of a channel.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::codec::{self, Departing, Outgoing, Refusal};
use crate::error::{CallError, SendError, TrySendError};
use crate::link::channel::{LinkSendError, LinkSender, Obstacle, Source};
use crate::link::core::Core;
use crate::link::handle::Handle;
use crate::link::slots::SlotId;
use crate::oneshot::oneshot;
use crate::queue::{PushError, Queue};
use crate::sending::Sending;
use crate::tap::{Tap, Tapping};
use crate::{Deadline, Message, Reply, timer};

/// The sending end of a channel. Clones send to the same receiver.
///
/// A sender can itself be sent to another process over a link; what is sent there arrives here.
pub struct Sender<T> {
    pub(crate) route: Route<T>,
    tap: Option<Arc<Tapping<T>>>,
}

pub(crate) enum Route<T> {
    Local(Arc<Queue<T>>),
    Link(Arc<LinkSender<T>>),
}

impl<T: Message> Sender<T> {
    pub(crate) fn local(queue: Arc<Queue<T>>) -> Self {
        Self { route: Route::Local(queue), tap: None }
    }

    pub(crate) fn link(sender: LinkSender<T>) -> Self {
        Self { route: Route::Link(Arc::new(sender)), tap: None }
    }

    /// Sends if there is room now.
    pub fn try_send(&self, message: T) -> Result<(), TrySendError<T>> {
        // The usual case without the detour: one process, nobody looking.
        let message = match (&self.route, &self.tap) {
            (Route::Local(queue), None) => match queue.try_push(message) {
                Ok(()) => return Ok(()),
                Err(PushError::Full(message)) => return Err(TrySendError::Full(message)),
                Err(PushError::Closed(message) | PushError::Moved(message)) => message,
            },
            _ => message,
        };
        self.try_route(message).map_err(|error| match error {
            LinkSendError::Blocked(message, _) => TrySendError::Full(message),
            LinkSendError::Closed(message) => TrySendError::Closed(message),
            LinkSendError::PeerDied(message) => TrySendError::PeerDied(message),
            LinkSendError::Unsendable(why) => TrySendError::Unsendable(why),
        })
    }

    /// Notes what is sent here, and by clones made from here on, in `tap` under the name `channel`.
    #[must_use]
    pub fn tapped(mut self, tap: &Tap, channel: &'static str) -> Self
    where
        T: fmt::Debug,
    {
        self.tap = Some(Arc::new(Tapping::new(tap, channel)));
        self
    }

    /// Sends if there is room now, or says what is in the way.
    pub(crate) fn try_route(&self, message: T) -> Result<(), LinkSendError<T>> {
        let Some(tap) = &self.tap else { return self.try_untapped(message) };
        let text = tap.describe(&message);
        self.try_untapped(message)?;
        tap.note(text);
        Ok(())
    }

    fn try_untapped(&self, message: T) -> Result<(), LinkSendError<T>> {
        match &self.route {
            Route::Local(queue) => match queue.try_push(message) {
                Ok(()) => Ok(()),
                Err(PushError::Full(message)) => {
                    Err(LinkSendError::Blocked(message, Obstacle::FullQueue))
                }
                Err(PushError::Closed(message)) => Err(LinkSendError::Closed(message)),
                Err(PushError::Moved(message)) => match queue.remote.moved.get() {
                    Some(link) => link.try_send(message),
                    None => Err(LinkSendError::Closed(message)),
                },
            },
            Route::Link(link) => link.try_send(message),
        }
    }

    /// Sends, waiting for room while the channel is full. Those who wait are woken when the receiver
    /// has taken about half of what was queued, not for each message.
    pub async fn send(&self, message: T) -> Result<(), SendError> {
        let mut sending = match self.try_route(message) {
            Ok(()) => return Ok(()),
            Err(error) => Sending::after(self, error)?,
        };
        poll_fn(|context| sending.poll(context)).await
    }

    /// Sends from a thread without an executor, waiting for room until `deadline`.
    pub fn send_blocking(&self, message: T, deadline: Deadline) -> Result<(), SendError> {
        match self.try_route(message) {
            Ok(()) => Ok(()),
            Err(error) => Sending::after(self, error)?.block(deadline),
        }
    }

    /// Sends the request that `make` builds around a reply port and waits for the answer.
    ///
    /// # Panics
    /// When it has to wait and no [`executor`] runs on this thread: the deadline is its timer.
    pub async fn call<R: Message>(
        &self,
        make: impl FnOnce(Reply<R>) -> T,
        deadline: Deadline,
    ) -> Result<R, CallError> {
        let (port, mut waiting) = oneshot();
        let mut sending = Sending::new(self, make(Reply::new(port)));
        let exchange = poll_fn(|context| {
            if !sending.is_done() {
                match sending.poll(context) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                    Poll::Pending => return Poll::Pending,
                }
            }
            waiting.poll(context)
        });
        timer::until(deadline, exchange).await.unwrap_or(Err(CallError::TimedOut))
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
        waiting.block(deadline)
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        let route = match &self.route {
            Route::Local(queue) => {
                queue.add_sender();
                Route::Local(Arc::clone(queue))
            }
            Route::Link(link) => Route::Link(Arc::clone(link)),
        };
        Self { route, tap: self.tap.clone() }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if let Route::Local(queue) = &self.route {
            queue.drop_sender();
        }
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, capacity) = match &self.route {
            Route::Local(queue) => ("Sender", queue.capacity()),
            Route::Link(link) => ("LinkSender", link.capacity()),
        };
        formatter.debug_struct(kind).field("capacity", &capacity).finish_non_exhaustive()
    }
}

/// A sender on its way to another process.
struct Departure<T: Message>(Sender<T>);

impl<T: Message> Departing for Departure<T> {
    fn needs_reply_slot(&self) -> bool {
        false
    }

    fn depart(&self, core: &Arc<Core>, _slots: &mut Vec<SlotId>) -> Result<Handle, Refusal> {
        let Route::Local(queue) = &self.0.route else {
            return Err(Refusal::ForeignHandle);
        };
        if queue.remote.moved.get().is_some() {
            return Err(Refusal::ForeignHandle);
        }
        let (source, ring) = Source::for_peer(core, queue.capacity())?;
        queue.remote.add_source(source);
        queue.nudge();
        Ok(Handle::Sender(ring))
    }
}

impl<T: Message> Serialize for Sender<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        codec::depart(serializer, || Ok(Outgoing::Port(Arc::new(Departure(self.clone())))))
    }
}

impl<'de, T: Message> Deserialize<'de> for Sender<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        codec::arrive(deserializer, |core, handle, _| match handle {
            Handle::Sender(ring) => LinkSender::from_peer(core, ring).map(Self::link),
            _ => Err("a sender was expected and another handle came"),
        })
    }
}
