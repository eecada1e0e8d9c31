//! Reply slots: where answers from the other process arrive.
//!
//! ```text
//!   word     generation (32) │ state (3) │ EVENT FUTEX
//!   frame    the answer
//!
//!   FREE ──▶ PENDING ──▶ WRITING ──▶ ANSWERED ──▶ FREE
//!               │  └──────────────▶ REFUSED ────▶ FREE
//!               └── the caller gave up ─────────▶ FREE
//! ```
//!
//! The caller moves a slot from FREE to PENDING and back to FREE; the peer does the rest. The
//! generation tells a late answer from one to the next call in the same slot. Claiming (WRITING)
//! before writing keeps a late answer from damaging a new one: when the caller gives up in that
//! moment, the slot stays out of use until the peer is done with it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use super::core::{Core, Slept};
use super::frame::{Frame, Header};
use super::handle::violated;
use super::layout::{SLOT_HEADER_WORDS, Span};
use super::sleepers::WAITING;
use crate::codec::{Draft, Refusal};
use crate::error::CallError;
use crate::waiters::Waiters;
use crate::{Deadline, Message};

const STATE: u64 = 0b111 << 2;
const FREE: u64 = 0;
const PENDING: u64 = 1 << 2;
const WRITING: u64 = 2 << 2;
const ANSWERED: u64 = 3 << 2;
const REFUSED: u64 = 4 << 2;

/// A slot and which use of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlotId {
    pub(crate) index: u16,
    pub(crate) generation: u32,
}

/// The slots of this end.
pub(crate) struct SlotTable {
    table: Mutex<Table>,
    /// Those who want to call and find no free slot.
    pub(crate) waiters: Waiters,
    /// Whether somebody may be in `waiters`.
    contended: AtomicBool,
}

struct Table {
    /// The last one freed is the first one used: its memory is warm, and memory that was never
    /// used stays unused.
    free: Vec<u16>,
    /// Given up while the peer was writing.
    unfinished: Vec<SlotId>,
    generations: Vec<u32>,
}

