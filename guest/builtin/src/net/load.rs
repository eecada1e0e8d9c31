//! The polled network load: frames out of every transmit queue, into every receive queue, or both,
//! until so many went through or the time is over.
//!
//! ```text
//! for each pair, over and over:  received frames ─> look, count, give the buffer back (or echo it)
//!                                sent frames ─> number them anew, send again     one kick if wanted
//! ```

use alloc::{format, string::String, vec::Vec};
use core::hint::spin_loop;

use super::{
    frame::{self, Found, Head, Kind, Template},
    nic::{Nic, PATIENCE_SECONDS, Pairs, Sending, Use},
    pair::{HEADER_BYTES, Received},
    tally::{Counts, Tally},
};
use crate::{
    blk::pauses::Pauses,
    cmdline::{NetLoad, NetOperation, RingWishes, Wish},
    platform::{term::Term, time},
};

/// Frames one way.
#[derive(Clone, Copy, Default)]
pub(crate) struct Flow {
    pub(crate) frames: u64,
    pub(crate) bytes: u64,
    first: u64,
    last: u64,
}

impl Flow {
    #[inline]
    fn count(&mut self, bytes: u64, now: u64) {
        if self.frames == 0 {
            self.first = now;
        }
        self.frames += 1;
        self.bytes += bytes;
        self.last = now;
    }

    /// TSC counts from the first frame to the last one.
    pub(crate) fn elapsed(&self) -> u64 {
        self.last.saturating_sub(self.first)
    }
}

/// What a load did.
pub(crate) struct Outcome {
    pub(crate) sent: Flow,
    pub(crate) received: Flow,
    pub(crate) counts: Counts,
    /// Frames that were not as they were sent.
    pub(crate) damaged: u64,
    /// Frames of others.
    pub(crate) foreign: u64,
    /// Frames that were with the device when it was reset, and too long ones that came to an echo.
    pub(crate) dropped: u64,
    pub(crate) kicks: u64,
    pub(crate) resets: u64,
    pub(crate) pauses: Pauses,
    /// The first thing that went wrong.
    pub(crate) complaint: Option<String>,
}

/// How a card is to be used for a load.
pub(crate) fn wanted(load: &NetLoad, rings: RingWishes) -> Use {
    let echoes = load.operation == NetOperation::Echo;
    let whole = HEADER_BYTES + load.frame_bytes;
    // An echo goes out of the buffer it came into, so that must hold it.
    let single = load.mergeable == Wish::Off || echoes;
    Use {
        rings,
        mergeable: load.mergeable,
        pairs: Pairs::Exactly(load.pairs),
        sending: if echoes { Sending::Echoes } else { Sending::OwnFrames },
        transmit_slots: load.depth,
        frame_bytes: load.frame_bytes,
        buffer_bytes: if single { load.buffer_bytes.max(whole) } else { load.buffer_bytes },
    }
}

struct Lane {
    templates: Vec<Template>,
    free: Vec<u16>,
    in_flight: u64,
    /// The number of the next frame.
    next: u64,
}

struct Run<'a> {
    load: &'a NetLoad,
    nic: Nic,
    lanes: Vec<Lane>,
    tally: Tally,
    /// Frames that were given to the device.
    issued: u64,
    over: bool,
    outcome: Outcome,
}

/// Loads a card. The error is what ended the load before its time.
pub(crate) fn run(mut nic: Nic, load: &NetLoad) -> Result<Outcome, String> {
    if load.operation.receives() {
        nic.give_all();
        nic.greet()?;
    }
    let lane = |index| Lane::new(&nic, index, load);
    let lanes = (0..nic.pairs.len()).map(lane).collect();
    let outcome = Outcome {
        sent: Flow::default(),
        received: Flow::default(),
        counts: Counts::default(),
        damaged: 0,
        foreign: 0,
        dropped: 0,
        kicks: 0,
        resets: 0,
        pauses: Pauses::new(load.pauses),
        complaint: None,
    };
    let mut run = Run { load, nic, lanes, tally: Tally::new(), issued: 0, over: false, outcome };
    run.go_on()?;
    run.finish()
}

