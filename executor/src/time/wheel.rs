//! A hierarchical timing wheel: timers are added and removed in constant time, however many there
//! are.
//!
//! ```text
//!   level 0   [. . x . . . . .]   64 slots of one tick each
//!   level 1   [. . . . x x . .]   64 slots of 64 ticks; a slot whose time comes is spread
//!   ...                           over the levels below
//!   level 7   [. . . . . . . .]
//! ```
//!
//! A timer is at the level of the highest digit (in base 64) in which its tick differs from the
//! wheel's present tick. So all occupied slots of a level lie ahead of the present one, and the
//! first occupied slot of the lowest occupied level is the next to look at.

use std::collections::VecDeque;
use std::time::Duration;

use crate::task::waker::LocalWaker;
use crate::time::instant::Instant;

/// A tick is 2¹² ns, about 4 µs: finer than the kernel wakes a sleeping thread.
const TICK_SHIFT: u32 = 12;
const LEVEL_BITS: u32 = 6;
const SLOTS: usize = 1 << LEVEL_BITS;
/// 8 levels of 64 slots reach 36 years ahead; what is later waits there.
const LEVELS: usize = 8;
const LAST_TICK: u64 = (1 << (LEVEL_BITS * LEVELS as u32)) - 1;

/// A timer may be late by this part of its length, so that those due about the same time share one
/// visit to the kernel.
const LATENESS_SHIFT: u32 = 4;
/// But by no more than this many ticks, a quarter of a millisecond.
const MOST_LATE: u64 = 64;

const NONE: u32 = u32::MAX;

/// Names a timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimerKey {
    index: u32,
    generation: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Free,
    Slot { level: u8, slot: u8 },
    Fired,
}

struct Timer {
    /// In ticks of the wheel, rounded up.
    tick: u64,
    /// In nanoseconds since the wheel's epoch, to order timers of one tick.
    deadline: u64,
    generation: u32,
    place: Place,
    previous: u32,
    next: u32,
    waker: Option<LocalWaker>,
}

#[derive(Clone, Copy)]
struct Slot {
    head: u32,
    tail: u32,
    /// No timer of the slot is due before this tick.
    earliest: u64,
}

struct Level {
    /// One bit per slot that is not empty.
    occupied: u64,
    slots: [Slot; SLOTS],
}

pub(crate) struct Wheel {
    epoch: Instant,
    /// Every tick up to this one is done.
    present: u64,
    levels: Box<[Level]>,
    timers: Vec<Timer>,
    free: u32,
    /// Timers that have not fired.
    waiting: usize,
    /// Scratch space for timers of one tick: deadline and index.
    due: Vec<(u64, u32)>,
}

