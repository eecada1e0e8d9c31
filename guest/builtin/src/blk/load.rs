//! The polled block load: keeps every queue of every chosen disk at its depth until the time is over.
//!
//! ```text
//! for each queue, over and over:  finished requests ─> plan ─> new requests ─> one kick if wanted
//! ```

use alloc::{format, string::String, vec::Vec};
use core::hint::spin_loop;

use super::{
    disk::{Disk, Lane, PATIENCE_SECONDS, Request, SECTOR_BYTES, STATUS_OK},
    latency::Latencies,
    pattern,
    pauses::Pauses,
    plan::{Action, Plan},
};
use crate::{
    cmdline::{Load, Operation},
    platform::{mmio::Window, term::Term, time},
};

/// MiB of a disk that a verifying load uses: what it writes in a second, and reads back at the end.
const VERIFY_SPAN_MIB: u64 = 16;

/// What a load did to one disk.
pub(crate) struct Outcome {
    pub(crate) requests: u64,
    /// TSC counts from the first request to the last answer.
    pub(crate) elapsed: u64,
    pub(crate) errors: u64,
    pub(crate) verify_failures: u64,
    pub(crate) kicks: u64,
    pub(crate) latencies: Latencies,
    pub(crate) pauses: Pauses,
    /// The first thing that went wrong.
    pub(crate) complaint: Option<String>,
}

/// A disk under load.
pub(crate) struct Target {
    disk: Disk,
    plan: Plan,
    lanes: Vec<LaneState>,
    sectors_in_block: u64,
    block_bytes: u32,
    outcome: Outcome,
}

struct LaneState {
    /// What each slot does, and since when.
    slots: Vec<(Action, u64)>,
    free: Vec<u16>,
}

impl Target {
    /// Prepares a disk that was opened for this load.
    pub(crate) fn new(disk: Disk, load: &Load) -> Result<Self, String> {
        if load.operation.writes() && disk.is_read_only() {
            return Err("the disk is read-only".into());
        }
        if load.flush_every != 0 && !disk.can_flush() {
            return Err("the disk has no flush".into());
        }
        if !load.block_bytes.is_multiple_of(disk.block_bytes.max(SECTOR_BYTES as u32)) {
            return Err(format!("bs={} on blocks of {}", load.block_bytes, disk.block_bytes));
        }
        let sectors_in_block = u64::from(load.block_bytes) / SECTOR_BYTES;
        let blocks = (disk.sectors / sectors_in_block).min(span_blocks(load));
        let in_flight = u64::from(load.depth) * disk.lanes.len() as u64;
        if blocks == 0 || load.operation == Operation::Verify && blocks < in_flight {
            return Err(format!("{blocks} blocks for {in_flight} requests in flight"));
        }
        let lanes = disk.lanes.iter().map(|lane| LaneState::new(lane, load)).collect();
        Ok(Self {
            disk,
            plan: Plan::new(load.operation, load.order, blocks, load.flush_every),
            lanes,
            sectors_in_block,
            block_bytes: load.block_bytes,
            outcome: Outcome {
                requests: 0,
                elapsed: 0,
                errors: 0,
                verify_failures: 0,
                kicks: 0,
                latencies: Latencies::new(),
                pauses: Pauses::new(load.pauses),
                complaint: None,
            },
        })
    }

    /// Takes what has finished, adds what is next, kicks. The number of requests that finished.
    #[inline]
    fn turn(&mut self) -> Result<u64, String> {
        let before = self.outcome.requests;
        for index in 0..self.lanes.len() {
            while let Some((slot, status)) = self.disk.lanes[index].finished()? {
                self.take(index, slot, status);
            }
            while let Some(slot) = self.lanes[index].free.last().copied() {
                let Some(action) = self.plan.next() else {
                    break;
                };
                self.lanes[index].free.pop();
                self.give(index, slot, action);
            }
            self.disk.lanes[index].kick();
        }
        Ok(self.outcome.requests - before)
    }

    #[inline]
    fn give(&mut self, index: usize, slot: u16, action: Action) {
        let lane = &mut self.disk.lanes[index];
        let (request, block) = match action {
            Action::Read { block } | Action::Verify { block, .. } => (Request::Read, block),
            Action::Write { block } => (Request::Write, block),
            Action::WritePattern { block, generation } => {
                fill(lane.data(slot), block, generation);
                (Request::Write, block)
            }
            Action::Flush => (Request::Flush, 0),
        };
        self.lanes[index].slots[usize::from(slot)] = (action, time::now());
        lane.submit(slot, request, block * self.sectors_in_block, self.block_bytes);
    }

