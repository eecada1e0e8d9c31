//! Where messages come in: the queue inside this process and the rings of senders elsewhere.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::error::{RecvBlockingError, RecvError, TryRecvError};
use crate::link::channel::{LinkSender, Pulled, Source};
use crate::queue::{Consumer, Queue};
use crate::{Deadline, Message, spin};

/// Messages taken from the queue before the rings get their turn.
const LONGEST_STREAK: u32 = 32;
/// How long a thread sleeps before it looks at rings whose bells nobody in this process hears.
const UNHEARD_SLICE: Duration = Duration::from_millis(1);

/// Everything a receiver receives from.
pub(crate) struct Inlet<T> {
    queue: Consumer<T>,
    sources: Vec<Source<T>>,
    next_source: usize,
    streak: u32,
    /// Whether a sender was lost with its process.
    lost: bool,
}

impl<T: Message> Inlet<T> {
    pub(crate) fn new(queue: Consumer<T>) -> Self {
        Self { queue, sources: Vec::new(), next_source: 0, streak: 0, lost: false }
    }

    /// All that will ever come comes from one ring.
    pub(crate) fn from_source(source: Source<T>) -> Self {
        let (queue, consumer) = Queue::new(1);
        queue.drop_sender();
        let mut inlet = Self::new(consumer);
        inlet.sources.push(source);
        inlet
    }

    pub(crate) fn is_local(&mut self) -> bool {
        self.sources.extend(self.queue.queue().remote.take_sources());
        self.sources.is_empty() && !self.lost
    }

    pub(crate) fn capacity(&self) -> usize {
        self.queue.queue().capacity()
    }

    /// Makes every sender of this process send to `link`, after what is queued.
    pub(crate) fn move_to(&mut self, link: Arc<LinkSender<T>>) {
        let queue = Arc::clone(self.queue.queue());
        // There is one receiver and it moves once.
        let link = queue.remote.moved.get_or_init(|| link);
        link.take_over(|hand_over| self.queue.move_away(hand_over));
    }

    /// Takes the oldest message if one is there, without asking whether more can come: what looking
    /// again and again costs the senders is least with this.
    pub(crate) fn try_next(&mut self) -> Option<T> {
        if self.sources.is_empty() { self.queue.try_pop() } else { self.try_recv().ok() }
    }

    pub(crate) fn try_recv(&mut self) -> Result<T, TryRecvError> {
        if self.sources.is_empty() {
            if let Some(message) = self.queue.try_pop() {
                return Ok(message);
            }
        } else if self.streak < LONGEST_STREAK
            && let Some(message) = self.queue.try_pop()
        {
            self.streak += 1;
            return Ok(message);
        }
        self.try_everything()
    }

    fn try_everything(&mut self) -> Result<T, TryRecvError> {
        self.streak = 0;
        // Before the sources: a local sender that becomes a ring does so before it goes.
        let finished = self.queue.is_finished();
        self.sources.extend(self.queue.queue().remote.take_sources());
        if let Some(message) = self.pull() {
            return Ok(message);
        }
        if let Some(message) = self.queue.try_pop() {
            return Ok(message);
        }
        match (finished && self.sources.is_empty(), self.lost) {
            (false, _) => Err(TryRecvError::Empty),
            (true, false) => Err(TryRecvError::Closed),
            (true, true) => Err(TryRecvError::PeerDied),
        }
    }

    /// The next message from a ring, each in turn. Rings that have ended go.
    fn pull(&mut self) -> Option<T> {
        let mut left = self.sources.len();
        while left > 0 {
            left -= 1;
            if self.next_source >= self.sources.len() {
                self.next_source = 0;
            }
            match self.sources[self.next_source].pull() {
                Pulled::Message(message) => {
                    self.next_source += 1;
                    return Some(message);
                }
                Pulled::Empty => self.next_source += 1,
                Pulled::Closed => drop(self.sources.swap_remove(self.next_source)),
                Pulled::Died => {
                    self.lost = true;
                    drop(self.sources.swap_remove(self.next_source));
                }
            }
        }
        None
    }

    pub(crate) fn poll_recv(&mut self, context: &mut Context<'_>) -> Poll<Result<T, RecvError>> {
        loop {
            match self.try_recv() {
                Ok(message) => return Poll::Ready(Ok(message)),
                Err(TryRecvError::Closed) => return Poll::Ready(Err(RecvError::Closed)),
                Err(TryRecvError::PeerDied) => return Poll::Ready(Err(RecvError::PeerDied)),
                Err(TryRecvError::Empty) => {}
            }
            match self.queue.poll_pop(context) {
                Poll::Ready(Some(message)) => return Poll::Ready(Ok(message)),
                // No sender in this process is left; what comes, comes from the rings.
                Poll::Ready(None) if self.sources.is_empty() => continue,
                Poll::Ready(None) | Poll::Pending => {}
            }
            let mut progressed = false;
            for source in &mut self.sources {
                progressed |= source.arm(context);
            }
            if !progressed {
                return Poll::Pending;
            }
        }
    }

    pub(crate) fn block(&mut self, deadline: Deadline) -> Result<T, RecvBlockingError> {
        loop {
            match self.try_recv() {
                Ok(message) => return Ok(message),
                Err(TryRecvError::Closed) => return Err(RecvBlockingError::Closed),
                Err(TryRecvError::PeerDied) => return Err(RecvBlockingError::PeerDied),
                Err(TryRecvError::Empty) if deadline.has_passed() => {
                    return Err(RecvBlockingError::TimedOut);
                }
                Err(TryRecvError::Empty) => {}
            }
            if let [source] = &self.sources[..]
                && self.queue.is_finished()
            {
                source.sleep(deadline);
                continue;
            }
            let heard = |source: &Source<T>| source.core().driven.load(Ordering::Relaxed);
            let slice = if self.sources.iter().all(heard) {
                deadline
            } else {
                self.sources.iter().for_each(|source| source.core().probe());
                deadline.min(Deadline::after(UNHEARD_SLICE))
            };
            match spin::block_until(slice, |context| self.poll_recv(context)) {
                Some(received) => return received.map_err(Into::into),
                None if deadline.has_passed() => return Err(RecvBlockingError::TimedOut),
                None => {}
            }
        }
    }
}
