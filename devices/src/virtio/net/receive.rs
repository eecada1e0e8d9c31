//! The task of a receive queue: frames from the tap straight into guest memory.
//!
//! ```text
//!   available ring ──► gather ──► read under way ──► frame ──► check ──► used ring
//!                        ▲                                       │
//!                        └──── buffers that stayed empty ◄───────┘
//! ```
//!
//! A read must have room for the largest frame. With mergeable buffers it holds as many of the
//! driver's buffers as that takes; a small frame uses up one of them and the others serve the next
//! read. Several reads are under way at once, as many as frames come at a time ([`Depth`]).
//!
//! Where the driver has given too few buffers for that, nothing is read until a frame is there. Then it
//! gets a moment to give more, and a kick ends that; one that has no more to give gets what fits.

mod depth;
mod slot;
mod wanted;

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use executor::{PollFlags, Sleep};

use self::depth::Depth;
use self::slot::Slot;
use self::wanted::{is_wanted, may_be_cut};
use super::STREAM;
use super::failure::Failure;
use super::network::Network;
use super::protocol::{ETHERNET_HEADER, HEADER_BYTES, LARGE_FRAME, ORDINARY_BUFFER, VLAN_TAG};
use crate::virtio::queue::{Availability, Chain, Completed, GuestOps, Side, Tag};
use crate::virtio::worker::{ActiveQueue, Rest, StopMode};

/// Most reads under way; more frames than this wait in the tap.
const MAX_READS: usize = 64;
/// Rounds before other tasks run.
const ROUNDS: usize = 8;
/// How long to wait after an error before reading again: it is one of the interface, which somebody
/// has to bring up or to make anew.
const ERROR_PAUSE: Duration = Duration::from_millis(100);
/// How long frames wait in the tap for a driver that ran out of buffers, unless it kicks before: about
/// as long as others may have its processor. Then they are read into what there is.
pub(super) const REFILL_PATIENCE: Duration = Duration::from_millis(10);

/// The look for a frame, among the reads that are called by their slots.
const LOOK: Tag = MAX_READS as Tag;

/// How the driver's buffers hold frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Buffering {
    /// Each frame in one buffer.
    Single,
    /// A frame in as many buffers as it takes.
    Mergeable,
}

/// Serve one queue until it is stopped.
pub(super) async fn serve(
    network: Rc<Network>,
    pair: usize,
    buffering: Buffering,
    active: ActiveQueue,
) -> Vec<ActiveQueue> {
    let mut server = Receiver::new(network, pair, buffering, active);
    if let Err(failure) = poll_fn(|context| server.poll(context)).await {
        server.active.give_up(failure, &mut server.ops).await;
    }
    vec![server.active]
}

/// What there is to wait for.
enum Outlook {
    /// Reads are under way.
    Reads,
    /// The driver has to give more buffers.
    Buffers,
    /// A rest is to be taken.
    Rest,
}

struct Receiver {
    network: Rc<Network>,
    pair: usize,
    buffering: Buffering,
    /// Bytes that a read should have room for.
    wanted: u32,
    active: ActiveQueue,
    ops: GuestOps,
    slots: Box<[Slot]>,
    /// Slots without a read under way; the last one is filled first.
    idle: Vec<Tag>,
    chain: Chain,
    depth: Depth,
    rest: Rest,
    cancelled: bool,
    /// The driver gave room for the largest frame the last time, or should have. It gets a moment to
    /// do so before a frame is read into less.
    ample: bool,
    /// The rest of that moment.
    patience: Option<Sleep>,
    sight: Sight,
}

/// What is known of frames in the tap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sight {
    Nothing,
    /// Its next frame brings this task up.
    Looking,
    /// There is one.
    Frame,
}