impl Wheel {
    pub(crate) fn new(epoch: Instant) -> Self {
        let slot = Slot { head: NONE, tail: NONE, earliest: u64::MAX };
        let level = || Level { occupied: 0, slots: [slot; SLOTS] };
        Wheel {
            epoch,
            present: 0,
            levels: std::iter::repeat_with(level).take(LEVELS).collect(),
            timers: Vec::new(),
            free: NONE,
            waiting: 0,
            due: Vec::new(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// Adds a timer. A deadline in the past is due with the next tick, one that is far away with the
    /// next multiple of a few ticks.
    pub(crate) fn insert(
        &mut self,
        now: Instant,
        deadline: Instant,
        waker: LocalWaker,
    ) -> TimerKey {
        if self.waiting == 0 {
            // Nobody moved the wheel while it was empty.
            self.present = self.present.max(self.tick_of(now));
        }
        let deadline = self.nanoseconds(deadline);
        let tick = deadline.div_ceil(1 << TICK_SHIFT).clamp(self.present + 1, LAST_TICK);
        let ahead = tick.saturating_sub(self.tick_of(now));
        let tick = tick.next_multiple_of(grain(ahead)).min(LAST_TICK);
        let index = self.allocate();
        let timer = &mut self.timers[index as usize];
        timer.tick = tick;
        timer.deadline = deadline;
        timer.waker = Some(waker);
        self.waiting += 1;
        self.link(index);
        TimerKey { index, generation: self.timers[index as usize].generation }
    }

    /// The last tick that is over at that time.
    fn tick_of(&self, time: Instant) -> u64 {
        (self.nanoseconds(time) >> TICK_SHIFT).min(LAST_TICK - 1)
    }

    fn nanoseconds(&self, time: Instant) -> u64 {
        time.as_nanos().saturating_sub(self.epoch.as_nanos())
    }

    fn allocate(&mut self) -> u32 {
        if self.free != NONE {
            let index = self.free;
            self.free = self.timers[index as usize].next;
            return index;
        }
        let index = self.timers.len() as u32;
        assert!(index != NONE, "too many timers");
        self.timers.push(Timer {
            tick: 0,
            deadline: 0,
            generation: 0,
            place: Place::Free,
            previous: NONE,
            next: NONE,
            waker: None,
        });
        index
    }

    /// The timer, when it still waits.
    pub(crate) fn waker(&mut self, key: TimerKey) -> Option<&mut Option<LocalWaker>> {
        let timer = self.timers.get_mut(key.index as usize)?;
        let waits = timer.generation == key.generation && matches!(timer.place, Place::Slot { .. });
        waits.then_some(&mut timer.waker)
    }

    /// Removes a timer, fired or not.
    pub(crate) fn remove(&mut self, key: TimerKey) -> Option<LocalWaker> {
        let timer = self.timers.get_mut(key.index as usize)?;
        if timer.generation != key.generation {
            return None;
        }
        let waker = timer.waker.take();
        if let Place::Slot { level, slot } = timer.place {
            self.unlink(key.index, level, slot);
            self.waiting -= 1;
        }
        let timer = &mut self.timers[key.index as usize];
        timer.generation = timer.generation.wrapping_add(1);
        timer.place = Place::Free;
        timer.next = self.free;
        self.free = key.index;
        waker
    }

    /// Puts a timer where its tick belongs. The tick is later than the present.
    fn link(&mut self, index: u32) {
        let tick = self.timers[index as usize].tick;
        debug_assert!(tick > self.present, "a timer of the past cannot be in the wheel");
        let highest_bit = u64::BITS - 1 - ((tick ^ self.present) | 1).leading_zeros();
        let level = highest_bit / LEVEL_BITS;
        let slot_number = (tick >> (level * LEVEL_BITS)) as usize % SLOTS;
        let level_state = &mut self.levels[level as usize];
        level_state.occupied |= 1 << slot_number;
        let slot = &mut level_state.slots[slot_number];
        slot.earliest = slot.earliest.min(tick);
        let last = std::mem::replace(&mut slot.tail, index);
        if last == NONE {
            slot.head = index;
        } else {
            self.timers[last as usize].next = index;
        }
        let timer = &mut self.timers[index as usize];
        timer.place = Place::Slot { level: level as u8, slot: slot_number as u8 };
        timer.previous = last;
        timer.next = NONE;
    }

    fn unlink(&mut self, index: u32, level: u8, slot_number: u8) {
        let Timer { previous, next, .. } = self.timers[index as usize];
        let level = &mut self.levels[level as usize];
        let slot = &mut level.slots[slot_number as usize];
        if previous == NONE {
            slot.head = next;
        } else {
            self.timers[previous as usize].next = next;
        }
        if next == NONE {
            slot.tail = previous;
        } else {
            self.timers[next as usize].previous = previous;
        }
        if slot.head == NONE {
            slot.earliest = u64::MAX;
            level.occupied &= !(1 << slot_number);
        }
    }

    /// The first occupied slot: its level, its number, the tick at which it begins.
    fn first_slot(&self) -> Option<(usize, usize, u64)> {
        let (level, state) =
            self.levels.iter().enumerate().find(|(_, level)| level.occupied != 0)?;
        let slot = state.occupied.trailing_zeros() as usize;
        let shift = level as u32 * LEVEL_BITS;
        let above = self.present >> (shift + LEVEL_BITS) << (shift + LEVEL_BITS);
        Some((level, slot, above | (slot as u64) << shift))
    }

    /// When to look again. Nothing is due before; perhaps nothing is due then either, when a timer
    /// was removed.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        let (level, slot, _) = self.first_slot()?;
        let tick = self.levels[level].slots[slot].earliest;
        Some(self.epoch + Duration::from_nanos(tick << TICK_SHIFT))
    }

    /// Moves the wakers of all timers that are due to `fired`, earliest first.
    pub(crate) fn expire(&mut self, now: Instant, fired: &mut VecDeque<LocalWaker>) {
        let now = self.tick_of(now);
        while let Some((level, slot, begin)) = self.first_slot() {
            if begin > now {
                break;
            }
            self.present = begin;
            self.empty_slot(level, slot, fired);
        }
        self.present = self.present.max(now);
    }

    /// Fires or spreads the timers of a slot that begins at the present tick.
    fn empty_slot(&mut self, level: usize, slot: usize, fired: &mut VecDeque<LocalWaker>) {
        let state = &mut self.levels[level];
        state.occupied &= !(1 << slot);
        let empty = Slot { head: NONE, tail: NONE, earliest: u64::MAX };
        let mut index = std::mem::replace(&mut state.slots[slot], empty).head;
        let mut due = std::mem::take(&mut self.due);
        while index != NONE {
            let timer = &mut self.timers[index as usize];
            let next = timer.next;
            if timer.tick <= self.present {
                timer.place = Place::Fired;
                due.push((timer.deadline, index));
            } else {
                self.link(index);
            }
            index = next;
        }
        self.waiting -= due.len();
        // Stable: equal deadlines in the order of their insertion.
        due.sort_by_key(|&(deadline, _)| deadline);
        fired.extend(
            due.drain(..).filter_map(|(_, index)| self.timers[index as usize].waker.take()),
        );
        self.due = due;
    }
}

/// The ticks at which a timer of that length may be due are multiples of this, a power of two: then
/// multiples of a large one are multiples of a small one as well, and timers that begin together end
/// in order.
fn grain(ticks: u64) -> u64 {
    let most = (ticks >> LATENESS_SHIFT).clamp(1, MOST_LATE);
    1 << most.ilog2()
}