    #[inline]
    fn take(&mut self, index: usize, slot: u16, status: u8) {
        let (action, since) = self.lanes[index].slots[usize::from(slot)];
        self.outcome.latencies.record(time::now().saturating_sub(since));
        self.outcome.requests += 1;
        self.lanes[index].free.push(slot);
        if status != STATUS_OK {
            self.outcome.errors += 1;
            self.complain(|| format!("{action:?}: status {status}"));
            self.plan.failed(action);
            return;
        }
        if let Action::Verify { block, generation } = action
            && let Some(difference) = differs(self.disk.lanes[index].data(slot), block, generation)
        {
            self.outcome.verify_failures += 1;
            self.complain(|| format!("block {block} generation {generation}: {difference}"));
        }
        self.plan.succeeded(action);
    }

    fn complain(&mut self, what: impl FnOnce() -> String) {
        if self.outcome.complaint.is_none() {
            self.outcome.complaint = Some(what());
        }
    }

    fn in_flight(&self) -> usize {
        self.lanes.iter().map(|lane| lane.slots.len() - lane.free.len()).sum()
    }

    fn is_done(&self) -> bool {
        self.plan.is_over() && self.in_flight() == 0
    }

    fn finish(mut self) -> Outcome {
        self.outcome.kicks = self.disk.lanes.iter().map(|lane| lane.kicks).sum();
        if let Err(error) = self.disk.transport.reset() {
            self.complain(|| error);
        }
        self.outcome
    }
}

impl LaneState {
    fn new(lane: &Lane, load: &Load) -> Self {
        // Plain writes send this for ever.
        for slot in 0..load.depth {
            fill(lane.data(slot), u64::from(slot), 0);
        }
        Self {
            slots: (0..load.depth).map(|_| (Action::Flush, 0)).collect(),
            free: (0..load.depth).rev().collect(),
        }
    }
}

/// Loads all disks at the same time. The error is what ended the load of one before its time.
pub(crate) fn run(mut targets: Vec<Target>, milliseconds: u64) -> Vec<Result<Outcome, String>> {
    let start = time::now();
    let mut term = Term::new(start, milliseconds);
    let patience = time::counts(PATIENCE_SECONDS);
    let mut states: Vec<State> = targets.iter().map(|_| State::Busy { progress: start }).collect();
    let mut stopped = false;
    while states.iter().any(|state| matches!(state, State::Busy { .. })) {
        for (target, state) in targets.iter_mut().zip(&mut states) {
            let State::Busy { progress } = state else {
                continue;
            };
            let turn = target.turn();
            let now = time::now();
            match turn {
                Err(error) => *state = State::Broken(error),
                Ok(0) if target.is_done() => {
                    target.outcome.elapsed = now - start;
                    *state = State::Done;
                }
                Ok(0) if now.saturating_sub(*progress) > patience => {
                    *state = State::Broken(format!(
                        "no answer in {PATIENCE_SECONDS} s, {} in flight",
                        target.in_flight()
                    ));
                }
                Ok(0) => spin_loop(),
                Ok(_) => {
                    target.outcome.pauses.record(now.saturating_sub(*progress));
                    *progress = now;
                }
            }
        }
        if !stopped && term.is_over(time::now()) {
            stopped = true;
            for target in &mut targets {
                target.plan.stop();
            }
        }
    }
    let finish = |(target, state): (Target, State)| match state {
        State::Broken(error) => Err(error),
        State::Busy { .. } | State::Done => Ok(target.finish()),
    };
    targets.into_iter().zip(states).map(finish).collect()
}

enum State {
    Busy { progress: u64 },
    Done,
    Broken(String),
}

fn span_blocks(load: &Load) -> u64 {
    let mib = match (load.span_mib, load.operation) {
        (0, Operation::Verify) => VERIFY_SPAN_MIB,
        (0, _) => return u64::MAX,
        (mib, _) => mib,
    };
    (mib << 20) / u64::from(load.block_bytes)
}

fn fill(data: Window, block: u64, generation: u32) {
    for index in 0..data.length() / 8 {
        data.write(index * 8, pattern::word(block, generation, index));
    }
}

/// How the data differs from what was written, if it does.
fn differs(data: Window, block: u64, generation: u32) -> Option<String> {
    (0..data.length() / 8).find_map(|index| {
        let (found, wanted): (u64, u64) =
            (data.read(index * 8), pattern::word(block, generation, index));
        (found != wanted)
            .then(|| format!("at byte {} read {found:#018x}, wrote {wanted:#018x}", index * 8))
    })
}
