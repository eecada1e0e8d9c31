//! The statistics queue: the device holds a buffer of the driver, and gives it back to ask for
//! another with what is true by then (virtio 1.3 section 5.5.6.3).
//!
//! ```text
//!   driver ──buffer──► held ──(somebody asks, or the interval is over)──► driver
//!                       ▲                                                   │
//!                       └──────────── filled again ◄────────────────────────┘
//! ```

use std::rc::Rc;
use std::time::Duration;

use executor::{Either, Instant, select};

use super::failure::Failure;
use super::state::Balloon;
use super::statistics::{ENTRY_BYTES, GuestMemoryStatistics};
use crate::virtio::queue::Chain;
use crate::virtio::worker::ActiveQueue;

/// Entries that are read: several times as many as there are tags.
const MOST_ENTRIES: usize = 64;
/// How long the guest may take to answer. It answers from a work queue: milliseconds, more where it
/// is busy. Whoever waits gets the last answer then.
const PATIENCE: Duration = Duration::from_secs(1);

/// Serve the queue until it is stopped.
pub(super) async fn serve(balloon: Rc<Balloon>, mut active: ActiveQueue) -> Vec<ActiveQueue> {
    let size = usize::from(active.queue.size());
    let chain = Chain::new(active.memory().clone(), size);
    balloon.can_ask.set(true);
    let due = balloon.interval.map(|interval| executor::now() + interval);
    let mut inquiry = Inquiry { balloon: balloon.clone(), chain, held: None, due, give_up: None };
    let result = inquiry.serve(&mut active).await;
    balloon.can_ask.set(false);
    balloon.answer_all();
    if let Err(failure) = result {
        active.fail(failure.to_string()).await;
    }
    vec![active]
}

/// What there is to do.
enum Occasion {
    /// The task is to end.
    Stop,
    /// The driver has something to say.
    Buffer,
    /// Somebody wants to know.
    Asked,
    /// A time has come.
    Due,
}

struct Inquiry {
    balloon: Rc<Balloon>,
    chain: Chain,
    /// The driver's buffer.
    held: Option<u16>,
    /// When to ask without being asked.
    due: Option<Instant>,
    /// When those who wait have waited enough.
    give_up: Option<Instant>,
}

impl Inquiry {
    async fn serve(&mut self, active: &mut ActiveQueue) -> Result<(), Failure> {
        loop {
            match self.next(active).await? {
                Occasion::Stop => {
                    if let Some(head) = self.held.take() {
                        active.queue.put_back(head);
                    }
                    return Ok(());
                }
                Occasion::Buffer => self.take(active)?,
                Occasion::Asked => {
                    self.give_up.get_or_insert_with(|| executor::now() + PATIENCE);
                    self.ask(active);
                }
                Occasion::Due => self.run_timers(active),
            }
            executor::yield_now().await;
        }
    }

    async fn next(&self, active: &mut ActiveQueue) -> Result<Occasion, Failure> {
        let due = match (self.due, self.give_up) {
            (Some(due), Some(give_up)) => Some(due.min(give_up)),
            (due, give_up) => due.or(give_up),
        };
        let asked = select(self.balloon.wish.made(), until(due));
        Ok(match select(active.available(), asked).await {
            Either::Left(stop) => match stop? {
                Some(_) => Occasion::Stop,
                None => Occasion::Buffer,
            },
            Either::Right(Either::Left(())) => Occasion::Asked,
            Either::Right(Either::Right(())) => Occasion::Due,
        })
    }

    /// Takes the driver's next buffer and what it says.
    fn take(&mut self, active: &mut ActiveQueue) -> Result<(), Failure> {
        if !active.queue.pop(&mut self.chain)? {
            return Ok(());
        }
        let mut statistics = GuestMemoryStatistics::default();
        for _ in 0..MOST_ENTRIES {
            let Some(entry) = self.chain.read_array::<ENTRY_BYTES>() else { break };
            statistics.set(entry);
        }
        self.balloon.guest.set(Some((statistics, executor::now())));
        // There should be one buffer; a driver that brings a second one gets the first back.
        if let Some(earlier) = self.held.replace(self.chain.head()) {
            active.queue.push_used(earlier, 0);
            active.publish();
        }
        self.give_up = None;
        self.balloon.answer_all();
        Ok(())
    }

    /// Asks the driver, unless it has been.
    fn ask(&mut self, active: &mut ActiveQueue) {
        if let Some(head) = self.held.take() {
            active.queue.push_used(head, 0);
            active.publish();
        }
    }

    fn run_timers(&mut self, active: &mut ActiveQueue) {
        let now = executor::now();
        if self.give_up.is_some_and(|at| at <= now) {
            self.give_up = None;
            self.balloon.answer_all();
        }
        if self.due.is_some_and(|at| at <= now) {
            self.due = self.balloon.interval.map(|interval| now + interval);
            self.ask(active);
        }
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => executor::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
