//! A message on its way into a channel that may be full.

use std::task::{Context, Poll};

use crate::error::SendError;
use crate::link::channel::{LinkSendError, LinkSender, Obstacle};
use crate::link::core::Slept;
use crate::message::Message;
use crate::queue::Queue;
use crate::sender::{Route, Sender};
use crate::spin::Pace;
use crate::waiters::Ticket;
use crate::{Deadline, spin};

/// Keeps the message until there is room, and the places in line where it waits for that.
pub(crate) struct Sending<'a, T: Message> {
    sender: &'a Sender<T>,
    message: Option<T>,
    queue_ticket: Option<Ticket>,
    slot_ticket: Option<Ticket>,
    ring_key: Option<usize>,
}

impl<'a, T: Message> Sending<'a, T> {
    pub(crate) fn new(sender: &'a Sender<T>, message: T) -> Self {
        Self {
            sender,
            message: Some(message),
            queue_ticket: None,
            slot_ticket: None,
            ring_key: None,
        }
    }

    /// Goes on after a first attempt, unless that failed for good.
    pub(crate) fn after(sender: &'a Sender<T>, error: LinkSendError<T>) -> Result<Self, SendError> {
        match error {
            LinkSendError::Blocked(message, _) => Ok(Self::new(sender, message)),
            LinkSendError::Closed(_) => Err(SendError::Closed),
            LinkSendError::PeerDied(_) => Err(SendError::PeerDied),
            LinkSendError::Unsendable(why) => Err(SendError::Unsendable(why)),
        }
    }

    /// Whether the message was sent, or cannot be.
    pub(crate) fn is_done(&self) -> bool {
        self.message.is_none()
    }

    fn queue(&self) -> Option<&'a Queue<T>> {
        match &self.sender.route {
            Route::Local(queue) => Some(queue),
            Route::Link(_) => None,
        }
    }

    fn link(&self) -> Option<&'a LinkSender<T>> {
        match &self.sender.route {
            Route::Local(queue) => queue.remote.moved.get().map(|link| &**link),
            Route::Link(link) => Some(link),
        }
    }

    /// Sends if there is room, or says what is in the way.
    fn attempt(&mut self) -> Result<Result<(), SendError>, Obstacle> {
        let Some(message) = self.message.take() else {
            return Ok(Err(SendError::Closed));
        };
        match self.sender.try_route(message) {
            Ok(()) => Ok(Ok(())),
            Err(LinkSendError::Blocked(message, obstacle)) => {
                self.message = Some(message);
                Err(obstacle)
            }
            Err(error) => Ok(Self::after(self.sender, error).map(drop)),
        }
    }

    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        let mut obstacle = match self.attempt() {
            Ok(sent) => return Poll::Ready(sent),
            Err(obstacle) => obstacle,
        };
        // At most once per kind of obstacle: registering and looking again.
        for _ in 0..3 {
            self.register(obstacle, context);
            obstacle = match self.attempt() {
                Ok(sent) => return Poll::Ready(sent),
                Err(next) if std::mem::discriminant(&next) == std::mem::discriminant(&obstacle) => {
                    return Poll::Pending;
                }
                Err(next) => next,
            };
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    fn register(&mut self, obstacle: Obstacle, context: &Context<'_>) {
        match (obstacle, self.link()) {
            (Obstacle::FullQueue, _) => {
                if let Some(queue) = self.queue() {
                    let ticket = queue.full_waiters.register(self.queue_ticket, context.waker());
                    self.queue_ticket = Some(ticket);
                    queue.request_free_slot();
                }
            }
            (Obstacle::FullRing(_), Some(link)) => link.arm(&mut self.ring_key, context),
            (Obstacle::NoReplySlot, Some(link)) => {
                let slots = &link.core().slots;
                let ticket = slots.waiters.register(self.slot_ticket, context.waker());
                self.slot_ticket = Some(ticket);
                slots.contend();
            }
            // Only a link has these obstacles.
            (_, None) => context.waker().wake_by_ref(),
        }
    }

    /// Sends on a thread without an executor.
    pub(crate) fn block(&mut self, deadline: Deadline) -> Result<(), SendError> {
        let mut obstacle = match self.attempt() {
            Ok(sent) => return sent,
            Err(obstacle) => obstacle,
        };
        loop {
            let found = spin::look(Pace::Room, || match self.attempt() {
                Ok(sent) => Some(sent),
                Err(next) => {
                    obstacle = next;
                    None
                }
            });
            if let Some(sent) = found {
                return sent;
            }
            if let (Obstacle::FullRing(seen), Some(link)) = (obstacle, self.link()) {
                if link.sleep(seen, deadline) == Slept::TimedOut {
                    return self.attempt().unwrap_or(Err(SendError::TimedOut));
                }
                continue;
            }
            let settled = spin::block_until(deadline, |context| match self.poll(context) {
                Poll::Ready(sent) => Poll::Ready(Some(sent)),
                // A thread waits for a ring by itself.
                Poll::Pending if self.ring_key.is_some() => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            });
            match settled {
                Some(Some(sent)) => return sent,
                Some(None) => {
                    self.leave_ring();
                    match self.attempt() {
                        Ok(sent) => return sent,
                        Err(next) => obstacle = next,
                    }
                }
                None => return Err(SendError::TimedOut),
            }
        }
    }
}

impl<T: Message> Sending<'_, T> {
    fn leave_ring(&mut self) {
        if let Some(link) = self.link() {
            link.core().sleepers.remove_task(self.ring_key.take());
        }
    }
}

impl<T: Message> Drop for Sending<'_, T> {
    fn drop(&mut self) {
        let waits = self.message.is_some();
        if let (Some(ticket), Some(queue)) = (self.queue_ticket, self.queue())
            && !queue.full_waiters.remove(ticket)
            && waits
        {
            // It was told of a free slot and does not use it: the next in line must know.
            queue.notify_one_full_waiter();
        }
        self.leave_ring();
        if let (Some(ticket), Some(link)) = (self.slot_ticket, self.link()) {
            // Everybody is woken when a slot gets free, so nobody depends on this one.
            link.core().slots.waiters.remove(ticket);
        }
    }
}
