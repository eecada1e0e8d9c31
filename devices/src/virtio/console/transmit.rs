//! The task of a port's transmit queue: bytes from guest memory to the host's end.
//!
//! One write is under way at a time, since a stream has an order; it gathers all that the driver has
//! made available. A host's end that takes nothing stalls this port only, and nothing is lost.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use executor::Instant;

use super::batch::{Batch, Progress};
use super::failure::Failure;
use super::port::{OutputState, Port};
use super::{Console, STREAM};
use crate::virtio::queue::{Availability, Chain, Completed, GuestOps, Side};
use crate::virtio::worker::{ActiveQueue, StopMode};

/// Rounds before other tasks run.
const ROUNDS: usize = 8;

/// Serve one queue until it is stopped.
pub(super) async fn serve(
    console: Rc<Console>,
    port: usize,
    active: ActiveQueue,
) -> Vec<ActiveQueue> {
    let size = usize::from(active.queue.size());
    let memory = active.memory().clone();
    let mut server = Transmitter {
        console,
        port,
        ops: GuestOps::new(1),
        chain: Chain::new(memory.clone(), size),
        batch: Batch::new(memory, Side::Readable),
        taken_at: executor::now(),
        cancelled: false,
        active,
    };
    let outcome = poll_fn(|context| server.poll(context)).await;
    server.set_state(OutputState::Unserved);
    if let Err(failure) = outcome {
        server.active.give_up(failure, &mut server.ops).await;
    }
    vec![server.active]
}

struct Transmitter {
    console: Rc<Console>,
    port: usize,
    active: ActiveQueue,
    ops: GuestOps,
    chain: Chain,
    batch: Batch,
    /// When the oldest chain of the batch was taken.
    taken_at: Instant,
    cancelled: bool,
}

impl Transmitter {
    fn port(&self) -> &Port {
        &self.console.ports[self.port]
    }

    fn set_state(&self, state: OutputState) {
        self.port().output_state.set(state);
        if state != OutputState::Busy {
            self.console.rested.notify();
        }
    }

    /// The main line: ready when it was stopped and nothing is in flight, or with a failure.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        for _ in 0..ROUNDS {
            let stop = self.active.poll_stop(context);
            if stop == Some(StopMode::Abort) {
                return self.ops.poll_cancelled(context).map(Ok);
            }
            self.active.queue.disable_kicks();
            self.complete(context);
            self.active.publish_taken_at(self.taken_at);
            if stop.is_some() {
                return self.poll_drained();
            }
            if self.ops.in_flight() > 0 {
                return Poll::Pending;
            }
            self.set_state(OutputState::Busy);
            if self.batch.is_empty() {
                self.taken_at = executor::now();
            }
            self.gather()?;
            if !self.batch.is_empty() {
                self.submit();
            } else if !self.active.queue.has_available()
                && self.active.queue.enable_kicks() == Availability::Empty
            {
                // What was thrown away is given back first.
                self.active.publish_taken_at(self.taken_at);
                self.set_state(OutputState::Idle);
                self.console.changes.register(context);
                ready!(self.active.poll_kick(context))?;
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// A write may wait for ever: it is cancelled, and what it has not written left for later.
    fn poll_drained(&mut self) -> Poll<Result<(), Failure>> {
        if self.ops.in_flight() > 0 {
            if !std::mem::replace(&mut self.cancelled, true) {
                self.ops.cancel_all();
            }
            return Poll::Pending;
        }
        self.batch.put_back(&mut self.active.queue);
        Poll::Ready(Ok(()))
    }

    /// Take the chains that are available.
    fn gather(&mut self) -> Result<(), Failure> {
        // No more than the queue has: then others run.
        for _ in 0..self.active.queue.size() {
            let recovering = self.active.queue.is_recovering();
            if self.batch.is_full() || !self.active.queue.pop(&mut self.chain)? {
                break;
            }
            let (head, bytes) = (self.chain.head(), self.chain.readable_bytes());
            if bytes == 0 || self.port().output.is_none() || self.port().output_ended.get() {
                self.set_written(0);
                self.active.queue.push_used(head, 0);
            } else if self.batch.could_take(bytes) {
                let first = self.batch.is_empty();
                self.batch.add(&self.chain);
                if first && !self.skip_what_is_written(recovering) {
                    self.set_written(0);
                    self.active.queue.push_used(head, 0);
                }
            } else {
                self.active.queue.put_back(head);
                break;
            }
        }
        Ok(())
    }

    /// Of a chain that was taken before, a part may have been written. False if that is all of it.
    fn skip_what_is_written(&mut self, recovering: bool) -> bool {
        let written = self.port().written.get();
        if written == 0 {
            return true;
        }
        if !recovering {
            self.set_written(0);
            return true;
        }
        self.batch.skip(written)
    }

    fn submit(&mut self) {
        let port = &self.console.ports[self.port];
        let output = port.output.as_ref().expect("checked when the chains were taken");
        let submitted = self.ops.transfer(output, self.batch.buffers(), Side::Readable, STREAM, 0);
        submitted.expect("there is room for one operation");
    }

    /// Take the completion, if it is there.
    fn complete(&mut self, context: &mut Context<'_>) {
        while let Poll::Ready(Completed { result, .. }) = self.ops.poll_next(context) {
            self.cancelled = false;
            match result {
                Ok(bytes) if bytes > 0 => {
                    self.console.moved.update(|moved| moved.wrapping_add(1));
                    self.active.metrics().moved(bytes.into());
                    let written = self.port().written.get();
                    match self.batch.written(bytes, &mut self.active.queue) {
                        Progress::More(more) => self.set_written(written.saturating_add(more)),
                        Progress::Anew(bytes) => self.set_written(bytes),
                    }
                }
                Ok(_) => self.give_up(&io::ErrorKind::WriteZero.into()),
                Err(error) => match error.raw_os_error() {
                    Some(libc::ECANCELED | libc::EAGAIN | libc::EINTR) => {}
                    _ => self.give_up(&error),
                },
            }
        }
    }

    /// The host's end is gone or full for good.
    fn give_up(&mut self, error: &io::Error) {
        let name = self.console.name_of(self.port);
        log::warn!("{name}: output is thrown away from now on: {error}");
        self.port().output_ended.set(true);
        let all = self.batch.buffers().bytes();
        self.batch.written(all, &mut self.active.queue);
        self.set_written(0);
    }

    /// Remembers how far the first chain is. Nearly always it is not begun, or was done at once.
    fn set_written(&self, bytes: u32) {
        if self.port().written.replace(bytes) != bytes {
            self.console.store();
        }
    }
}
