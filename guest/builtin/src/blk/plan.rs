//! What a load does next, and what it knows of each block. Pure: the disk is somewhere else.
//!
//! A verifying load knows for each block how often it was written. A block is in one request at a
//! time; a failed write makes its content unknown until the next write.
//!
//! ```text
//! unknown ──write──> known, generation g ──verify──> same
//!    ^──────────failed write──────┴──write──> known, generation g + 1
//! ```

use alloc::{vec, vec::Vec};

use super::pattern::Random;
use crate::cmdline::{Operation, Order};

/// A request of the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Read { block: u64 },
    Write { block: u64 },
    WritePattern { block: u64, generation: u32 },
    Verify { block: u64, generation: u32 },
    Flush,
}

#[derive(Clone, Copy, Default)]
struct BlockState {
    generation: u32,
    known: bool,
    busy: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    /// Reads every known block once more; holds the next one.
    Sweeping(u64),
    Over,
}

pub(crate) struct Plan {
    operation: Operation,
    order: Order,
    blocks: u64,
    /// Writes between flushes; 0 for none.
    flush_every: u64,
    unflushed: u64,
    cursor: u64,
    random: Random,
    states: Vec<BlockState>,
    phase: Phase,
}

impl Plan {
    /// A plan for `blocks` blocks, at least one.
    pub(crate) fn new(operation: Operation, order: Order, blocks: u64, flush_every: u64) -> Self {
        let states = if operation == Operation::Verify { blocks as usize } else { 0 };
        Self {
            operation,
            order,
            blocks,
            flush_every,
            unflushed: 0,
            cursor: 0,
            random: Random::new(blocks),
            states: vec![BlockState::default(); states],
            phase: Phase::Running,
        }
    }

    /// What to do next. `None` if there is nothing that can be done now.
    #[inline]
    pub(crate) fn next(&mut self) -> Option<Action> {
        match self.phase {
            Phase::Over => None,
            Phase::Sweeping(from) => self.sweep(from),
            Phase::Running if self.flush_every != 0 && self.unflushed >= self.flush_every => {
                self.unflushed = 0;
                Some(Action::Flush)
            }
            Phase::Running => self.choose(),
        }
    }

    /// No more new requests; a verifying load still reads back what it wrote.
    pub(crate) fn stop(&mut self) {
        let verifies = self.operation == Operation::Verify;
        self.phase = if verifies { Phase::Sweeping(0) } else { Phase::Over };
    }

    /// Whether `next` will never again have anything, not even after more requests finish.
    pub(crate) fn is_over(&self) -> bool {
        match self.phase {
            Phase::Running => false,
            Phase::Sweeping(next) => next >= self.blocks,
            Phase::Over => true,
        }
    }

    /// Takes note of a request that has finished with success.
    #[inline]
    pub(crate) fn succeeded(&mut self, action: Action) {
        if let Action::WritePattern { block, generation } = action {
            self.states[block as usize] = BlockState { generation, known: true, busy: false };
        } else {
            self.release(action);
        }
    }

    /// Takes note of a request that has failed.
    pub(crate) fn failed(&mut self, action: Action) {
        if let Action::WritePattern { block, generation } = action {
            self.states[block as usize] = BlockState { generation, known: false, busy: false };
        } else {
            self.release(action);
        }
    }

    fn release(&mut self, action: Action) {
        if let Action::Verify { block, .. } = action {
            self.states[block as usize].busy = false;
        }
    }

    #[inline]
    fn choose(&mut self) -> Option<Action> {
        let block = self.next_block();
        let action = match self.operation {
            Operation::Read => Action::Read { block },
            Operation::Mixed if self.random.next() & 1 == 0 => Action::Read { block },
            Operation::Mixed | Operation::Write => Action::Write { block },
            Operation::Verify => self.verify_or_write(block)?,
        };
        if matches!(action, Action::Write { .. } | Action::WritePattern { .. }) {
            self.unflushed += 1;
        }
        Some(action)
    }

    fn verify_or_write(&mut self, from: u64) -> Option<Action> {
        let free = (from..self.blocks).chain(0..from).find(|block| !self.at(*block).busy)?;
        let coin = self.random.next() & 1 == 0;
        let state = &mut self.states[free as usize];
        state.busy = true;
        Some(if state.known && coin {
            Action::Verify { block: free, generation: state.generation }
        } else {
            Action::WritePattern { block: free, generation: state.generation.wrapping_add(1) }
        })
    }

