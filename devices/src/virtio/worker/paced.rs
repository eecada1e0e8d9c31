//! The main line of a queue whose driver sends requests: take them, carry them out, give them back, and
//! wait in between as the driver's habits suggest ([`Pacing`]).

use std::cell::RefCell;
use std::fmt::Display;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use executor::Instant;

use super::active::{ActiveQueue, KickError, Signalled};
use super::pacing::{Next, Pacing, Patience};
use super::rest::{Changes, Rest};
use super::stop::StopMode;
use super::tries::Tries;
use crate::rate_limit::RateLimiter;
use crate::virtio::queue::{Availability, Chain, Completed, GuestOps, QueueError, Tag};

/// Buffers that are given back before a driver that polls is shown them: it works on these while the
/// next are done, and a look at its wishes for eight costs little.
const PART: usize = 8;

/// Operations for which it pays to visit the kernel at once instead of at the end of the turn: what it
/// has done by then goes back to the driver that much earlier.
const WORTH_A_VISIT: usize = 12;

/// Looks at the ring in a row before other tasks run; they take less than a microsecond.
const LOOKS: u32 = 16;

/// Requests of one queue, from the driver's hands into the kernel's and back.
pub(crate) trait Requests {
    /// Why the queue cannot go on.
    type Failure: Display + From<KickError>;

    /// Rounds of taking and publishing before other tasks run, when all requests complete at once.
    const ROUNDS: usize = 8;

    /// When the driver hears of what was published while there is more to do.
    const INTERRUPTS: Interrupts = Interrupts::WithTheTurn;

    /// The queue that they come by.
    fn queue(&mut self) -> &mut PacedQueue;

    /// Take those that are available, or some of them, and begin them; says how many.
    fn take(&mut self) -> Result<u16, Self::Failure>;

    /// An operation is over.
    fn completed(&mut self, completed: Completed);

    /// An operation is over whose request counts no more.
    fn abandoned(&mut self, completed: Completed) {
        drop(completed);
    }

    /// The queue again.
    fn into_queue(self) -> PacedQueue;
}

/// When an interrupt reaches the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interrupts {
    /// With all else that the turn has for the kernel.
    WithTheTurn,
    /// Before more is taken: for requests that take longer than a system call, during which the driver can
    /// already work on those that are done.
    AtOnce,
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
    /// From then until all that it came to was published.
    took: Duration,
    /// By head: when the request was taken.
    taken_at: Box<[Instant]>,
    /// The same of those that are given back and not yet published.
    finished: Vec<Instant>,
    /// Bytes that were moved and not counted yet.
    moved: u64,
    /// What became of the last interrupt: a driver that wants none polls.
    signalled: Signalled,
    /// Whether the kernel completes what it is given at once.
    visits: Tries,
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
            took: Duration::ZERO,
            taken_at: vec![now; size].into(),
            finished: Vec::with_capacity(size),
            moved: 0,
            signalled: Signalled::Yes,
            visits: Tries::new(),
            active,
        }
    }

    /// As many requests as `enough` are begun without waiting for more.
    #[inline]
    pub(crate) fn enough(&mut self, enough: u16) {
        self.pacing.set_enough(enough);
    }

    /// The same for good.
    #[must_use]
    pub(crate) fn with_enough(mut self, enough: u16) -> Self {
        self.enough(enough);
        self
    }

    /// How long it was from when requests were taken until the last of what was done with them was published.
    #[inline]
    pub(crate) fn took(&self) -> Duration {
        self.took
    }

    /// How many requests can be taken; a broken ring may say anything up to its size.
    #[inline]
    fn waiting(&mut self) -> u16 {
        self.active.queue.available().min(self.active.queue.size())
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
        if self.finished.is_empty() {
            return Signalled::No;
        }
        // The driver first: it need not wait for the books, nor for the clock.
        self.signalled = self.active.publish();
        let (now, metrics) = (executor::now(), self.active.metrics());
        self.active.trace().published(now);
        self.took = now.duration_since(self.visited_at);
        self.pacing.published(self.finished.len() as u16, now);
        for taken_at in self.finished.drain(..) {
            metrics.took(now.duration_since(taken_at));
        }
        metrics.moved(std::mem::take(&mut self.moved));
        self.signalled
    }

    /// Show a driver that polls what was given back, if that is some. One that sleeps is woken up once, for
    /// all of it.
    fn publish_part(&mut self) {
        if self.finished.len() >= PART && self.signalled == Signalled::No {
            self.publish();
        }
    }

    /// Let the kernel do what was just taken, where it does so at once.
    fn visit(&mut self) {
        let before = self.ops.waiting();
        if before < WORTH_A_VISIT || !self.visits.now() {
            return;
        }
        executor::visit();
        if self.ops.waiting() == 0 {
            self.visits.succeeded();
        } else {
            self.visits.failed();
        }
    }

    /// Let others have the processor.
    fn step_aside(&mut self) {
        let before = executor::now();
        rustix::thread::sched_yield();
        self.pacing.stepped_aside(executor::now().duration_since(before));
    }

    /// Look for other buffers than these for a moment; says whether there are.
    fn look(&mut self, waiting: u16) -> bool {
        let queue = &mut self.active.queue;
        queue.expect();
        (0..LOOKS).any(|_| {
            // There is time to read the clock now. What comes would be kept waiting for it.
            let now = executor::now();
            let mut came = queue.available() != waiting;
            if !came {
                std::hint::spin_loop();
                came = queue.available() != waiting;
            }
            if came {
                self.pacing.looked(now);
                if waiting == 0 {
                    queue.bring_near();
                }
            }
            came
        })
    }
}

