//! The task of all queues of a device: they share the connections, so they are served together.
//!
//! ```text
//!   transmit queue ──► packets ──► sockets of the host, or their buffers
//!   sockets ──► those that are ready, in turn ──► receive queue
//!   event queue: once, to a driver whose connections a dead back end has taken with it
//! ```
//!
//! Data is moved by plain system calls that never wait, as each moves many buffers; readiness comes
//! from the ring, many notices in one visit.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use executor::{Instant, Sleep};
use zerocopy::IntoBytes;

use super::failure::Failure;
use super::hub::Hub;
use super::pool::Pool;
use super::protocol::{EVENT_BYTES, EVENT_TRANSPORT_RESET, HEADER_BYTES, Header};
use super::receive::Delivery;
use super::transmit::Taken;
use crate::virtio::queue::{Availability, Chain, GuestBuffers, Side};
use crate::virtio::worker::{ActiveQueue, Next, Pacing, Patience, Signalled, StopMode};

/// Packets taken at once: then the receive queue has its turn, and the driver gets its buffers back
/// before it runs out of them.
const BATCH: u16 = 64;
/// Rounds before other tasks run.
const ROUNDS: usize = 8;

/// The queues of a device.
#[derive(Debug)]
pub(super) struct Queues {
    pub(super) receive: ActiveQueue,
    pub(super) transmit: ActiveQueue,
    pub(super) event: ActiveQueue,
}

/// Whether the driver has to hear that its connections are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Notice {
    #[default]
    None,
    TransportReset,
}

/// Serve the queues until they are stopped.
pub(super) async fn serve(
    hub: Rc<RefCell<Hub>>,
    queues: Queues,
    notice: Rc<Cell<Notice>>,
    patience: Patience,
) -> Vec<ActiveQueue> {
    let mut server = Server::new(hub, queues, notice, patience);
    if let Err(failure) = poll_fn(|context| server.poll(context)).await {
        server.queues.transmit.fail(failure.to_string()).await;
    }
    let Queues { receive, transmit, event } = server.queues;
    vec![receive, transmit, event]
}

/// Do nothing with some of the queues: it takes all three.
pub(super) async fn rest(queues: Vec<ActiveQueue>) -> Vec<ActiveQueue> {
    if let Some(queue) = queues.first() {
        let stopped = |context: &mut Context<'_>| match queue.poll_stop(context) {
            Some(_) => Poll::Ready(()),
            None => Poll::Pending,
        };
        poll_fn(stopped).await;
    }
    queues
}

struct Server {
    hub: Rc<RefCell<Hub>>,
    queues: Queues,
    pool: Pool,
    notice: Rc<Cell<Notice>>,
    pacing: Pacing,
    nap: Option<Sleep>,
    chain: Chain,
    data: GuestBuffers,
    /// Given back and not yet published.
    finished: u16,
    /// When the first of those was taken.
    taken_at: Instant,
}

/// What the transmit queue waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outlook {
    /// Nothing: there is more.
    Busy,
    /// Nothing for long: the driver is about to send more.
    Look,
    /// Something else than packets: a nap's end, or room for answers.
    Other,
    /// A kick.
    Kick,
}

impl Server {
    fn new(
        hub: Rc<RefCell<Hub>>,
        queues: Queues,
        notice: Rc<Cell<Notice>>,
        patience: Patience,
    ) -> Self {
        let memory = queues.transmit.memory().clone();
        let largest = queues.transmit.queue.size().max(queues.event.queue.size());
        Self {
            hub,
            pool: Pool::new(&memory, queues.receive.queue.size()),
            notice,
            pacing: Pacing::new(patience),
            nap: None,
            chain: Chain::new(memory.clone(), usize::from(largest)),
            data: GuestBuffers::new(memory),
            finished: 0,
            taken_at: executor::now(),
            queues,
        }
    }

