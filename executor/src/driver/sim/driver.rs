//! The world as an executor sees it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::log::Note;
use super::perform::{Due, File, Lane, Outcome, Pending, extent, name};
use super::{MOST_CALLS, Sim, Slice, World};
use crate::config::DriverKind;
use crate::driver::epoll::{RealFile, RealOperation};
use crate::driver::{Attached, Driver, FileId, Medium, Residence, Target, Wait};
use crate::ops::Operation;
use crate::ops::slots::{Completion, Token};
use crate::remote::Shared;
use crate::time::instant::Instant;

/// How it stands with the actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    Alive,
    /// It has passed its last point and is about to fall.
    Dying,
    /// It is being taken away: nothing that it still does counts.
    Dead,
    /// A panic went through it, after which nothing counts any more.
    Over,
}

pub(super) struct SimDriver {
    world: Rc<RefCell<World>>,
    multishot: bool,
    schedules: bool,
}

impl SimDriver {
    pub(super) fn new(world: Rc<RefCell<World>>) -> Self {
        // Kernels with and without it.
        let multishot = !world.borrow_mut().random.once_in(4);
        let schedules = !world.borrow_mut().random.once_in(4);
        SimDriver { world, multishot, schedules }
    }

    /// Counts a call of the driver, which may be the actor's last.
    fn called(&self) {
        let sim = Sim { world: Rc::clone(&self.world) };
        let calls = {
            let mut world = self.world.borrow_mut();
            world.burn();
            world.calls += 1;
            world.calls
        };
        assert!(calls < MOST_CALLS, "the actor runs in circles");
        sim.fall();
    }
}

impl World {
    pub(super) fn note(&mut self, what: &'static str, numbers: [u64; 3]) {
        self.log.push(Note { at: self.clock.elapsed(), what, numbers });
    }

    /// Counts a point.
    pub(super) fn burn(&mut self) {
        if self.life != Life::Alive {
            return;
        }
        match &mut self.crash_in {
            None => {}
            Some(0) => {
                self.crash_in = None;
                self.life = Life::Dying;
                self.note("crash", [0; 3]);
            }
            Some(left) => *left -= 1,
        }
    }

    /// How long an operation takes.
    fn latency(&mut self) -> Duration {
        let random = &mut self.random;
        let micros = if self.faults.slow.strikes(random) {
            random.within(2_000..60_000)
        } else if random.once_in(8) {
            random.within(100..2_000)
        } else {
            random.below(60)
        };
        Duration::from_micros(micros)
    }

    pub(super) fn signal(&mut self, index: u32) {
        self.note("signal", [index.into(), 0, 0]);
        self.objects.signal(index);
        let due = self.clock.elapsed() + Duration::from_micros(self.random.below(30));
        for pending in &mut self.pending {
            if matches!(&pending.file, File::Simulated { index: waits, .. } if *waits == index)
                && pending.due == Due::OnSignal
            {
                pending.due = Due::At(due);
            }
        }
    }

    fn complete(&mut self, token: Token, result: i32, more: bool) {
        let completion = Completion { more, ..Completion::only(token, result) };
        self.completions.push(completion);
    }

    /// Tries the operation at a place of the list. True if it is over.
    fn try_at(&mut self, place: usize) -> bool {
        let mut pending = self.pending.swap_remove(place);
        if let Due::Happened(_, result) = pending.due {
            self.finish(&pending, result);
            return true;
        }
        match self.attempt(&mut pending) {
            Outcome::Done(result) => {
                self.finish(&pending, result);
                true
            }
            Outcome::Event(flags) => {
                self.complete(pending.token, flags, true);
                self.park(pending, Outcome::Event(flags));
                true
            }
            Outcome::Wait => {
                self.park(pending, Outcome::Wait);
                false
            }
        }
    }

    pub(super) fn finish(&mut self, pending: &Pending, result: i32) {
        let (offset, length) = extent(&pending.operation);
        // The results of opening are descriptors, which are others each time.
        let shown = match pending.operation {
            Operation::Accept if result >= 0 => 0,
            _ => result as u64,
        };
        self.note(name(&pending.operation), [offset, length, shown]);
        self.complete(pending.token, result, false);
    }

    fn park(&mut self, mut pending: Pending, outcome: Outcome) {
        pending.due = match (&pending.file, outcome) {
            (File::Simulated { .. }, _) => Due::OnSignal,
            // What was reported may still hold, and an edge cannot be told from that.
            (File::Real(..), Outcome::Event(_)) => {
                Due::At(self.clock.elapsed() + Duration::from_micros(200))
            }
            (File::Real(..), _) => Due::EachTurn,
        };
        self.pending.push(pending);
    }

    fn is_due(&self, due: Due) -> bool {
        match due {
            Due::At(time) | Due::Happened(time, _) => time <= self.clock.elapsed(),
            Due::EachTurn => true,
            Due::OnSignal => false,
        }
    }

