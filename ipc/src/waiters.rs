//! Those who wait for room: a list in order of arrival, only touched when there is no room.

use std::collections::VecDeque;
use std::sync::PoisonError;
use std::task::Waker;

use crate::sync::{Mutex, MutexGuard};

/// A place in the list of those who wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket(u64);

/// Wakers in order of arrival. As many as there are tasks and threads that wait at the same time.
pub(crate) struct Waiters {
    list: Mutex<List>,
}

struct List {
    queue: VecDeque<(Ticket, Waker)>,
    next_ticket: u64,
}

impl Waiters {
    pub(crate) fn new() -> Self {
        Self { list: Mutex::new(List { queue: VecDeque::new(), next_ticket: 0 }) }
    }

    fn lock(&self) -> MutexGuard<'_, List> {
        // The list is consistent between any two statements under the lock.
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts `waker` at the end, or in place of the one that `ticket` stands for if it still waits.
    pub(crate) fn register(&self, ticket: Option<Ticket>, waker: &Waker) -> Ticket {
        let mut list = self.lock();
        if let Some(ticket) = ticket
            && let Some((_, known)) = list.queue.iter_mut().find(|(other, _)| *other == ticket)
        {
            known.clone_from(waker);
            return ticket;
        }
        let ticket = Ticket(list.next_ticket);
        list.next_ticket += 1;
        list.queue.push_back((ticket, waker.clone()));
        ticket
    }

    /// Takes a place out of the list; false when it had been notified already.
    pub(crate) fn remove(&self, ticket: Ticket) -> bool {
        let mut list = self.lock();
        let place = list.queue.iter().position(|(other, _)| *other == ticket);
        place.and_then(|index| list.queue.remove(index)).is_some()
    }

    /// Wakes the first `count` in line. `more_wait` runs before the list is unlocked when others
    /// remain.
    pub(crate) fn notify(&self, count: usize, more_wait: impl FnOnce()) {
        let mut list = self.lock();
        let count = count.min(list.queue.len());
        let first: VecDeque<_> = list.queue.drain(..count).collect();
        if !list.queue.is_empty() {
            more_wait();
        }
        drop(list);
        for (_, waker) in first {
            waker.wake();
        }
    }

    /// Wakes everybody.
    pub(crate) fn notify_all(&self) {
        let all = std::mem::take(&mut self.lock().queue);
        for (_, waker) in all {
            waker.wake();
        }
    }
}
