//! The task of a transmit queue: frames from guest memory to the tap, one write each, many in one
//! visit to the kernel.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::failure::Failure;
use super::network::Network;
use super::protocol::{ETHERNET_HEADER, HEADER_BYTES, LARGE_FRAME};
use super::{LinkState, STREAM};
use crate::virtio::queue::{Availability, Chain, Completed, GuestBuffers, GuestOps, Side};
use crate::virtio::worker::{ActiveQueue, Next, Pacing, Rest, Signalled, StopMode};

/// Frames taken at once. Many share one visit to the kernel then, and the driver gets its buffers
/// back before it runs out of them.
const BATCH: u16 = 64;
/// Bytes taken at once, that is 16 of the largest frames: some 100 us of copying.
const BATCH_BYTES: u64 = 1 << 20;
/// Rounds of taking and publishing before other tasks run, when frames are dropped at once.
const ROUNDS: usize = 8;
/// Shorter frames have no Ethernet header.
const SHORTEST: usize = HEADER_BYTES + ETHERNET_HEADER;
/// Longer ones are larger than any that was negotiated.
const LONGEST: usize = HEADER_BYTES + LARGE_FRAME;

/// Serve one queue until it is stopped.
pub(super) async fn serve(
    network: Rc<Network>,
    pair: usize,
    active: ActiveQueue,
) -> Vec<ActiveQueue> {
    let mut server = Transmitter::new(network, pair, active);
    if let Err(failure) = poll_fn(|context| server.poll(context)).await {
        server.active.fail(failure.to_string()).await;
        server.ops.cancel_all();
        poll_fn(|context| server.drop_completions(context)).await;
    }
    vec![server.active]
}

struct Transmitter {
    network: Rc<Network>,
    pair: usize,
    active: ActiveQueue,
    ops: GuestOps,
    chain: Chain,
    frame: GuestBuffers,
    pacing: Pacing,
    rest: Rest,
    /// Given back and not yet published.
    finished: u16,
}

impl Transmitter {
    fn new(network: Rc<Network>, pair: usize, active: ActiveQueue) -> Self {
        let size = usize::from(active.queue.size());
        let memory = active.memory().clone();
        Self {
            pacing: Pacing::new(network.patience),
            network,
            pair,
            ops: GuestOps::new(size),
            chain: Chain::for_any_buffers(memory.clone(), size),
            frame: GuestBuffers::new(memory),
            rest: Rest::None,
            finished: 0,
            active,
        }
    }

    /// The main line: ready when it was stopped and nothing is in flight, or with a failure.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        for _ in 0..ROUNDS {
            let stop = self.active.poll_stop(context);
            if stop == Some(StopMode::Abort) {
                self.ops.cancel_all();
                return self.drop_completions(context).map(Ok);
            }
            // Off before anything is published: a driver that polls answers at once.
            self.active.queue.disable_kicks();
            self.complete(context);
            let interrupt = self.publish();
            if stop.is_some() && !self.active.queue.is_recovering() {
                return if self.ops.in_flight() == 0 { Poll::Ready(Ok(())) } else { Poll::Pending };
            }
            std::task::ready!(self.rest.poll(&self.network.changes, context));
            let waiting = self.active.queue.available().min(self.active.queue.size());
            match self.pacing.next(waiting, self.ops.in_flight(), 0) {
                Next::Take => self.take()?,
                Next::Look => {
                    if interrupt == Signalled::Yes {
                        // It must not wait for the end of the look-out.
                        executor::flush();
                    }
                    break;
                }
                Next::Nap(duration) => self.rest = Rest::nap(duration),
                Next::Doze => return Poll::Pending,
                Next::Sleep => {
                    if self.active.queue.enable_kicks() == Availability::More {
                        self.take()?;
                    } else {
                        std::task::ready!(self.active.poll_kick(context)).map_err(Failure::Kick)?;
                    }
                }
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Take the frames that are available and send them.
    fn take(&mut self) -> Result<(), Failure> {
        let (mut taken, mut bytes) = (0, 0);
        while taken < BATCH && bytes < BATCH_BYTES {
            self.rest = Rest::for_limit(&self.network.transmit_limit, &self.network.changes);
            if !self.rest.is_none() || !self.active.queue.pop(&mut self.chain)? {
                break;
            }
            taken += 1;
            bytes += self.send();
        }
        self.pacing.taken(taken);
        Ok(())
    }

    /// Send the frame of the chain that was just taken; says how many bytes it has.
    fn send(&mut self) -> u64 {
        let head = self.chain.head();
        let bytes = self.chain.readable_bytes() as usize;
        let fits = (SHORTEST..=LONGEST).contains(&bytes) && self.chain.outside().is_none();
        if !fits || self.network.link.get() == LinkState::Down {
            self.network.transmitted.count(|traffic| traffic.dropped += 1);
            self.finish(head);
            return 0;
        }
        let bytes = (bytes - HEADER_BYTES) as u64;
        self.network.transmit_limit.borrow_mut().charge(bytes);
        self.frame.fill(&self.chain, Side::Readable);
        let tap = &self.network.taps[self.pair];
        let submitted = self.ops.transfer(tap, &self.frame, Side::Readable, STREAM, head);
        submitted.expect("there is room for one operation of each head");
        bytes
    }

    /// Take all completions that are there.
    fn complete(&mut self, context: &mut Context<'_>) {
        let mut any = false;
        while let Poll::Ready(Completed { tag, result, .. }) = self.ops.poll_next(context) {
            any = true;
            self.note(&result);
            self.finish(tag);
        }
        if any {
            self.pacing.completed(self.ops.in_flight());
        }
    }

    fn note(&self, result: &io::Result<u32>) {
        let counters = &self.network.transmitted;
        match result {
            Ok(bytes) => {
                let bytes = u64::from(*bytes).saturating_sub(HEADER_BYTES as u64);
                self.active.metrics().moved(bytes);
                counters.count(|traffic| {
                    traffic.frames += 1;
                    traffic.bytes += bytes;
                });
            }
            Err(error) => {
                counters.count(|traffic| traffic.errors += 1);
                // The interface is down or full: nothing to tell. The rest is a frame that the kernel
                // does not take.
                if !matches!(error.raw_os_error(), Some(libc::EIO | libc::EAGAIN | libc::ENOBUFS)) {
                    let index = self.active.index();
                    self.network
                        .complaints
                        .warn(format_args!("network, queue {index}: a frame was refused: {error}"));
                }
            }
        }
    }

    /// Give the buffer back.
    fn finish(&mut self, head: u16) {
        self.active.queue.push_used(head, 0);
        self.finished += 1;
    }

    fn publish(&mut self) -> Signalled {
        self.pacing.published(std::mem::take(&mut self.finished));
        self.active.publish()
    }

    /// Wait until nothing is in flight; nothing of it counts any more.
    fn drop_completions(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while self.ops.in_flight() > 0 {
            drop(std::task::ready!(self.ops.poll_next(context)));
        }
        Poll::Ready(())
    }
}