    /// The next known block from `from` on. Waits for a block that is still in a request.
    fn sweep(&mut self, from: u64) -> Option<Action> {
        let next = (from..self.blocks).find(|block| self.at(*block).known || self.at(*block).busy);
        let Some(block) = next else {
            self.phase = Phase::Sweeping(self.blocks);
            return None;
        };
        let state = &mut self.states[block as usize];
        if state.busy {
            self.phase = Phase::Sweeping(block);
            return None;
        }
        state.busy = true;
        let generation = state.generation;
        self.phase = Phase::Sweeping(block + 1);
        Some(Action::Verify { block, generation })
    }

    fn at(&self, block: u64) -> BlockState {
        self.states[block as usize]
    }

    #[inline]
    fn next_block(&mut self) -> u64 {
        match self.order {
            Order::Random => self.random.below(self.blocks),
            Order::Sequential => {
                let block = self.cursor;
                self.cursor = if block + 1 == self.blocks { 0 } else { block + 1 };
                block
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequential_read_goes_round() {
        let mut plan = Plan::new(Operation::Read, Order::Sequential, 3, 0);
        let blocks: Vec<_> = (0..5).map(|_| plan.next().unwrap()).collect();
        assert_eq!(blocks, [0, 1, 2, 0, 1].map(|block| Action::Read { block }));
        plan.stop();
        assert_eq!((plan.next(), plan.is_over()), (None, true));
    }

    #[test]
    fn a_flush_comes_after_so_many_writes() {
        let mut plan = Plan::new(Operation::Write, Order::Random, 100, 2);
        let flushes: Vec<_> = (0..6).map(|_| plan.next().unwrap() == Action::Flush).collect();
        assert_eq!(flushes, [false, false, true, false, false, true]);
    }

    #[test]
    fn a_block_is_in_one_request_at_a_time() {
        let mut plan = Plan::new(Operation::Verify, Order::Random, 4, 0);
        let mut blocks: Vec<_> = (0..4)
            .map(|_| match plan.next() {
                Some(Action::WritePattern { block, generation: 1 }) => block,
                other => panic!("{other:?}"),
            })
            .collect();
        blocks.sort_unstable();
        assert_eq!(blocks, [0, 1, 2, 3]);
        assert_eq!(plan.next(), None);
    }

    #[test]
    fn what_was_written_is_what_is_verified_and_the_sweep_reads_all_of_it() {
        let mut plan = Plan::new(Operation::Verify, Order::Random, 8, 0);
        let mut disk = [0; 8];
        for _ in 0..200 {
            match plan.next().unwrap() {
                action @ Action::WritePattern { block, generation } => {
                    assert_eq!(generation, disk[block as usize] + 1);
                    disk[block as usize] = generation;
                    plan.succeeded(action);
                }
                action @ Action::Verify { block, generation } => {
                    assert_eq!(generation, disk[block as usize]);
                    plan.succeeded(action);
                }
                other => panic!("{other:?}"),
            }
        }
        plan.stop();
        let mut swept = vec![];
        while let Some(action) = plan.next() {
            let Action::Verify { block, generation } = action else { panic!("{action:?}") };
            assert_eq!(generation, disk[block as usize]);
            swept.push(block);
            plan.succeeded(action);
        }
        assert!(plan.is_over());
        assert_eq!(swept, (0..8).collect::<Vec<_>>());
    }

    #[test]
    fn the_sweep_waits_for_writes_and_leaves_out_what_failed() {
        let mut plan = Plan::new(Operation::Verify, Order::Sequential, 2, 0);
        let (first, second) = (plan.next().unwrap(), plan.next().unwrap());
        plan.stop();
        assert_eq!((plan.next(), plan.is_over()), (None, false));
        plan.failed(first);
        assert_eq!((plan.next(), plan.is_over()), (None, false));
        plan.succeeded(second);
        let last = plan.next().unwrap();
        assert_eq!(last, Action::Verify { block: 1, generation: 1 });
        assert!(plan.is_over());
    }
}