    /// Tries all that is due, in any order.
    fn try_due(&mut self) {
        let due = self.pending.iter().filter(|pending| self.is_due(pending.due));
        let mut tokens: Vec<Token> = due.map(|pending| pending.token).collect();
        let mut blocked = Vec::new();
        while !tokens.is_empty() {
            let chosen = self.random.below(tokens.len() as u64) as usize;
            let token = tokens.swap_remove(chosen);
            let place = self.pending.iter().position(|pending| pending.token == token);
            let Some(place) = place.and_then(|place| self.first_of_lane(place)) else { continue };
            let lane = self.pending[place].lane;
            let goes = lane.is_none() || !blocked.contains(&lane);
            if goes && !self.try_at(place) {
                blocked.push(lane);
            }
        }
    }

    /// The operation that goes before all others of the same lane, if it is due.
    fn first_of_lane(&self, place: usize) -> Option<usize> {
        let lane = self.pending[place].lane;
        if lane.is_none() {
            return Some(place);
        }
        let same = self.pending.iter().enumerate().filter(|(_, other)| other.lane == lane);
        let (first, pending) = same.min_by_key(|(_, other)| other.order)?;
        self.is_due(pending.due).then_some(first)
    }

    fn end_slice(&mut self, slice: Slice) {
        self.slice = Some(slice);
        if let Some(owner) = self.owner.take() {
            owner.wake();
        }
    }

    /// To the next time at which something is due, if that is within so long.
    pub(super) fn advance(&mut self, within: Duration) -> bool {
        let timed = self.pending.iter().filter_map(|pending| match pending.due {
            Due::At(time) | Due::Happened(time, _) => Some(time),
            Due::EachTurn | Due::OnSignal => None,
        });
        let Some(next) = timed.chain(self.clock.alarm()).min() else {
            return false;
        };
        if next.saturating_sub(self.clock.elapsed()) > within {
            return false;
        }
        self.clock.reach(next);
        true
    }

    /// The actor is dead; its operations are in the hands of the kernel, which has begun some.
    pub(super) fn die(&mut self) {
        if self.life == Life::Over {
            return;
        }
        self.life = Life::Dead;
        self.crash_in = None;
        self.note("death", [self.pending.len() as u64, 0, 0]);
        // Of each lane the first ones, if any.
        self.pending.sort_by_key(|pending| pending.order);
        let mut ended: Vec<Lane> = Vec::new();
        for mut pending in std::mem::take(&mut self.pending) {
            match pending.lane {
                None => self.pending.push(pending),
                Some(lane) if ended.contains(&lane) => {}
                Some(lane) if self.random.once_in(2) => ended.push(lane),
                Some(_) => _ = self.attempt(&mut pending),
            }
        }
        while !self.pending.is_empty() {
            let chosen = self.random.below(self.pending.len() as u64) as usize;
            let mut pending = self.pending.swap_remove(chosen);
            let moves = matches!(pending.file, File::Simulated { .. })
                && !matches!(pending.due, Due::Happened(..))
                && name(&pending.operation) != "poll";
            if moves && self.random.once_in(2) {
                // Nobody hears of the result.
                let _ = self.attempt(&mut pending);
            }
        }
    }

    /// The actor's memory is gone.
    pub(super) fn bury(&mut self) {
        self.pending.clear();
        self.completions.clear();
        self.answered.clear();
        self.told.clear();
        self.clock.wake();
        self.owner = None;
        if self.life != Life::Over {
            self.life = Life::Alive;
        }
    }

    fn give_up(&mut self, token: Token) {
        // Its last completion may be on its way: it died before the executor had dealt with it.
        let under_way = self.completions.iter().any(|last| !last.more && last.token == token);
        if !under_way && !self.told.contains(&token) && !self.answered.contains(&token) {
            self.answered.push(token);
            self.complete(token, -libc::ECANCELED, false);
        }
    }

    fn submit(&mut self, token: Token, target: Target, operation: Operation) {
        if self.life != Life::Alive {
            self.give_up(token);
            return;
        }
        let file = match target.file {
            FileId::Slot(index) if self.objects.is_script(index) => {
                self.objects.with_script(index, |script| script.ask(token, &operation));
                let file = File::Simulated { index, seen: 0, writeback: None };
                self.submitted += 1;
                let (due, order) = (Due::OnSignal, self.submitted);
                self.pending.push(Pending { token, operation, file, due, lane: None, order });
                return;
            }
            FileId::Slot(index) => {
                let syncs = matches!(operation, Operation::Fsync | Operation::Fdatasync);
                let writeback =
                    syncs.then(|| self.objects.with_disk(index, |disk| disk.begin_sync()));
                File::Simulated { index, seen: 0, writeback }
            }
            FileId::Plain | FileId::Polled(_) => {
                // SAFETY: whoever submits holds the file.
                let borrowed = unsafe { BorrowedFd::borrow_raw(target.fd) };
                let file = RealFile::new(borrowed);
                File::Real(file, RealOperation::new(token, operation))
            }
        };
        let lane = Lane::of(target, &operation);
        let waits = lane.is_some() && self.pending.iter().any(|pending| pending.lane == lane);
        let latency = self.latency();
        // Behind others of its lane it goes when they have gone.
        let due = if waits { Due::EachTurn } else { Due::At(self.clock.elapsed() + latency) };
        self.submitted += 1;
        let order = self.submitted;
        let mut pending = Pending { token, operation, file, due, lane, order };
        // What happens may happen at once and be told later; the actor may die in between.
        let moves = matches!(name(&operation), "read" | "write" | "allocate");
        if moves
            && matches!(target.file, FileId::Slot(_))
            && self.random.once_in(3)
            && let Outcome::Done(result) = self.attempt(&mut pending)
            && let Due::At(time) = due
        {
            pending.due = Due::Happened(time, result);
        }
        self.pending.push(pending);
    }

