//! The main line of a queue whose driver sends requests: take them, carry them out, give them back, and
//! wait in between as the driver's habits suggest ([`Pacing`]).

use std::cell::RefCell;
use std::fmt::Display;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use super::active::{ActiveQueue, KickError, Signalled};
use super::pacing::{Next, Pacing, Patience};
use super::rest::{Changes, Rest};
use super::stop::StopMode;
use crate::rate_limit::RateLimiter;
use crate::virtio::queue::{Availability, Chain, Completed, GuestOps, QueueError, Tag};

/// Requests of one queue, from the driver's hands into the kernel's and back.
pub(crate) trait Requests {
    /// Why the queue cannot go on.
    type Failure: Display + From<KickError>;

    /// Rounds of taking and publishing before other tasks run, when all requests complete at once.
    const ROUNDS: usize = 8;

    /// The queue that they come by.
    fn queue(&mut self) -> &mut PacedQueue;

    /// Take those that are available, or some of them, and begin them; says how many.
    fn take(&mut self) -> Result<u16, Self::Failure>;

    /// An operation is over.
    fn completed(&mut self, completed: Completed);

    /// The queue again.
    fn into_queue(self) -> PacedQueue;
}

/// A queue with what it takes to serve it.
#[derive(Debug)]
pub(crate) struct PacedQueue {
    pub(crate) active: ActiveQueue,
    pub(crate) ops: GuestOps,
    /// Operations under way that are not transfers.
    pub(crate) slow: usize,
    pacing: Pacing,
    /// Why nothing is taken for a while.
    rest: Rest,
    changes: Rc<Changes>,
    /// When the visit began in which requests were taken last: one look at the clock for all of them.
    visited_at: Instant,
    /// By head: when the request was taken.
    taken_at: Box<[Instant]>,
    /// The same of those that are given back and not yet published.
    finished: Vec<Instant>,
    /// Bytes that were moved and not counted yet.
    moved: u64,
}

impl PacedQueue {
    /// A queue with room for one operation of each head. A rest for a limit ends early at `changes`.
    pub(crate) fn new(active: ActiveQueue, patience: Patience, changes: Rc<Changes>) -> Self {
        let size = usize::from(active.queue.size());
        let now = executor::now();
        Self {
            ops: GuestOps::new(size),
            slow: 0,
            pacing: Pacing::new(patience),
            rest: Rest::None,
            changes,
            visited_at: now,
            taken_at: vec![now; size].into(),
            finished: Vec::with_capacity(size),
            moved: 0,
            active,
        }
    }

    /// Take the next chain that is available, if there is one.
    #[inline]
    pub(crate) fn pop(&mut self, chain: &mut Chain) -> Result<bool, QueueError> {
        let popped = self.active.queue.pop(chain)?;
        if popped {
            self.taken_at[usize::from(chain.head())] = self.visited_at;
        }
        Ok(popped)
    }

    /// Whether what is taken was taken before, by a predecessor.
    #[inline]
    pub(crate) fn is_recovering(&self) -> bool {
        self.active.queue.is_recovering()
    }

    /// Give a buffer back; the driver sees it with the next batch.
    #[inline]
    pub(crate) fn give_back(&mut self, head: Tag, written: u32) {
        self.active.queue.push_used(head, written);
        self.finished.push(self.taken_at[usize::from(head)]);
    }

    /// Count bytes that requests move.
    #[inline]
    pub(crate) fn moved(&mut self, bytes: u64) {
        self.moved += bytes;
    }

    /// Whether the limiter asks for a rest, which begins then.
    #[inline]
    pub(crate) fn must_rest(&mut self, limiter: &RefCell<RateLimiter>) -> bool {
        self.rest = Rest::for_limit(limiter, &self.changes);
        !self.rest.is_none()
    }

    /// Show the driver what was given back.
    fn publish(&mut self) -> Signalled {
        self.pacing.published(self.finished.len() as u16);
        if !self.finished.is_empty() {
            let (now, metrics) = (self.pacing.published_at(), self.active.metrics());
            for taken_at in self.finished.drain(..) {
                metrics.took(now.saturating_duration_since(taken_at));
            }
            metrics.moved(std::mem::take(&mut self.moved));
        }
        self.active.publish()
    }
}

/// Serve a queue until it is stopped.
pub(crate) async fn serve_paced(mut requests: impl Requests) -> Vec<ActiveQueue> {
    let outcome = poll_fn(|context| poll(&mut requests, context)).await;
    let PacedQueue { active, mut ops, .. } = requests.into_queue();
    if let Err(failure) = outcome {
        active.give_up(failure, &mut ops).await;
    }
    vec![active]
}

/// Ready when the queue was stopped and nothing is in flight, or with a failure.
fn poll<R: Requests>(requests: &mut R, context: &mut Context<'_>) -> Poll<Result<(), R::Failure>> {
    for _ in 0..R::ROUNDS {
        let paced = requests.queue();
        let stop = paced.active.poll_stop(context);
        if stop == Some(StopMode::Abort) {
            return paced.ops.poll_cancelled(context).map(Ok);
        }
        // Off before anything is published: a driver that polls answers at once.
        paced.active.queue.disable_kicks();
        complete(requests, context);
        let paced = requests.queue();
        let interrupt = paced.publish();
        let in_flight = paced.ops.in_flight();
        if stop.is_some() && !paced.is_recovering() {
            return if in_flight == 0 { Poll::Ready(Ok(())) } else { Poll::Pending };
        }
        ready!(paced.rest.poll(&paced.changes, context));
        let waiting = paced.active.queue.available().min(paced.active.queue.size());
        match paced.pacing.next(waiting, in_flight, paced.slow) {
            Next::Take => take(requests)?,
            Next::Look => {
                if interrupt == Signalled::Yes {
                    // It must not wait for the end of the look-out.
                    executor::flush();
                }
                break;
            }
            Next::Nap(duration) => paced.rest = Rest::nap(duration),
            Next::Doze => return Poll::Pending,
            Next::Sleep => {
                if paced.active.queue.enable_kicks() == Availability::More {
                    take(requests)?;
                } else {
                    ready!(paced.active.poll_kick(context))?;
                }
            }
        }
    }
    context.waker().wake_by_ref();
    Poll::Pending
}

fn take<R: Requests>(requests: &mut R) -> Result<(), R::Failure> {
    requests.queue().visited_at = executor::now();
    let taken = requests.take()?;
    requests.queue().pacing.taken(taken);
    Ok(())
}

/// Take all completions that are there.
fn complete(requests: &mut impl Requests, context: &mut Context<'_>) {
    let mut any = false;
    while let Poll::Ready(completed) = requests.queue().ops.poll_next(context) {
        any = true;
        requests.completed(completed);
    }
    if any {
        let paced = requests.queue();
        paced.pacing.completed(paced.ops.in_flight());
    }
}
