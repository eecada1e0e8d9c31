//! What one executor consists of, and the thread's current one.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::driver::{Driver, Wait};
use crate::fd::FdInner;
use crate::idle::IdlePollers;
use crate::ops::Operation;
use crate::ops::set::SetHeader;
use crate::ops::slots::{After, Completion, Slots, State, Token};
use crate::remote::Shared;
use crate::task::header::{Header, TaskRef};
use crate::task::queue::{LiveList, ReadyQueue};
use crate::task::waker::LocalWaker;
use crate::time::instant::Instant;
use crate::time::wheel::Wheel;

/// Looks for work between two readings of the clock: less than a microsecond.
const LOOKS_PER_READING: u32 = 16;

/// What others may have to wait for the kernel behind tasks that have much to do.
const LONG_TURN: Duration = Duration::from_micros(40);

/// What an executor has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Turns of the loop.
    pub turns: u64,
    /// Polls of tasks.
    pub polls: u64,
    /// System calls of the driver to submit, wait, and under epoll to perform.
    pub system_calls: u64,
    /// Operations submitted.
    pub submitted: u64,
    /// Completions received.
    pub completed: u64,
}

pub(crate) struct Core {
    driver: RefCell<Box<dyn Driver>>,
    pub(crate) slots: RefCell<Slots>,
    pub(crate) timers: RefCell<Wheel>,
    pub(crate) ready: ReadyQueue,
    pub(crate) live: LiveList,
    /// The future of `block_on` was woken.
    pub(crate) main_woken: Cell<bool>,
    /// The task that is being polled or dropped.
    pub(crate) current_task: Cell<Option<NonNull<Header>>>,
    pub(crate) idle: IdlePollers,
    /// The driver chooses which ready task runs next.
    pub(crate) driver_schedules: bool,
    /// The executor has ended: nothing is submitted any more.
    closed: Cell<bool>,
    /// What a turn has brought up and nobody was told yet.
    completions: RefCell<VecDeque<Completion>>,
    /// Timers that are due and whose tasks were not woken yet.
    fired: RefCell<VecDeque<LocalWaker>>,
    /// When somebody first told the time in this turn.
    turn_began: Cell<Option<Instant>>,
    turn_is_long: Cell<bool>,
    turns: Cell<u64>,
    polls: Cell<u64>,
    submitted: Cell<u64>,
    completed: Cell<u64>,
    /// Last, because tasks that the fields above refer to need it while they are released.
    shared: Arc<Shared>,
}

thread_local! {
    static CURRENT: Cell<*const Core> = const { Cell::new(std::ptr::null()) };
}

/// Runs `with` with the executor that runs on this thread.
pub(crate) fn with_current<R>(with: impl FnOnce(Option<&Core>) -> R) -> R {
    // During the thread's destruction there is no executor.
    let core = CURRENT.try_with(Cell::get).unwrap_or(std::ptr::null());
    // SAFETY: whoever set it keeps the executor alive until it is reset.
    with(unsafe { core.as_ref() })
}

/// The executor that runs on this thread.
pub(crate) fn current() -> Option<Rc<Core>> {
    let core = CURRENT.try_with(Cell::get).unwrap_or(std::ptr::null());
    if core.is_null() {
        return None;
    }
    // SAFETY: `enter` takes the address from an `Rc` and keeps that alive until it is reset.
    unsafe {
        Rc::increment_strong_count(core);
        Some(Rc::from_raw(core))
    }
}

/// Makes an executor the thread's current one until the result is dropped.
pub(crate) fn enter(core: &Rc<Core>) -> Entered<'_> {
    Entered { previous: CURRENT.replace(Rc::as_ptr(core)), _core: core }
}

pub(crate) struct Entered<'a> {
    previous: *const Core,
    _core: &'a Rc<Core>,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        CURRENT.set(self.previous);
    }
}

impl Core {
    pub(crate) fn new(
        shared: Arc<Shared>,
        driver: Box<dyn Driver>,
        idle_spin: Duration,
        capacity: usize,
    ) -> Self {
        Core {
            shared,
            slots: RefCell::new(Slots::with_capacity(capacity)),
            timers: RefCell::new(Wheel::new(driver.now())),
            ready: ReadyQueue::default(),
            live: LiveList::default(),
            main_woken: Cell::new(false),
            current_task: Cell::new(None),
            idle: IdlePollers::new(idle_spin),
            driver_schedules: driver.schedules(),
            driver: RefCell::new(driver),
            closed: Cell::new(false),
            completions: RefCell::new(VecDeque::with_capacity(capacity)),
            fired: RefCell::default(),
            turn_began: Cell::new(None),
            turn_is_long: Cell::new(false),
            turns: Cell::new(0),
            polls: Cell::new(0),
            submitted: Cell::new(0),
            completed: Cell::new(0),
        }
    }