    fn cancel(&mut self, token: Token) {
        if self.life != Life::Alive {
            self.pending.retain(|pending| pending.token != token);
            self.give_up(token);
            return;
        }
        let Some(place) = self.pending.iter().position(|pending| pending.token == token) else {
            return;
        };
        let moves = matches!(name(&self.pending[place].operation), "read" | "write" | "sync");
        let simulated = self.pending[place].lane.is_none();
        if moves
            && simulated
            && self.faults.uncancelled.strikes(&mut self.random)
            && self.try_at(place)
        {
            return;
        }
        if let Some(place) = self.pending.iter().position(|pending| pending.token == token) {
            let pending = self.pending.swap_remove(place);
            let result = match pending.due {
                Due::Happened(_, result) => result,
                _ => -libc::ECANCELED,
            };
            self.finish(&pending, result);
        }
    }
}

impl Driver for SimDriver {
    fn kind(&self) -> DriverKind {
        DriverKind::Simulated
    }

    fn has_multishot_poll(&self) -> bool {
        self.multishot
    }

    fn attach(&mut self, fd: BorrowedFd<'_>, _residence: Residence) -> Attached {
        match self.world.borrow().objects.find(fd) {
            Some(index) => Attached { file: FileId::Slot(index), medium: Medium::Other },
            None => Attached { file: FileId::Plain, medium: Medium::of(fd) },
        }
    }

    fn detach(&mut self, _target: Target) {}

    fn submit(&mut self, token: Token, target: Target, operation: Operation) {
        self.called();
        self.world.borrow_mut().submit(token, target, operation);
    }

    fn cancel(&mut self, token: Token, _target: Target) {
        self.world.borrow_mut().cancel(token);
    }

    fn signal(&mut self, target: Target) {
        self.called();
        let mut world = self.world.borrow_mut();
        match target.file {
            _ if world.life != Life::Alive => {}
            FileId::Slot(index) => world.signal(index),
            FileId::Plain | FileId::Polled(_) => {
                // SAFETY: whoever signals holds the file.
                let eventfd = unsafe { BorrowedFd::borrow_raw(target.fd) };
                // A full counter rings already.
                let _ = rustix::io::write(eventfd, &1u64.to_ne_bytes());
            }
        }
    }

    fn message_ring(&mut self, _target: &mut dyn FnMut() -> Arc<Shared>) -> bool {
        false
    }

    fn flush(&mut self) {}

    fn turn(&mut self, wait: Wait) {
        let mut world = self.world.borrow_mut();
        if world.life != Life::Alive {
            return;
        }
        let step = Duration::from_nanos(world.random.below(2_000));
        world.clock.pass(step);
        world.try_due();
        world.turns_left = world.turns_left.saturating_sub(1);
        if world.completions.is_empty() && wait != Wait::No {
            world.clock.sleep(match wait {
                Wait::For(time) => Some(time),
                Wait::No | Wait::Forever => None,
            });
            world.end_slice(Slice::Waiting);
        } else if world.turns_left == 0 {
            world.end_slice(Slice::Busy);
        }
    }

    fn reap(&mut self, completions: &mut VecDeque<Completion>) {
        let mut world = self.world.borrow_mut();
        let World { completions: there, told, .. } = &mut *world;
        told.clear();
        told.extend(there.iter().filter(|completion| !completion.more).map(|last| last.token));
        completions.extend(there.drain(..));
    }

    fn has_completions(&mut self) -> bool {
        !self.world.borrow().completions.is_empty()
    }

    fn system_calls(&self) -> u64 {
        0
    }

    fn now(&self) -> Instant {
        self.world.borrow().clock.now()
    }

    fn random(&mut self) -> u64 {
        self.world.borrow_mut().random.next()
    }

    fn schedules(&self) -> bool {
        self.schedules
    }

    fn choose(&mut self, ready: usize) -> usize {
        self.world.borrow_mut().random.below(ready as u64) as usize
    }

    fn on_the_spot(&mut self, target: Target, operation: &Operation) -> Option<i32> {
        let mut world = self.world.borrow_mut();
        if world.life != Life::Alive {
            return Some(-libc::EAGAIN);
        }
        let result = world.on_the_spot(target.file, operation)?;
        let (offset, length) = extent(operation);
        world.note("on the spot", [offset, length, result as u64]);
        Some(result)
    }
}
