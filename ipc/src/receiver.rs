//! The receiving end of a channel.

use std::cell::Cell;
use std::fmt;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::codec::{self, Departing, Outgoing, Refusal};
use crate::error::{RecvBlockingError, RecvError, TryRecvError};
use crate::inlet::Inlet;
use crate::link::channel::{LinkSender, Source};
use crate::link::core::Core;
use crate::link::handle::Handle;
use crate::link::slots::SlotId;
use crate::spin::Pace;
use crate::tap::{Tap, Tapping};
use crate::{Deadline, Message, spin};

/// The receiving end of a channel. There is exactly one.
///
/// A receiver can itself be sent to another process over a link, as long as all of its senders are
/// in this one; they then send there, beginning with what was queued.
pub struct Receiver<T> {
    place: Cell<Place<T>>,
    tap: Option<Box<Tapping<T>>>,
}

enum Place<T> {
    Here(Inlet<T>),
    /// Lent to a message that is being sent; it comes back when that fails.
    Lent(Arc<Lent<T>>),
    Gone,
}

type Lent<T> = Mutex<Option<Inlet<T>>>;

impl<T: Message> Receiver<T> {
    pub(crate) fn new(inlet: Inlet<T>) -> Self {
        Self { place: Cell::new(Place::Here(inlet)), tap: None }
    }

    pub(crate) fn link(source: Source<T>) -> Self {
        Self::new(Inlet::from_source(source))
    }

    fn inlet(&mut self) -> Option<&mut Inlet<T>> {
        if let Place::Lent(lent) = self.place.get_mut() {
            let back = lent.lock().unwrap_or_else(PoisonError::into_inner).take();
            self.place.set(back.map_or(Place::Gone, Place::Here));
        }
        match self.place.get_mut() {
            Place::Here(inlet) => Some(inlet),
            Place::Lent(_) | Place::Gone => None,
        }
    }

    /// Notes what is received here in `tap` under the name `channel`.
    #[must_use]
    pub fn tapped(mut self, tap: &Tap, channel: &'static str) -> Self
    where
        T: fmt::Debug,
    {
        self.tap = Some(Box::new(Tapping::new(tap, channel)));
        self
    }

    #[cold]
    fn note<E>(&self, received: &Result<T, E>) {
        if let (Some(tap), Ok(message)) = (&self.tap, received) {
            tap.note(tap.describe(message));
        }
    }

    /// Takes the oldest message if one is there.
    pub fn try_recv(&mut self) -> Result<T, TryRecvError> {
        let received = match self.place.get_mut() {
            Place::Here(inlet) => inlet.try_recv(),
            _ => self.inlet().map_or(Err(TryRecvError::Closed), Inlet::try_recv),
        };
        if self.tap.is_some() {
            self.note(&received);
        }
        received
    }

    /// Waits for the next message. Dropping the future loses nothing.
    pub async fn recv(&mut self) -> Result<T, RecvError> {
        poll_fn(|context| self.poll_recv(context)).await
    }

    /// One poll of [`Receiver::recv`], for actors that wait on several things by hand.
    pub fn poll_recv(&mut self, context: &mut Context<'_>) -> Poll<Result<T, RecvError>> {
        let Some(inlet) = self.inlet() else { return Poll::Ready(Err(RecvError::Closed)) };
        let polled = inlet.poll_recv(context);
        if let (Poll::Ready(received), true) = (&polled, self.tap.is_some()) {
            self.note(received);
        }
        polled
    }

    /// Waits for the next message on a thread without an executor: it looks for a moment and then
    /// sleeps.
    pub fn recv_blocking(&mut self, deadline: Deadline) -> Result<T, RecvBlockingError> {
        let inlet = self.inlet().ok_or(RecvBlockingError::Closed)?;
        let received = match spin::look(Pace::Message, || inlet.try_next()) {
            Some(message) => Ok(message),
            None => inlet.block(deadline),
        };
        if self.tap.is_some() {
            self.note(&received);
        }
        received
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Receiver").finish_non_exhaustive()
    }
}

/// A receiver on its way to another process.
struct Departure<T: Message>(Arc<Lent<T>>);

impl<T: Message> Departing for Departure<T> {
    fn needs_reply_slot(&self) -> bool {
        false
    }

    fn depart(&self, core: &Arc<Core>, _slots: &mut Vec<SlotId>) -> Result<Handle, Refusal> {
        let mut lent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let inlet = lent.as_mut().ok_or(Refusal::ForeignHandle)?;
        if !inlet.is_local() {
            return Err(Refusal::ForeignHandle);
        }
        let (link, ring) = LinkSender::for_peer(core, inlet.capacity())?;
        inlet.move_to(Arc::new(link));
        *lent = None;
        Ok(Handle::Receiver(ring))
    }
}

impl<T: Message> Serialize for Receiver<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        codec::depart(serializer, || {
            let lent = match self.place.replace(Place::Gone) {
                Place::Here(inlet) => Arc::new(Mutex::new(Some(inlet))),
                Place::Lent(lent) => lent,
                Place::Gone => return Err(Refusal::ForeignHandle),
            };
            self.place.set(Place::Lent(Arc::clone(&lent)));
            Ok(Outgoing::Port(Arc::new(Departure(lent))))
        })
    }
}

impl<'de, T: Message> Deserialize<'de> for Receiver<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        codec::arrive(deserializer, |core, handle, _| match handle {
            Handle::Receiver(ring) => Source::from_peer(core, ring).map(Self::link),
            _ => Err("a receiver was expected and another handle came"),
        })
    }
}