    pub(crate) fn shared_ptr(&self) -> *const Shared {
        Arc::as_ptr(&self.shared)
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(crate) fn driver(&self) -> std::cell::RefMut<'_, Box<dyn Driver>> {
        self.driver.borrow_mut()
    }

    pub(crate) fn stats(&self) -> Stats {
        Stats {
            turns: self.turns.get(),
            polls: self.polls.get(),
            system_calls: self.driver().system_calls(),
            submitted: self.submitted.get(),
            completed: self.completed.get(),
        }
    }

    pub(crate) fn count_poll(&self) {
        self.polls.set(self.polls.get() + 1);
    }

    /// Puts a task into the ready queue. `header` is alive at least until this returns.
    pub(crate) fn schedule(&self, header: NonNull<Header>) {
        // SAFETY: callers hold a reference of either kind.
        if unsafe { header.as_ref() }.is_done() {
            // It may have no local reference left that the queue's could stand beside.
            return;
        }
        // SAFETY: a task that is not done has the local reference of the list of live tasks, and
        // `self` is on its thread.
        unsafe { self.ready.push(header) };
    }

    /// The next task to poll.
    pub(crate) fn next_ready(&self) -> Option<TaskRef> {
        if self.driver_schedules && self.ready.len() > 1 {
            let choice = self.driver().choose(self.ready.len());
            self.ready.bring_forward(choice);
        }
        self.ready.pop()
    }

    /// Submits an operation whose outcome goes where `state` says.
    pub(crate) fn submit(&self, file: &Rc<FdInner>, operation: Operation, state: State) -> Token {
        let operation = file.adapt(operation);
        let token = self.slots.borrow_mut().insert(Rc::clone(file), operation.yields(), state);
        self.dispatch(token, file, operation);
        token
    }

    /// Submits the operation of a stream once more.
    pub(crate) fn resubmit(&self, token: Token, file: &Rc<FdInner>, operation: Operation) {
        self.slots.borrow_mut().rearm(token, Rc::clone(file));
        self.dispatch(token, file, operation);
    }

    fn dispatch(&self, token: Token, file: &Rc<FdInner>, operation: Operation) {
        self.submitted.set(self.submitted.get() + 1);
        if self.closed.get() {
            self.complete(Completion::only(token, -libc::ECANCELED));
        } else {
            self.driver().submit(token, file.target(), operation);
        }
    }

    pub(crate) fn cancel(&self, token: Token, file: &Rc<FdInner>) {
        if !self.closed.get() {
            self.driver().cancel(token, file.target());
        }
    }

    /// Wakes the executor at the other end with a message from our ring.
    pub(crate) fn message_ring(&self, mut target: impl FnMut() -> Arc<Shared>) -> bool {
        if self.closed.get() {
            return false;
        }
        match self.driver.try_borrow_mut() {
            Ok(mut driver) => driver.message_ring(&mut target),
            Err(_) => false,
        }
    }

    pub(crate) fn tell_time(&self, now: Instant) {
        let began = self.turn_began.get().unwrap_or(now);
        self.turn_began.set(Some(began));
        self.turn_is_long.set(now.duration_since(began) >= LONG_TURN);
    }

    /// Whether it is time for the kernel, as far as anybody told.
    pub(crate) fn turn_is_long(&self) -> bool {
        self.turn_is_long.get()
    }

    /// One turn: submit, wait if there is nothing to do, take what has completed.
    pub(crate) fn turn(&self) {
        self.turns.set(self.turns.get() + 1);
        self.turn_began.set(None);
        self.turn_is_long.set(false);
        let mut wait = Wait::No;
        // Also while there is other work: what is found this way may not come in any other.
        let found = self.idle.look();
        if !found && !self.has_ready() {
            self.linger();
            if !self.has_ready() && !self.driver().has_completions() && !self.idle.settle() {
                wait = self.wait();
            }
        }
        self.driver_turn(wait);
    }