impl Run<'_> {
    fn go_on(&mut self) -> Result<(), String> {
        let start = time::now();
        let mut term = Term::new(start, self.load.seconds * 1000);
        let length = time::counts(self.load.seconds);
        let patience = time::counts(PATIENCE_SECONDS);
        let (mut progress, mut moved_since_reset) = (start, 0);
        while !self.is_done() {
            let moved = self.turn()?;
            let now = time::now();
            if moved > 0 {
                self.outcome.pauses.record(now.saturating_sub(progress));
                progress = now;
                moved_since_reset += moved;
            } else {
                spin_loop();
            }
            self.over = term.is_over(now);
            if moved == 0 && self.in_flight() > 0 && now.saturating_sub(progress) > patience {
                let in_flight = self.in_flight();
                return Err(format!("no answer in {PATIENCE_SECONDS} s, {in_flight} in flight"));
            }
            // One in the middle of nothing would prove nothing.
            if self.outcome.resets < self.load.resets
                && (self.over
                    || moved_since_reset > 0
                        && self.reset_is_due(now.saturating_sub(start), length))
            {
                self.reset()?;
                moved_since_reset = 0;
            }
        }
        Ok(())
    }

    /// Moves what there is to be moved; says how many frames that were.
    #[inline]
    fn turn(&mut self) -> Result<u64, String> {
        let mut moved = 0;
        for index in 0..self.lanes.len() {
            moved += self.receive(index)?;
            moved += self.transmit(index)?;
        }
        Ok(moved)
    }

    #[inline]
    fn receive(&mut self, index: usize) -> Result<u64, String> {
        if !self.load.operation.receives() {
            return Ok(0);
        }
        let mut count = 0;
        while let Some(received) = self.nic.pairs[index].receiver.next()? {
            count += 1;
            match received {
                Received::InSlot(slot, frame) => {
                    let kind = self.note(&frame);
                    if kind == Some(Kind::Data) && self.load.operation == NetOperation::Echo {
                        frame::swap_addresses(&frame);
                        self.echo(index, slot, frame.length() as u32);
                    } else {
                        self.nic.pairs[index].receiver.give(slot);
                    }
                }
                Received::Merged(frame) => {
                    self.note(&frame);
                    if self.load.operation == NetOperation::Echo {
                        self.outcome.dropped += 1;
                    }
                }
            }
        }
        self.nic.pairs[index].receiver.kick();
        Ok(count)
    }

    /// Looks at a frame that came and counts it.
    #[inline]
    fn note(&mut self, frame: &crate::platform::mmio::Window) -> Option<Kind> {
        match frame::read(frame) {
            Found::Whole(Head { stream, kind, number }) => {
                if kind == Kind::Data {
                    self.tally.note(stream, number);
                    self.outcome.received.count(frame.length(), time::now());
                }
                Some(kind)
            }
            Found::Foreign => {
                self.outcome.foreign += 1;
                None
            }
            Found::Damaged => {
                self.outcome.damaged += 1;
                if self.outcome.complaint.is_none() {
                    let number: u64 = frame.read(24);
                    self.outcome.complaint =
                        Some(format!("frame {number} of {} bytes is damaged", frame.length()));
                }
                None
            }
        }
    }

    /// Sends a frame out of the receive buffer it came into.
    #[inline]
    fn echo(&mut self, index: usize, slot: u16, bytes: u32) {
        let pair = &mut self.nic.pairs[index];
        let buffers = pair.receiver.buffers;
        pair.transmitter.send(slot, &buffers, slot, bytes);
        self.lanes[index].in_flight += 1;
    }

    #[inline]
    fn transmit(&mut self, index: usize) -> Result<u64, String> {
        let (lane, pair) = (&mut self.lanes[index], &mut self.nic.pairs[index]);
        let echoes = self.load.operation == NetOperation::Echo;
        let mut count = 0;
        let now = time::now();
        while let Some(slot) = pair.transmitter.finished()? {
            count += 1;
            lane.in_flight -= 1;
            self.outcome.sent.count(u64::from(self.load.frame_bytes), now);
            if echoes {
                pair.receiver.give(slot);
            } else {
                lane.free.push(slot);
            }
        }
        if self.load.operation.sends() && !self.over {
            let most = if self.load.frames == 0 { u64::MAX } else { self.load.frames };
            while self.issued < most
                && let Some(slot) = lane.free.pop()
            {
                let head = Head { stream: index as u16, kind: Kind::Data, number: lane.next };
                lane.templates[usize::from(slot)].fill(head);
                let memory = &self.nic.memory[index].transmit;
                pair.transmitter.send(slot, memory, slot, self.load.frame_bytes);
                lane.next += 1;
                lane.in_flight += 1;
                self.issued += 1;
            }
        }
        pair.transmitter.kick();
        if echoes {
            pair.receiver.kick();
        }
        Ok(count)
    }

    /// Resets the device in the middle of everything.
    fn reset(&mut self) -> Result<(), String> {
        self.note_kicks();
        self.nic.bring_up()?;
        for lane in &mut self.lanes {
            self.outcome.dropped += lane.in_flight;
            lane.in_flight = 0;
            lane.free = (0..lane.templates.len() as u16).rev().collect();
        }
        if self.load.operation.receives() {
            self.nic.give_all();
        }
        self.outcome.resets += 1;
        Ok(())
    }

    fn in_flight(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.in_flight).sum()
    }

    /// Resets are spread over the frames if so many are wanted, else over the time.
    fn reset_is_due(&self, elapsed: u64, length: u64) -> bool {
        let (done, whole) = match self.load.frames {
            0 => (elapsed, length),
            frames if self.load.operation.receives() => (self.tally.total(), frames),
            frames => (self.issued, frames),
        };
        done >= whole / (self.load.resets + 1) * (self.outcome.resets + 1)
    }

    fn is_done(&self) -> bool {
        if self.in_flight() > 0 || self.outcome.resets < self.load.resets {
            return false;
        }
        if self.over {
            return true;
        }
        let (wanted, operation) = (self.load.frames, self.load.operation);
        let sent = !operation.sends() || self.issued >= wanted;
        let received = !operation.receives() || self.tally.total() >= wanted;
        wanted != 0 && sent && received
    }

    fn note_kicks(&mut self) {
        let kicks = |pair: &super::pair::Pair| pair.receiver.kicks + pair.transmitter.kicks;
        self.outcome.kicks += self.nic.pairs.iter().map(kicks).sum::<u64>();
    }

    fn finish(mut self) -> Result<Outcome, String> {
        self.note_kicks();
        self.nic.transport.reset()?;
        self.outcome.counts = self.tally.counts();
        Ok(self.outcome)
    }
}

impl Lane {
    fn new(nic: &Nic, index: usize, load: &NetLoad) -> Self {
        let slots = if load.operation.sends() { load.depth } else { 0 };
        let template = |slot| nic.template(index, slot, load.frame_bytes);
        Self {
            templates: (0..slots).map(template).collect(),
            free: (0..slots).rev().collect(),
            in_flight: 0,
            next: 0,
        }
    }
}