impl Receiver {
    fn new(network: Rc<Network>, pair: usize, buffering: Buffering, active: ActiveQueue) -> Self {
        let size = usize::from(active.queue.size());
        let memory = active.memory().clone();
        let reads = MAX_READS.min(size);
        let largest = if network.negotiated.get().has_large_frames() {
            LARGE_FRAME
        } else {
            usize::from(network.mtu.max(1500)) + ETHERNET_HEADER + VLAN_TAG
        };
        Self {
            network,
            pair,
            buffering,
            wanted: (HEADER_BYTES + largest) as u32,
            // And one look.
            ops: GuestOps::new(reads + 1),
            slots: (0..reads).map(|_| Slot::new(&memory)).collect(),
            idle: (0..reads as Tag).rev().collect(),
            chain: Chain::new(memory, size),
            depth: Depth::new(reads),
            rest: Rest::None,
            cancelled: false,
            ample: true,
            patience: None,
            sight: Sight::Nothing,
            active,
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
            // An interrupt goes down with the reads that follow, or with the next sleep.
            self.active.publish();
            if stop.is_some() {
                return self.poll_drained();
            }
            std::task::ready!(self.rest.poll(&self.network.changes, context));
            match self.fill()? {
                Outlook::Reads => return Poll::Pending,
                Outlook::Rest => {}
                Outlook::Buffers => {
                    if self.active.queue.enable_kicks() == Availability::Empty {
                        std::task::ready!(self.poll_refill(context))?;
                    }
                }
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Frames may never come: reads are cancelled, and their buffers left for later.
    fn poll_drained(&mut self) -> Poll<Result<(), Failure>> {
        if !self.cancelled {
            self.cancelled = true;
            self.ops.cancel_all();
        }
        if self.ops.in_flight() > 0 {
            return Poll::Pending;
        }
        for slot in &mut self.slots {
            for head in slot.take_heads() {
                self.active.queue.put_back(head);
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Ready when the driver kicked, or was given the time to.
    fn poll_refill(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        if let Poll::Ready(kicked) = self.active.poll_kick(context) {
            return Poll::Ready(Ok(kicked?));
        }
        if let Some(patience) = &mut self.patience {
            std::task::ready!(Pin::new(patience).poll(context));
            self.patience = None;
            self.ample = false;
            return Poll::Ready(Ok(()));
        }
        Poll::Pending
    }

    /// Start as many reads as make sense.
    fn fill(&mut self) -> Result<Outlook, Failure> {
        while self.reads() < self.depth.target() {
            let limit = &self.network.receive_limit;
            self.rest = Rest::for_limit(limit, &self.network.changes);
            if !self.rest.is_none() {
                return Ok(Outlook::Rest);
            }
            let Some(tag) = self.idle.last().copied() else {
                break;
            };
            if !self.gather(tag)? {
                break;
            }
            self.idle.pop();
            let tap = &self.network.taps[self.pair];
            let buffers = self.slots[usize::from(tag)].buffers();
            let submitted = self.ops.transfer(tap, buffers, Side::Writable, STREAM, tag);
            submitted.expect("there is room for one operation of each slot");
            if self.sight == Sight::Frame {
                self.sight = Sight::Nothing;
            }
        }
        Ok(if self.reads() > 0 { Outlook::Reads } else { Outlook::Buffers })
    }

    /// Fill a slot until it has room for a frame. False if there are too few buffers.
    fn gather(&mut self, tag: Tag) -> Result<bool, Failure> {
        let slot = &mut self.slots[usize::from(tag)];
        let mut scattered = false;
        while !slot.has_room(self.wanted, self.buffering) && !scattered {
            if !self.active.queue.pop(&mut self.chain)? {
                break;
            }
            let (head, bytes) = (self.chain.head(), self.chain.writable_bytes());
            if (bytes as usize) < HEADER_BYTES {
                return Err(Failure::ShortBuffer { head, bytes });
            }
            let pieces = self.chain.writable().len();
            scattered = !slot.is_empty() && !slot.could_take(pieces, bytes);
            if scattered {
                self.active.queue.put_back(head);
            } else {
                slot.add(&self.chain);
            }
        }
        if slot.has_room(self.wanted, self.buffering) {
            self.ample = true;
            self.patience = None;
            return Ok(true);
        }
        if scattered {
            let (pieces, bytes) = (slot.pieces(), slot.bytes());
            let enough = bytes as usize >= ORDINARY_BUFFER;
            return if enough { Ok(true) } else { Err(Failure::Scattered { pieces, bytes }) };
        }
        Ok(self.scrape_together(tag))
    }

    /// There are no more buffers: see whether those that idle slots hold are enough for a read.
    fn scrape_together(&mut self, tag: Tag) -> bool {
        if self.buffering == Buffering::Single {
            return false;
        }
        let tag = usize::from(tag);
        for other in self.idle.iter().rev().skip(1).map(|other| usize::from(*other)) {
            if self.slots[tag].has_room(self.wanted, self.buffering) {
                break;
            }
            let pair = self.slots.get_disjoint_mut([tag, other]);
            let [slot, other] = pair.expect("each idle slot is there once");
            if slot.could_take(other.pieces(), other.bytes()) {
                slot.absorb(other);
            }
        }
        let slot = &self.slots[tag];
        if slot.has_room(self.wanted, self.buffering) {
            return true;
        }
        if self.reads() > 0 || (slot.bytes() as usize) < ORDINARY_BUFFER {
            return false;
        }
        match self.sight {
            Sight::Nothing => {
                let looking = self.ops.poll(&self.network.taps[self.pair], PollFlags::IN, LOOK);
                looking.expect("there is room for one look");
                self.sight = Sight::Looking;
                false
            }
            Sight::Looking => false,
            Sight::Frame if self.ample => {
                // What was used is on its way back.
                let refill = self.network.refill;
                self.patience.get_or_insert_with(|| executor::sleep(refill));
                false
            }
            // All that the driver gives, and an ordinary frame fits.
            Sight::Frame => true,
        }
    }

    /// Reads under way.
    fn reads(&self) -> usize {
        self.ops.in_flight() - usize::from(self.sight == Sight::Looking)
    }

    /// Take all completions that are there.
    fn complete(&mut self, context: &mut Context<'_>) {
        let mut frames = 0;
        while let Poll::Ready(Completed { tag, result, .. }) = self.ops.poll_next(context) {
            if tag == LOOK {
                self.sight = Sight::Nothing;
                if self.reads() == 0 {
                    // An error is one for the read that follows.
                    self.sight = Sight::Frame;
                }
                continue;
            }
            match result {
                Ok(bytes) if bytes > 0 => {
                    frames += 1;
                    self.frame(tag, bytes);
                }
                Ok(_) => self.trouble(&io::ErrorKind::UnexpectedEof.into()),
                Err(error) => self.trouble(&error),
            }
            self.idle.push(tag);
        }
        if frames > 0 {
            self.depth.observe(frames, self.reads());
        }
    }

    /// A frame of so many bytes, header included, lies in the buffers of a slot.
    fn frame(&mut self, tag: Tag, bytes: u32) {
        let slot = &mut self.slots[usize::from(tag)];
        let received = &self.network.received;
        let cut = may_be_cut(slot, bytes, self.wanted);
        // The next one gets its chance of more buffers.
        self.ample |= cut && slot.bytes() < self.wanted;
        if cut || !is_wanted(&self.network, slot, bytes) {
            received.count(|traffic| traffic.dropped += 1);
            return;
        }
        let queue = &mut self.active.queue;
        slot.deliver(bytes, |head, written| queue.push_used(head, written));
        let bytes = u64::from(bytes) - HEADER_BYTES as u64;
        self.network.receive_limit.borrow_mut().charge(bytes);
        self.active.metrics().moved(bytes);
        received.count(|traffic| {
            traffic.frames += 1;
            traffic.bytes += bytes;
        });
    }

    /// A read failed.
    fn trouble(&mut self, error: &io::Error) {
        match error.raw_os_error() {
            Some(libc::ECANCELED | libc::EAGAIN | libc::EINTR) => {}
            // The driver does not use this queue for now.
            Some(libc::EBADFD) if self.pair >= usize::from(self.network.active_pairs.get()) => {
                self.rest = Rest::until_change(&self.network.changes);
            }
            _ => {
                self.network.received.count(|traffic| traffic.errors += 1);
                let index = self.active.index();
                self.network
                    .complaints
                    .warn(format_args!("network, queue {index}: cannot receive: {error}"));
                self.rest = Rest::nap(ERROR_PAUSE);
            }
        }
    }
}