    /// Hand over what is queued and take what has completed, in the middle of a turn.
    pub(crate) fn visit(&self) {
        {
            let mut driver = self.driver();
            driver.turn(Wait::No);
            driver.reap(&mut self.completions.borrow_mut());
        }
        self.take_completions();
    }

    fn has_ready(&self) -> bool {
        self.main_woken.get() || !self.ready.is_empty()
    }

    fn timer_is_due(&self) -> bool {
        let timers = self.timers.borrow();
        timers.next_expiry().is_some_and(|at| at <= self.driver().now())
    }

    /// How to wait now that nothing is ready.
    fn wait(&self) -> Wait {
        let wait = match self.timers.borrow().next_expiry() {
            None => Wait::Forever,
            Some(at) => {
                let left = at.duration_since(self.driver().now());
                if left.is_zero() {
                    return Wait::No;
                }
                Wait::For(left)
            }
        };
        if self.shared.prepare_to_sleep() { wait } else { Wait::No }
    }

    fn driver_turn(&self, wait: Wait) {
        {
            let mut driver = self.driver();
            driver.turn(wait);
            driver.reap(&mut self.completions.borrow_mut());
        }
        self.shared.drain(self);
        self.take_completions();
        self.fire_timers();
    }

    fn take_completions(&self) {
        // One by one: when the code that a completion runs panics, the others stay for later.
        while let Some(completion) = self.next_completion() {
            self.completed.set(self.completed.get() + 1);
            self.complete(completion);
        }
    }

    fn next_completion(&self) -> Option<Completion> {
        self.completions.borrow_mut().pop_front()
    }

    fn fire_timers(&self) {
        if !self.timers.borrow().is_empty() {
            let now = self.driver().now();
            self.timers.borrow_mut().expire(now, &mut self.fired.borrow_mut());
        }
        while let Some(waker) = self.next_fired() {
            waker.wake(self);
        }
    }

    fn next_fired(&self) -> Option<LocalWaker> {
        self.fired.borrow_mut().pop_front()
    }

    fn complete(&self, completion: Completion) {
        let after = self.slots.borrow_mut().complete(completion);
        match after {
            After::Nothing => {}
            After::Wake { waker, file } => {
                waker.wake(self);
                drop(file);
            }
            After::Drop { file, result, storage, group } => {
                drop((file, result, storage));
                if let Some(group) = group {
                    group.completed(self);
                }
            }
            After::Set { set, index, file } => {
                drop(file);
                // SAFETY: a set lives until the last of its operations has completed, and this
                // one was in flight until now.
                unsafe { SetHeader::complete(set, self, index, completion.result) };
            }
        }
    }

    /// Looks for work without system calls for a while, if that is expected to pay.
    fn linger(&self) {
        let patience = self.idle.patience();
        if patience.is_none() {
            return;
        }
        // What was queued must be under way, or there is nothing to look for.
        self.driver().flush();
        let mut until = None;
        loop {
            for _ in 0..LOOKS_PER_READING {
                std::hint::spin_loop();
                if self.idle.look() || self.has_ready() {
                    return;
                }
                if self.driver().has_completions() || self.shared.is_notified() {
                    return;
                }
            }
            // The clock itself costs as much as some looks, so the first ones do without.
            let now = Instant::of_host();
            let until = *until.get_or_insert_with(|| self.idle.until(now, patience));
            if now >= until || self.timer_is_due() {
                return;
            }
        }
    }

    /// Ends everything: tasks are dropped, operations cancelled, completions awaited.
    pub(crate) fn shut_down(&self) {
        loop {
            while let Some(task) = self.live.last() {
                crate::task::cancel(self, &task);
            }
            while self.ready.pop().is_some() {}
            let in_flight = self.slots.borrow().tokens_in_flight();
            if in_flight.is_empty() {
                break;
            }
            for (token, file) in in_flight {
                self.cancel(token, &file);
            }
            // Completions drop what operations held, which may end in code that queues more; hence
            // the outer loop.
            while self.slots.borrow().in_flight() > 0 {
                self.driver_turn(Wait::Forever);
            }
        }
        // The last task may have woken another executor. The kernel drops what it finds in a closed ring.
        self.driver().drain();
        self.closed.set(true);
        self.shared.close();
        self.idle.clear();
    }
}
