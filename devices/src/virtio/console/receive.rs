//! The task of a port's receive queue: bytes from the host's end straight into guest memory.
//!
//! One read is under way at a time, into all buffers that the driver has given. Nothing is read for
//! a port that nobody in the guest has open: the host's end fills up, and whoever writes there waits.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use super::batch::Batch;
use super::failure::Failure;
use super::port::Port;
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
    let mut server = Receiver {
        console,
        port,
        ops: GuestOps::new(1),
        chain: Chain::new(memory.clone(), size),
        batch: Batch::new(memory, Side::Writable),
        cancelled: false,
        active,
    };
    if let Err(failure) = poll_fn(|context| server.poll(context)).await {
        server.active.give_up(failure, &mut server.ops).await;
    }
    vec![server.active]
}

struct Receiver {
    console: Rc<Console>,
    port: usize,
    active: ActiveQueue,
    ops: GuestOps,
    chain: Chain,
    batch: Batch,
    cancelled: bool,
}

impl Receiver {
    fn port(&self) -> &Port {
        &self.console.ports[self.port]
    }

    /// Whether bytes may be read for the guest now.
    fn is_wanted(&self) -> bool {
        let port = self.port();
        port.input.is_some() && !port.input_ended.get() && self.console.is_open(port)
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
            self.active.publish();
            if stop.is_some() || !self.is_wanted() {
                return self.poll_quiet(stop, context);
            }
            if self.ops.in_flight() > 0 {
                self.console.changes.register(context);
                return Poll::Pending;
            }
            self.gather()?;
            if !self.batch.is_empty() {
                self.submit();
            } else if !self.active.queue.has_available()
                && self.active.queue.enable_kicks() == Availability::Empty
            {
                // What had no room for anything is given back first.
                self.active.publish();
                ready!(self.active.poll_kick(context))?;
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Nothing is to be read: a read under way is cancelled, and its buffers left for later.
    fn poll_quiet(
        &mut self,
        stop: Option<StopMode>,
        context: &Context<'_>,
    ) -> Poll<Result<(), Failure>> {
        if self.ops.in_flight() > 0 {
            if !std::mem::replace(&mut self.cancelled, true) {
                self.ops.cancel_all();
            }
            return Poll::Pending;
        }
        if stop.is_some() {
            self.batch.put_back(&mut self.active.queue);
            return Poll::Ready(Ok(()));
        }
        self.console.changes.register(context);
        Poll::Pending
    }

    /// Take the chains that are available.
    fn gather(&mut self) -> Result<(), Failure> {
        for _ in 0..self.active.queue.size() {
            if self.batch.is_full() || !self.active.queue.pop(&mut self.chain)? {
                break;
            }
            let (head, bytes) = (self.chain.head(), self.chain.writable_bytes());
            if bytes == 0 {
                self.active.queue.push_used(head, 0);
            } else if self.batch.could_take(bytes) {
                self.batch.add(&self.chain);
            } else {
                self.active.queue.put_back(head);
                break;
            }
        }
        Ok(())
    }

    fn submit(&mut self) {
        let port = &self.console.ports[self.port];
        let input = port.input.as_ref().expect("checked before");
        let submitted = self.ops.transfer(input, self.batch.buffers(), Side::Writable, STREAM, 0);
        submitted.expect("there is room for one operation");
    }

    /// Take the completion, if it is there.
    fn complete(&mut self, context: &mut Context<'_>) {
        while let Poll::Ready(Completed { result, .. }) = self.ops.poll_next(context) {
            self.cancelled = false;
            match result {
                Ok(bytes) if bytes > 0 => {
                    self.active.metrics().moved(bytes.into());
                    self.batch.filled(bytes, &mut self.active.queue);
                }
                Ok(_) => self.end(&io::ErrorKind::UnexpectedEof.into()),
                Err(error) => match error.raw_os_error() {
                    Some(libc::ECANCELED | libc::EAGAIN | libc::EINTR) => {}
                    _ => self.end(&error),
                },
            }
        }
    }

    /// The host's end is gone.
    fn end(&mut self, error: &io::Error) {
        log::debug!("{}: no more input: {error}", self.console.name_of(self.port));
        self.port().input_ended.set(true);
    }
}
