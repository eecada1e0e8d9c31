//! A queue that is being served: rings, kick, interrupt, and the signal to stop.

use std::fmt::Display;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};

use executor::{Fd, Instant, Notifications};
use ipc::Sender;
use thiserror::Error;

use super::stop::{Stop, StopMode};
use crate::memory::GuestMemory;
use crate::virtio::backend::{BackendEvent, QueueSetup, QueueState};
use crate::virtio::metrics::QueueMetrics;
use crate::virtio::queue::{
    Availability, GuestOps, InflightRecord, Interrupt, Queue, QueueError, QueueLayout,
    RingFeatures, ring_layout,
};
use crate::virtio::tracing::DeviceTrace;

/// Whether an interrupt is on its way with the next visit to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signalled {
    /// It is queued.
    Yes,
    /// The driver wants none.
    No,
}

/// The driver's kicks can no longer be waited for.
#[derive(Debug, Error)]
#[error("waiting for kicks: {0}")]
pub struct KickError(#[from] io::Error);

/// Where a queue says what it does.
#[derive(Debug)]
pub(super) struct Notes {
    pub(super) metrics: QueueMetrics,
    pub(super) trace: DeviceTrace,
}

/// A queue of an active device.
#[derive(Debug)]
pub struct ActiveQueue {
    index: u16,
    /// The rings.
    pub queue: Queue,
    memory: Rc<GuestMemory>,
    kicks: Notifications,
    call: Option<Fd>,
    events: Sender<BackendEvent>,
    stop: Stop,
    metrics: QueueMetrics,
    trace: DeviceTrace,
    goes_on: bool,
}

impl ActiveQueue {
    pub(super) fn new(
        memory: &Rc<GuestMemory>,
        features: u64,
        setup: QueueSetup,
        record: Option<InflightRecord>,
        notes: Notes,
        events: &Sender<BackendEvent>,
        stop: &Stop,
    ) -> Result<Self, String> {
        let index = setup.index;
        let layout = QueueLayout::from(&setup);
        if layout.format != ring_layout(features) {
            return Err(format!("queue {index}: {}", QueueError::FormatNotNegotiated));
        }
        let features = RingFeatures::from_bits(features);
        let position = setup.state.map(|state| state.position);
        let goes_on = position.is_some();
        let record = record.unwrap_or_else(|| InflightRecord::private(setup.size));
        let queue = Queue::new(memory, &layout, features, record, position)
            .map_err(|error| format!("queue {index}: {error}"))?;
        let attach = |what: &str, fd: ipc::Fd| {
            Fd::new(fd).map_err(|error| format!("queue {index}: the {what} eventfd: {error}"))
        };
        let kicks = attach("kick", setup.kick)?.notifications();
        // Of a front end of another program it is that program's.
        let call =
            setup.call.map(|call| attach("interrupt", call).map(Fd::keep_flags)).transpose()?;
        if queue.was_taken_over()
            && let Some(call) = &call
        {
            // The predecessor may have died between publishing buffers and saying so.
            call.signal();
        }
        Ok(Self {
            index,
            goes_on: goes_on || queue.was_taken_over(),
            queue,
            memory: memory.clone(),
            kicks,
            call,
            events: events.clone(),
            stop: stop.clone(),
            metrics: notes.metrics,
            trace: notes.trace,
        })
    }

    /// Queue index of the device.
    pub fn index(&self) -> u16 {
        self.index
    }

    /// The guest's memory.
    pub fn memory(&self) -> &Rc<GuestMemory> {
        &self.memory
    }

    /// Where the queue stands.
    pub fn state(&self) -> QueueState {
        QueueState { index: self.index, position: self.queue.position() }
    }

    /// Whether the driver that uses the queue was served before, here or by somebody else: what it has said
    /// holds. Otherwise the queue begins, and a driver that has said nothing with it.
    pub fn goes_on(&self) -> bool {
        self.goes_on
    }

    /// Where the queue counts what it does. Kicks, interrupts and batches are counted here.
    #[inline]
    pub fn metrics(&self) -> &QueueMetrics {
        &self.metrics
    }

    /// Where the queue writes down what it does.
    #[inline]
    pub(crate) fn trace(&self) -> &DeviceTrace {
        &self.trace
    }

    /// Show the driver what was given back; one interrupt for all of it, if it wants one.
    pub fn publish(&mut self) -> Signalled {
        let count = self.queue.unpublished();
        let signalled = match (self.queue.publish(), &self.call) {
            (Interrupt::Wanted, Some(call)) => {
                self.metrics.interrupted();
                call.signal();
                Signalled::Yes
            }
            _ => Signalled::No,
        };
        if count > 0 {
            self.metrics.published(count);
        }
        signalled
    }

    /// [`ActiveQueue::publish`], where all that was given back was taken at that time.
    pub fn publish_taken_at(&mut self, taken_at: Instant) -> Signalled {
        let count = self.queue.unpublished();
        if count > 0 {
            let time = executor::now().duration_since(taken_at);
            self.metrics.took_each(count, time);
        }
        self.publish()
    }

    /// Whether and how to stop; wakes the task of `context` when it is time.
    pub fn poll_stop(&self, context: &Context<'_>) -> Option<StopMode> {
        match self.stop.poll(context) {
            Poll::Ready(mode) => Some(mode),
            Poll::Pending => None,
        }
    }

    /// Ready when the driver kicked since the last call. Only with kicks enabled does it have to.
    pub fn poll_kick(&mut self, context: &mut Context<'_>) -> Poll<Result<(), KickError>> {
        let kick = self.kicks.poll_next(context);
        if kick.is_ready() {
            self.metrics.kicked();
        }
        kick.map_err(KickError)
    }

    /// Wait until there is a buffer to take, or it is time to stop. For back ends that wait for
    /// nothing else.
    pub async fn available(&mut self) -> Result<Option<StopMode>, KickError> {
        poll_fn(|context| {
            loop {
                if let Some(mode) = self.poll_stop(context) {
                    return Poll::Ready(Ok(Some(mode)));
                }
                if self.queue.has_available() || self.queue.enable_kicks() == Availability::More {
                    self.queue.disable_kicks();
                    return Poll::Ready(Ok(None));
                }
                if let Err(error) = std::task::ready!(self.poll_kick(context)) {
                    return Poll::Ready(Err(error));
                }
            }
        })
        .await
    }

    /// The queue is broken: say so, then wait to be stopped.
    pub async fn fail(&self, reason: String) {
        let event = BackendEvent::NeedsReset { queue: self.index, reason };
        // The channel may be full for long: a reset need not wait for that.
        executor::select(self.stop.stopped(), self.events.send(event)).await;
        self.stop.stopped().await;
    }

    /// [`ActiveQueue::fail`], after which nothing of `ops` is in flight.
    pub(crate) async fn give_up(&self, failure: impl Display, ops: &mut GuestOps) {
        self.fail(failure.to_string()).await;
        poll_fn(|context| ops.poll_cancelled(context)).await;
    }

    pub(super) fn resume(&mut self, stop: &Stop) {
        self.stop = stop.clone();
        self.goes_on = true;
    }

    /// It is not served for now. Buffers that were put back are in the record, and in no position: that
    /// stays for whoever serves the queue next.
    pub(super) fn let_go(self) {
        if !self.queue.is_recovering() {
            self.retire();
        }
    }

    pub(super) fn retire(self) {
        drop(self.queue.retire());
    }
}