impl SlotTable {
    pub(crate) fn new(count: u16) -> Self {
        let table = Table {
            free: (0..count).rev().collect(),
            unfinished: Vec::new(),
            generations: vec![0; usize::from(count)],
        };
        Self {
            table: Mutex::new(table),
            waiters: Waiters::new(),
            contended: AtomicBool::new(false),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Consistent between any two statements under the lock.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that somebody has entered `waiters`; it looks once more after this.
    pub(crate) fn contend(&self) {
        self.contended.store(true, Ordering::SeqCst);
    }

    pub(crate) fn notify_all(&self) {
        self.contended.store(false, Ordering::SeqCst);
        self.waiters.notify_all();
    }

    fn give_back(&self, index: u16) {
        let mut table = self.lock();
        let generation = &mut table.generations[usize::from(index)];
        *generation = generation.wrapping_add(1);
        table.free.push(index);
        drop(table);
        if self.contended.load(Ordering::SeqCst) {
            self.notify_all();
        }
    }
}

/// Makes `count` slots PENDING and adds them to `slots`; none when there are not as many.
pub(crate) fn acquire(core: &Arc<Core>, count: usize, slots: &mut Vec<SlotId>) -> bool {
    if count == 0 {
        return true;
    }
    reclaim_unfinished(core, count);
    let mut table = core.slots.lock();
    if table.free.len() < count {
        return false;
    }
    for _ in 0..count {
        let Some(index) = table.free.pop() else {
            return false;
        };
        let slot = SlotId { index, generation: table.generations[usize::from(index)] };
        let pending = u64::from(slot.generation) << 32 | PENDING;
        own_word(core, slot).store(pending, Ordering::Release);
        slots.push(slot);
    }
    true
}

/// Takes slots back that were given up while the peer was writing, when they are needed.
fn reclaim_unfinished(core: &Arc<Core>, count: usize) {
    let unfinished = {
        let mut table = core.slots.lock();
        if table.free.len() >= count || table.unfinished.is_empty() {
            return;
        }
        std::mem::take(&mut table.unfinished)
    };
    for slot in unfinished {
        if own_word(core, slot).load(Ordering::Acquire) & STATE == WRITING {
            core.slots.lock().unfinished.push(slot);
        } else {
            discard_answer(core, slot);
            free(core, slot);
        }
    }
}

/// Gives a slot up. The answer, if it still comes, goes nowhere.
pub(crate) fn abandon(core: &Arc<Core>, slot: SlotId) {
    let word = own_word(core, slot);
    let mut value = word.load(Ordering::Acquire);
    loop {
        match value & STATE {
            WRITING => {
                core.slots.lock().unfinished.push(slot);
                return;
            }
            PENDING => {
                let free = u64::from(slot.generation.wrapping_add(1)) << 32 | FREE;
                match word.compare_exchange(value, free, Ordering::AcqRel, Ordering::Acquire) {
                    Ok(_) => break,
                    Err(current) => value = current,
                }
            }
            ANSWERED => {
                discard_answer(core, slot);
                break;
            }
            _ => break,
        }
    }
    free(core, slot);
}

fn free(core: &Core, slot: SlotId) {
    let word = u64::from(slot.generation.wrapping_add(1)) << 32 | FREE;
    own_word(core, slot).store(word, Ordering::Release);
    core.slots.give_back(slot.index);
}

fn own_span(core: &Core, slot: SlotId) -> Span {
    let span = core.layout.slot(core.side, slot.index);
    span.expect("slots of this end come from its table")
}

fn own_word(core: &Core, slot: SlotId) -> &AtomicU64 {
    core.memory.word(own_span(core, slot).start)
}

/// Copies the answer out of a slot of this end and gives it to `visit`.
fn read_answer<V>(
    core: &Arc<Core>,
    slot: SlotId,
    visit: impl FnOnce(Frame<'_>) -> V,
) -> Result<V, &'static str> {
    let span = own_span(core, slot);
    let words = core.memory.words(span.start, span.words);
    let header = Header::from_word(words[SLOT_HEADER_WORDS].load(Ordering::Relaxed));
    let frame = words
        .get(SLOT_HEADER_WORDS + 1..SLOT_HEADER_WORDS + header.frame_words())
        .ok_or("an answer is longer than its slot")?;
    let rest: Vec<u64> = frame.iter().map(|word| word.load(Ordering::Relaxed)).collect();
    let fds = header.take_fds(&rest, &core.lane)?;
    Ok(visit(Frame::new(core, header, &rest, fds)))
}

/// Takes the descriptors of an answer that nobody wants off the lane and refuses what it asks.
fn discard_answer(core: &Arc<Core>, slot: SlotId) {
    if let Err(reason) = read_answer(core, slot, |frame: Frame<'_>| frame.refuse()) {
        violated(core, reason);
    }
}

/// Claims a slot of the peer for writing; `None` when the peer no longer waits.
fn claim(core: &Core, slot: SlotId, state: u64) -> Option<(Span, u64)> {
    let span = core.layout.slot(core.side.other(), slot.index)?;
    let word = core.memory.word(span.start);
    let mut value = word.load(Ordering::Acquire);
    loop {
        if (value >> 32) as u32 != slot.generation || value & STATE != PENDING {
            return None;
        }
        // The sleepers stay until there is something for them.
        let kept = if state == WRITING { value & WAITING } else { 0 };
        let claimed = u64::from(slot.generation) << 32 | state | kept;
        match word.compare_exchange(value, claimed, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return Some((span, value)),
            Err(current) => value = current,
        }
    }
}

/// Writes an answer into a slot of the peer.
pub(crate) fn answer(core: &Arc<Core>, slot: SlotId, draft: &mut Draft) -> Result<(), Refusal> {
    let capacity = core.layout.slot(core.side.other(), slot.index).map_or(0, |span| span.words);
    if SLOT_HEADER_WORDS + draft.frame_words() > capacity {
        return Err(Refusal::TooLarge);
    }
    if !draft.reserve_reply_slots(core) {
        return Err(Refusal::NoRoom);
    }
    let Some((span, _)) = claim(core, slot, WRITING) else {
        return Ok(());
    };
    let words = core.memory.words(span.start, span.words);
    let committed = draft.commit(core);
    let state = if committed.is_ok() { ANSWERED } else { REFUSED };
    if committed.is_ok() {
        draft.write(|index, word| {
            words[SLOT_HEADER_WORDS + index].store(word, Ordering::Relaxed);
        });
    }
    let before = words[0].swap(u64::from(slot.generation) << 32 | state, Ordering::AcqRel);
    core.ring(&words[0], before);
    committed
}

/// Tells the peer that there will be no answer, if it still waits for one.
pub(crate) fn refuse(core: &Core, slot: SlotId) {
    if let Some((span, before)) = claim(core, slot, REFUSED) {
        core.ring(core.memory.word(span.start), before);
    }
}

/// Refuses a call of this end whose request was not taken.
pub(crate) fn retract(core: &Core, slot: SlotId) {
    let word = own_word(core, slot);
    let pending = |value: u64| value & STATE == PENDING && (value >> 32) as u32 == slot.generation;
    let refused = word.fetch_update(Ordering::AcqRel, Ordering::Acquire, |value| {
        pending(value).then_some(value & !(STATE | WAITING) | REFUSED)
    });
    if refused.is_ok() {
        // The sleepers are of this process, so this end plays the part of its own peer.
        core.wake_own(word);
    }
}

/// The caller's side of a slot.
pub(crate) struct SlotWait {
    core: Arc<Core>,
    slot: SlotId,
    wait: Mutex<Wait>,
}

#[derive(Default)]
struct Wait {
    key: Option<usize>,
    finished: bool,
}

impl SlotWait {
    pub(crate) fn new(core: &Arc<Core>, slot: SlotId) -> Self {
        Self { core: Arc::clone(core), slot, wait: Mutex::default() }
    }

    /// The answer if it is there.
    pub(crate) fn try_take<R: Message>(&self) -> Option<Result<R, CallError>> {
        // Read before the state: an answer may have come just before the peer died.
        let dead = self.core.is_dead();
        let value = own_word(&self.core, self.slot).load(Ordering::Acquire);
        match value & STATE {
            PENDING | WRITING if !dead => None,
            PENDING | WRITING => Some(Err(CallError::PeerDied)),
            _ => Some(self.take(value & STATE)),
        }
    }

    #[cold]
    fn violated(&self, reason: &'static str) -> CallError {
        violated(&self.core, reason);
        CallError::PeerDied
    }

    fn take<R: Message>(&self, state: u64) -> Result<R, CallError> {
        let mut wait = self.wait.lock().unwrap_or_else(PoisonError::into_inner);
        if wait.finished {
            return Err(CallError::Refused);
        }
        let outcome = match state {
            ANSWERED if self.core.is_readable() => {
                read_answer(&self.core, self.slot, |frame: Frame<'_>| frame.decode())
                    .and_then(|decoded| decoded)
                    .map_err(|reason| self.violated(reason))
            }
            ANSWERED => Err(CallError::PeerDied),
            REFUSED => Err(CallError::Refused),
            _ => Err(self.violated("a reply slot is in a state that does not exist")),
        };
        wait.finished = true;
        free(&self.core, self.slot);
        outcome
    }

    pub(crate) fn poll<R: Message>(&self, context: &Context<'_>) -> Poll<Result<R, CallError>> {
        if let Some(outcome) = self.try_take() {
            return Poll::Ready(outcome);
        }
        let word = own_span(&self.core, self.slot).start;
        let mut wait = self.wait.lock().unwrap_or_else(PoisonError::into_inner);
        self.core.arm_task(&mut wait.key, word, context);
        drop(wait);
        self.try_take().map_or(Poll::Pending, Poll::Ready)
    }

    /// Lets the thread sleep until there may be an answer.
    pub(crate) fn sleep(&self, deadline: Deadline) -> Slept {
        let word = own_span(&self.core, self.slot).start;
        let progressed = |value: u64| !matches!(value & STATE, PENDING | WRITING);
        self.core.sleep(word, progressed, deadline)
    }
}

impl Drop for SlotWait {
    fn drop(&mut self) {
        let wait = self.wait.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.core.sleepers.remove_task(wait.key.take());
        if !wait.finished {
            abandon(&self.core, self.slot);
        }
    }
}

const _: () = assert!(STATE & WAITING == 0);