/// Serve a queue until it is stopped.
pub(crate) async fn serve_paced(mut requests: impl Requests) -> Vec<ActiveQueue> {
    let outcome = poll_fn(|context| poll(&mut requests, context)).await;
    if let Err(failure) = outcome {
        requests.queue().active.fail(failure.to_string()).await;
        poll_fn(|context| poll_abandoned(&mut requests, context)).await;
    }
    vec![requests.into_queue().active]
}

/// Ready when the queue was stopped and nothing is in flight, or with a failure.
fn poll<R: Requests>(requests: &mut R, context: &mut Context<'_>) -> Poll<Result<(), R::Failure>> {
    for _ in 0..R::ROUNDS {
        let paced = requests.queue();
        let stop = paced.active.poll_stop(context);
        if stop == Some(StopMode::Abort) {
            return poll_abandoned(requests, context).map(Ok);
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
        let waiting = paced.waiting();
        let next = paced.pacing.next(waiting, in_flight, paced.slow);
        match next {
            Next::Take => {
                if interrupt == Signalled::Yes && R::INTERRUPTS == Interrupts::AtOnce {
                    executor::flush();
                }
                take(requests)?;
            }
            Next::Look | Next::StepAside => {
                if interrupt == Signalled::Yes {
                    // It must not wait for the end of the look-out.
                    executor::flush();
                }
                if next == Next::StepAside {
                    paced.step_aside();
                }
                if !paced.look(waiting) {
                    break;
                }
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

/// Ready when nothing is in flight any more, of which all was given up.
fn poll_abandoned(requests: &mut impl Requests, context: &mut Context<'_>) -> Poll<()> {
    requests.queue().ops.cancel_all();
    while requests.queue().ops.in_flight() > 0 {
        let completed = ready!(requests.queue().ops.poll_next(context));
        requests.abandoned(completed);
    }
    Poll::Ready(())
}

fn take<R: Requests>(requests: &mut R) -> Result<(), R::Failure> {
    let paced = requests.queue();
    paced.visited_at = paced.pacing.now();
    paced.active.trace().at(paced.visited_at);
    let taken = requests.take()?;
    let paced = requests.queue();
    paced.pacing.taken(taken);
    let left = paced.waiting();
    paced.pacing.left(left);
    paced.visit();
    Ok(())
}

/// Take all completions that are there.
fn complete(requests: &mut impl Requests, context: &mut Context<'_>) {
    let mut any = false;
    while let Poll::Ready(completed) = requests.queue().ops.poll_next(context) {
        any = true;
        requests.completed(completed);
        requests.queue().publish_part();
    }
    if any {
        let paced = requests.queue();
        paced.pacing.completed(paced.ops.in_flight());
    }
}