    /// The main line: ready when it was stopped, or with a failure.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.hub.borrow_mut().remember_waker(context);
        for _ in 0..ROUNDS {
            match self.queues.transmit.poll_stop(context) {
                Some(StopMode::Abort) => return Poll::Ready(Ok(())),
                Some(StopMode::Drain) => return Poll::Ready(self.drain()),
                None => {}
            }
            self.queues.transmit.queue.disable_kicks();
            self.queues.receive.queue.disable_kicks();
            self.notify(context)?;
            self.hub.borrow_mut().take_events(context);
            let outlook = self.take(context)?;
            let delivery =
                self.hub.borrow_mut().deliver(&mut self.pool, &mut self.queues.receive.queue)?;
            let interrupt = self.publish();
            if outlook == Outlook::Busy || delivery == Delivery::More {
                continue;
            }
            if outlook == Outlook::Look {
                if interrupt == Signalled::Yes {
                    // It must not wait for the end of the look-out.
                    executor::flush();
                }
                break;
            }
            if self.sleeps(outlook, delivery, context)? {
                return Poll::Pending;
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Take packets of the guest.
    fn take(&mut self, context: &mut Context<'_>) -> Result<Outlook, Failure> {
        if !self.hub.borrow().can_reply() {
            return Ok(Outlook::Other);
        }
        if let Some(nap) = &mut self.nap {
            if Pin::new(nap).poll(context).is_pending() {
                return Ok(Outlook::Other);
            }
            self.nap = None;
        }
        let queue = &mut self.queues.transmit.queue;
        let waiting = queue.available().min(queue.size());
        Ok(match self.pacing.next(waiting, 0, 0) {
            Next::Take => {
                self.take_batch()?;
                Outlook::Busy
            }
            Next::Look | Next::StepAside => Outlook::Look,
            Next::Nap(duration) => {
                self.nap = Some(executor::sleep(duration));
                Outlook::Busy
            }
            Next::Doze => Outlook::Other,
            Next::Sleep => Outlook::Kick,
        })
    }

    fn take_batch(&mut self) -> Result<(), Failure> {
        let mut hub = self.hub.borrow_mut();
        let (mut taken, mut moved) = (0, 0);
        let origin = match self.notice.get() {
            Notice::TransportReset => Taken::BeforeReset,
            Notice::None => Taken::Now,
        };
        while taken < BATCH {
            let queue = &mut self.queues.transmit.queue;
            // What a predecessor took is bounded by the queue.
            if !hub.can_reply() && !queue.is_recovering() {
                break;
            }
            if !queue.pop(&mut self.chain)? {
                break;
            }
            taken += 1;
            if self.finished == 0 {
                self.taken_at = executor::now();
            }
            let (head, bytes) = (self.chain.head(), self.chain.readable_bytes());
            moved += u64::from(bytes.saturating_sub(HEADER_BYTES));
            let mut header = Header::default();
            if self.chain.read_exact(header.as_mut_bytes()) {
                self.data.fill(&self.chain, Side::Readable);
                hub.packet(&header, &mut self.data, origin);
            } else {
                hub.complaints.warn(format_args!("vsock: a packet is shorter than its header"));
            }
            self.queues.transmit.queue.push_used(head, 0);
            self.finished += 1;
        }
        self.pacing.taken(taken);
        if taken > 0 {
            self.queues.transmit.metrics().moved(moved);
        }
        Ok(())
    }

    /// Whether there is nothing to do before somebody wakes this task.
    fn sleeps(
        &mut self,
        outlook: Outlook,
        delivery: Delivery,
        context: &mut Context<'_>,
    ) -> Result<bool, Failure> {
        let mut sleeps = true;
        if outlook == Outlook::Kick && !waits_for_kick(&mut self.queues.transmit, context)? {
            // Also what no count shows, the beginning of a chain that has no end: it breaks the queue.
            self.take_batch()?;
            sleeps = false;
        }
        if delivery == Delivery::NoBuffers {
            sleeps &= waits_for_kick(&mut self.queues.receive, context)?;
        }
        Ok(sleeps)
    }

    fn publish(&mut self) -> Signalled {
        self.pacing.published(std::mem::take(&mut self.finished), executor::now());
        let transmit = self.queues.transmit.publish_taken_at(self.taken_at);
        let received = self.pool.take_moved();
        if received > 0 {
            self.queues.receive.metrics().moved(received);
        }
        match self.queues.receive.publish() {
            Signalled::Yes => Signalled::Yes,
            Signalled::No => transmit,
        }
    }

    /// Tell the driver that its connections are gone, when it has given a buffer for that.
    fn notify(&mut self, context: &mut Context<'_>) -> Result<(), Failure> {
        // What a predecessor took is answered first.
        if self.notice.get() == Notice::None || self.queues.transmit.queue.is_recovering() {
            return Ok(());
        }
        let event = &mut self.queues.event;
        event.queue.disable_kicks();
        while !event.queue.pop(&mut self.chain)? {
            if waits_for_kick(event, context)? {
                return Ok(());
            }
        }
        let (head, bytes) = (self.chain.head(), self.chain.writable_bytes());
        if bytes < EVENT_BYTES {
            return Err(Failure::ShortEvent { head, bytes });
        }
        self.chain.write(&EVENT_TRANSPORT_RESET.to_le_bytes());
        event.queue.push_used(head, EVENT_BYTES);
        event.publish();
        self.notice.set(Notice::None);
        Ok(())
    }

    /// Leave the queues with nothing taken.
    fn drain(&mut self) -> Result<(), Failure> {
        while self.queues.transmit.queue.is_recovering() {
            self.take_batch()?;
        }
        self.pool.put_back(&mut self.queues.receive.queue);
        self.publish();
        Ok(())
    }
}

/// Have the driver kick. False if it has made something available already.
fn waits_for_kick(active: &mut ActiveQueue, context: &mut Context<'_>) -> Result<bool, Failure> {
    if active.queue.enable_kicks() == Availability::More {
        return Ok(false);
    }
    match active.poll_kick(context) {
        Poll::Pending => Ok(true),
        Poll::Ready(kicked) => Ok(kicked.map(|()| false)?),
    }
}
