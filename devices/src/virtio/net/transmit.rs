//! The task of a transmit queue: frames from guest memory to the tap, one write each, many in one
//! visit to the kernel.

use std::io;
use std::rc::Rc;

use super::failure::Failure;
use super::network::Network;
use super::protocol::{ETHERNET_HEADER, HEADER_BYTES, LARGE_FRAME};
use super::{LinkState, STREAM};
use crate::virtio::queue::{Chain, Completed, GuestBuffers, Side};
use crate::virtio::worker::{ActiveQueue, PacedQueue, Requests, serve_paced};

/// Frames taken at once. Many share one visit to the kernel then, and the driver gets its buffers
/// back before it runs out of them.
const BATCH: u16 = 64;
/// Bytes taken at once, that is 16 of the largest frames: some 100 us of copying.
const BATCH_BYTES: u64 = 1 << 20;
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
    serve_paced(Transmitter::new(network, pair, active)).await
}

struct Transmitter {
    network: Rc<Network>,
    pair: usize,
    paced: PacedQueue,
    chain: Chain,
    frame: GuestBuffers,
}

impl Transmitter {
    fn new(network: Rc<Network>, pair: usize, active: ActiveQueue) -> Self {
        let size = usize::from(active.queue.size());
        let memory = active.memory().clone();
        let paced = PacedQueue::new(active, network.patience, network.changes.clone());
        Self {
            // The driver works on the rest meanwhile.
            paced: paced.with_enough(BATCH - BATCH / 4),
            network,
            pair,
            chain: Chain::for_any_buffers(memory.clone(), size),
            frame: GuestBuffers::new(memory),
        }
    }

    /// Send the frame of the chain that was just taken; says how many bytes it has.
    fn send(&mut self) -> u64 {
        let head = self.chain.head();
        let bytes = self.chain.readable_bytes() as usize;
        let fits = (SHORTEST..=LONGEST).contains(&bytes) && self.chain.outside().is_none();
        if !fits || self.network.link.get() == LinkState::Down {
            self.network.transmitted.count(|traffic| traffic.dropped += 1);
            self.paced.give_back(head, 0);
            return 0;
        }
        let bytes = (bytes - HEADER_BYTES) as u64;
        self.network.transmit_limit.borrow_mut().charge(bytes);
        self.frame.fill(&self.chain, Side::Readable);
        let tap = &self.network.taps[self.pair];
        let submitted = self.paced.ops.transfer(tap, &self.frame, Side::Readable, STREAM, head);
        submitted.expect("there is room for one operation of each head");
        bytes
    }

    fn note(&mut self, result: &io::Result<u32>) {
        let counters = &self.network.transmitted;
        match result {
            Ok(bytes) => {
                let bytes = u64::from(*bytes).saturating_sub(HEADER_BYTES as u64);
                self.paced.moved(bytes);
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
                    let index = self.paced.active.index();
                    self.network
                        .complaints
                        .warn(format_args!("network, queue {index}: a frame was refused: {error}"));
                }
            }
        }
    }
}

impl Requests for Transmitter {
    type Failure = Failure;

    fn queue(&mut self) -> &mut PacedQueue {
        &mut self.paced
    }

    /// Take the frames that are available and send them.
    fn take(&mut self) -> Result<u16, Failure> {
        let (mut taken, mut bytes) = (0, 0);
        while taken < BATCH && bytes < BATCH_BYTES {
            if self.paced.must_rest(&self.network.transmit_limit)
                || !self.paced.pop(&mut self.chain)?
            {
                break;
            }
            taken += 1;
            bytes += self.send();
        }
        Ok(taken)
    }

    fn completed(&mut self, Completed { tag, result, .. }: Completed) {
        self.note(&result);
        self.paced.give_back(tag, 0);
    }

    fn into_queue(self) -> PacedQueue {
        self.paced
    }
}
