//! What happens to the machine, for those who listen.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use super::protocol::{Event, EventKind};

/// Events that wait for a client: more than happen in seconds, unless something goes very wrong.
const QUEUE: usize = 128;

/// Where events come from. Saying something costs nothing where nobody listens.
#[derive(Debug)]
pub struct EventHub {
    started: Instant,
    listeners: RefCell<Vec<Weak<Queue>>>,
    closed: Cell<bool>,
    /// Who waits for nothing but the end, and those who have left since the last one came.
    waiting: RefCell<Vec<Weak<RefCell<Option<Waker>>>>>,
}

#[derive(Debug, Default)]
struct Queue {
    events: RefCell<VecDeque<Event>>,
    lost: Cell<u64>,
    closed: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl EventHub {
    /// Events of a machine that starts now.
    pub fn new() -> Rc<Self> {
        Rc::new(Self {
            started: Instant::now(),
            listeners: RefCell::default(),
            closed: Cell::new(false),
            waiting: RefCell::default(),
        })
    }

    /// Seconds since the machine started, to the millisecond.
    pub fn uptime(&self) -> f64 {
        self.started.elapsed().as_millis() as f64 / 1000.0
    }

    /// Something happened.
    pub fn say(&self, kind: EventKind) {
        let mut listeners = self.listeners.borrow_mut();
        if listeners.is_empty() {
            return;
        }
        let event = Event { at: self.uptime(), kind };
        listeners.retain(|listener| {
            let Some(queue) = listener.upgrade() else { return false };
            queue.push(event.clone());
            true
        });
    }

    /// Listens from now on.
    pub fn subscribe(&self) -> Subscription {
        let queue = Rc::new(Queue::default());
        queue.closed.set(self.closed.get());
        let mut listeners = self.listeners.borrow_mut();
        listeners.retain(|listener| listener.strong_count() > 0);
        listeners.push(Rc::downgrade(&queue));
        drop(listeners);
        Subscription { queue }
    }

    #[cfg(test)]
    pub(super) fn has_listeners(&self) -> bool {
        !self.listeners.borrow().is_empty()
    }

    /// Nothing happens any more.
    pub fn close(&self) {
        self.closed.set(true);
        for queue in self.listeners.take().iter().filter_map(Weak::upgrade) {
            queue.closed.set(true);
            queue.wake();
        }
        for place in self.waiting.take().iter().filter_map(Weak::upgrade) {
            if let Some(waker) = place.take() {
                waker.wake();
            }
        }
    }

    /// Waits until nothing happens any more.
    pub async fn closed(&self) {
        let place = self.place();
        poll_fn(|context| {
            if self.closed.get() {
                return Poll::Ready(());
            }
            place.replace(Some(context.waker().clone()));
            Poll::Pending
        })
        .await;
    }

    /// A place for one who waits.
    fn place(&self) -> Rc<RefCell<Option<Waker>>> {
        let place = Rc::new(RefCell::new(None));
        let mut waiting = self.waiting.borrow_mut();
        waiting.retain(|place| place.strong_count() > 0);
        waiting.push(Rc::downgrade(&place));
        place
    }
}

impl Queue {
    fn push(&self, event: Event) {
        let mut events = self.events.borrow_mut();
        if events.len() < QUEUE {
            events.push_back(event);
        } else {
            self.lost.set(self.lost.get() + 1);
        }
        self.wake();
    }

    fn wake(&self) {
        let waker = self.waker.borrow_mut().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The events since somebody began to listen.
#[derive(Debug)]
pub struct Subscription {
    queue: Rc<Queue>,
}

impl Subscription {
    /// The next event; none when there will be no more. What was lost is told where it is missing.
    pub async fn next(&mut self) -> Option<Event> {
        poll_fn(|context| self.poll(context)).await
    }

    fn poll(&mut self, context: &Context<'_>) -> Poll<Option<Event>> {
        let queue = &self.queue;
        let mut events = queue.events.borrow_mut();
        if let Some(event) = events.pop_front() {
            // Everything before it was taken: what is missing comes after the last one.
            let lost = if events.is_empty() { queue.lost.take() } else { 0 };
            if lost > 0 {
                let kind = EventKind::Lagged { events: lost };
                events.push_back(Event { at: event.at, kind });
            }
            return Poll::Ready(Some(event));
        }
        if queue.closed.get() {
            return Poll::Ready(None);
        }
        *queue.waker.borrow_mut() = Some(context.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;

    use super::*;

    fn now<T>(future: impl Future<Output = T>) -> Poll<T> {
        pin!(future).poll(&mut Context::from_waker(Waker::noop()))
    }

    fn kind(subscription: &mut Subscription) -> Poll<Option<EventKind>> {
        now(subscription.next()).map(|event| event.map(|event| event.kind))
    }

    #[test]
    fn everybody_hears_what_happens_after_they_came() {
        let hub = EventHub::new();
        hub.say(EventKind::Started);
        let mut one = hub.subscribe();
        hub.say(EventKind::Paused);
        let mut two = hub.subscribe();
        hub.say(EventKind::Resumed);
        assert_eq!(kind(&mut one), Poll::Ready(Some(EventKind::Paused)));
        for listener in [&mut one, &mut two] {
            assert_eq!(kind(listener), Poll::Ready(Some(EventKind::Resumed)));
            assert_eq!(kind(listener), Poll::Pending);
        }
        hub.say(EventKind::Paused);
        hub.close();
        assert_eq!(kind(&mut two), Poll::Ready(Some(EventKind::Paused)));
        assert_eq!(kind(&mut two), Poll::Ready(None));
        assert_eq!(now(hub.closed()), Poll::Ready(()));
        assert_eq!(kind(&mut hub.subscribe()), Poll::Ready(None));
    }

    #[test]
    fn those_who_left_take_no_room() {
        let hub = EventHub::new();
        for _ in 0..100 {
            drop(hub.subscribe());
            assert_eq!(now(hub.closed()), Poll::Pending);
        }
        assert_eq!((hub.listeners.borrow().len(), hub.waiting.borrow().len()), (1, 1));
    }

    #[test]
    fn who_does_not_listen_is_told_how_much_was_missed() {
        let hub = EventHub::new();
        let mut listener = hub.subscribe();
        for _ in 0..QUEUE + 5 {
            hub.say(EventKind::Paused);
        }
        for _ in 0..QUEUE {
            assert_eq!(kind(&mut listener), Poll::Ready(Some(EventKind::Paused)));
        }
        assert_eq!(kind(&mut listener), Poll::Ready(Some(EventKind::Lagged { events: 5 })));
        hub.say(EventKind::Resumed);
        assert_eq!(kind(&mut listener), Poll::Ready(Some(EventKind::Resumed)));
    }

    #[test]
    fn who_left_is_forgotten() {
        let hub = EventHub::new();
        drop(hub.subscribe());
        hub.say(EventKind::Paused);
        assert!(hub.listeners.borrow().is_empty());
    }
}
