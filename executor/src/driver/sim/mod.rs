//! A driver without a kernel: a world that a seed decides, for simulations.
//!
//! ```text
//!   world's loop:  run ──► a slice of the executor ──► Slice ──► act, advance, crash ... ──► run
//!
//!   submit ──► pending (due at) ──► turn: what is due, in any order, with faults ──► completions
//!                  ▲                          │
//!                  └── signals of events ◄────┴── disks: pages in the cache, pages that last
//! ```
//!
//! Nothing happens by itself: time passes by small steps while the executor runs, and by leaps when
//! the owner of the world says so ([`Sim::advance`]). All that is random comes from one generator, so
//! a seed and the same sequence of calls give the same world, bit for bit; the [log](Sim::log) and
//! its hash show that.
//!
//! Simulated files are behind real descriptors, of empty files in memory: actors clone, send and close
//! them as any other. Descriptors that the world does not know are real, and operations on them are
//! performed for real when they are due, if that need not wait.
//!
//! An actor dies by [`Sim::kill`], between two slices, or in the middle of one at a countdown of
//! [points](Sim::point). Operations that it has in flight happen, or do not, or do in part.

mod clock;
mod disk;
mod driver;
mod faults;
mod log;
mod numbers;
mod objects;
mod perform;
mod script;

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use self::clock::Clock;
use self::disk::Opened;
use self::driver::{Life, SimDriver};
use self::objects::{Object, Objects};
use self::perform::Pending;
use crate::config::Config;
use crate::executor::Executor;
use crate::ops::slots::{Completion, Token};
use crate::remote::Shared;
use crate::time::instant::Instant;

pub use self::disk::Kept;
pub use self::faults::{Faults, PerMille};
pub use self::log::{Log, Note};
pub use self::numbers::Numbers;
pub use self::script::{Asked, AskedFor, ScriptId};

/// Driver calls of one slice after which the actor is taken to run in circles: a slice has some dozen
/// turns, and a turn at most some thousand calls.
const MOST_CALLS: u32 = 1_000_000;

/// A simulated eventfd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventId(u32);

/// A simulated disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskId(u32);

/// How a slice ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slice {
    /// The executor goes on when it gets another one.
    Busy,
    /// It waits, for something that is due later or for something from outside.
    Waiting,
    /// The actor died. All that is left to do is [`Sim::kill`].
    Crashed,
}

/// What unwinds an actor that dies in the middle of a slice.
struct Crash;

/// A simulated world; clones are the same.
#[derive(Clone)]
pub struct Sim {
    world: Rc<RefCell<World>>,
}

pub(super) struct World {
    clock: Clock,
    random: Numbers,
    faults: Faults,
    objects: Objects,
    pending: Vec<Pending>,
    submitted: u64,
    completions: Vec<Completion>,
    /// Operations whose last completions the executor was given with the last turn.
    told: Vec<Token>,
    /// Operations of a dead actor that were given up.
    answered: Vec<Token>,
    life: Life,
    /// Points until the actor dies.
    crash_in: Option<u32>,
    /// Turns until the slice is over.
    turns_left: u32,
    calls: u32,
    slice: Option<Slice>,
    owner: Option<Waker>,
    log: Log,
}

impl Sim {
    /// A world without files.
    pub fn new(seed: u64, faults: Faults) -> Self {
        let world = World {
            clock: Clock::new(),
            random: Numbers::new(seed),
            faults,
            objects: Objects::default(),
            pending: Vec::new(),
            submitted: 0,
            completions: Vec::new(),
            told: Vec::new(),
            answered: Vec::new(),
            life: Life::Alive,
            crash_in: None,
            turns_left: 0,
            calls: 0,
            slice: None,
            owner: None,
            log: Log::default(),
        };
        Sim { world: Rc::new(RefCell::new(world)) }
    }

    /// The executor of an actor. One at a time.
    pub fn executor(&self) -> Executor {
        // Never read nor written to: the owner of the world runs the executor anyway.
        let (_, doorbell) = io::pipe().expect("a pipe");
        let shared = Arc::new(Shared::new(doorbell.into()));
        let driver = SimDriver::new(Rc::clone(&self.world));
        Executor::with_driver(shared, Box::new(driver), &Config::default())
    }

    /// Runs the actor for some turns, or until it waits or dies. A panic of the actor that is no
    /// simulated death goes on.
    pub fn run(&self, executor: &mut Executor) -> Slice {
        {
            let mut world = self.world.borrow_mut();
            world.turns_left = 1 + world.random.below(24) as u32;
            world.calls = 0;
            world.slice = None;
            world.clock.wake();
        }
        let slice = poll_fn(|context| {
            let mut world = self.world.borrow_mut();
            if let Some(slice) = world.slice {
                return Poll::Ready(slice);
            }
            world.owner = Some(context.waker().clone());
            Poll::Pending
        });
        let outcome = catch_unwind(AssertUnwindSafe(|| executor.block_on(slice)));
        match outcome {
            Ok(slice) => slice,
            Err(death) if death.is::<Crash>() => Slice::Crashed,
            Err(panic) => {
                self.world.borrow_mut().life = Life::Over;
                resume_unwind(panic)
            }
        }
    }

    /// The actor dies, if it is not dead yet: what it has in flight happens or does not, then its
    /// memory goes.
    pub fn kill(&self, executor: Executor) {
        self.world.borrow_mut().die();
        drop(executor);
        self.world.borrow_mut().bury();
    }

    /// The actor dies when so many points were passed; none calls it off.
    pub fn crash_after(&self, points: Option<u32>) {
        self.world.borrow_mut().crash_in = points;
    }

    /// A place where the actor may die, beside those that the driver has: does not return then.
    pub fn point(&self) {
        self.world.borrow_mut().burn();
        self.fall();
    }

    /// Unwinds an actor that has just died.
    fn fall(&self) {
        let dead = self.world.borrow().life == Life::Dying;
        if dead && !std::thread::panicking() {
            self.world.borrow_mut().life = Life::Dead;
            // Unlike a panic, this says nothing on its way.
            resume_unwind(Box::new(Crash));
        }
    }

    /// An eventfd whose counter is zero.
    pub fn event(&self) -> io::Result<(OwnedFd, EventId)> {
        let (descriptor, index) = self.world.borrow_mut().objects.add(Object::event())?;
        Ok((descriptor, EventId(index)))
    }

    /// Adds one to an eventfd, from outside the actor.
    pub fn signal(&self, event: EventId) {
        self.world.borrow_mut().signal(event.0);
    }

    /// Whether an eventfd was signalled since the last call; its counter is zero afterwards.
    pub fn take_signal(&self, event: EventId) -> bool {
        self.world.borrow_mut().objects.take_signal(event.0)
    }

    /// A disk that holds these bytes, a multiple of 512.
    pub fn disk(&self, contents: Vec<u8>) -> io::Result<(OwnedFd, DiskId)> {
        let (descriptor, index) = self.world.borrow_mut().objects.add(Object::disk(contents))?;
        Ok((descriptor, DiskId(index)))
    }

    /// A file whose operations wait for [`Sim::answer`].
    pub fn script(&self) -> io::Result<(OwnedFd, ScriptId)> {
        let object = Object::Script(Box::default());
        let (descriptor, index) = self.world.borrow_mut().objects.add(object)?;
        Ok((descriptor, ScriptId(index)))
    }

    /// What a disk holds for whoever reads it now.
    pub fn disk_contents(&self, disk: DiskId) -> Vec<u8> {
        self.world.borrow_mut().objects.with_disk(disk.0, |disk| disk.contents().to_vec())
    }

    /// Somebody else than the actor changes some bytes: a guest that has the file as its memory.
    ///
    /// # Panics
    ///
    /// If the disk ends before them.
    pub fn store(&self, disk: DiskId, offset: usize, bytes: &[u8]) {
        self.world.borrow_mut().objects.with_disk(disk.0, |disk| disk.write(offset, bytes));
    }

    /// Somebody who outlives the actors syncs a disk, by an open file that nobody else uses.
    pub fn sync(&self, disk: DiskId) -> io::Result<()> {
        let mut world = self.world.borrow_mut();
        let World { objects, random, faults, .. } = &mut *world;
        let result = objects.with_disk(disk.0, |disk| {
            let writeback = disk.begin_sync();
            perform::sync(disk, writeback, Opened::BySurvivor, faults, random)
        });
        world.note("sync of a survivor", [0, 0, result as u64]);
        if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(()) }
    }

    /// The host lost its power: a disk holds what was made durable, and of the rest what `Kept` says.
    pub fn cut_power(&self, disk: DiskId, kept: Kept) {
        let World { objects, random, .. } = &mut *self.world.borrow_mut();
        objects.with_disk(disk.0, |disk| disk.cut_power(kept, random));
    }

    /// Lets other faults happen from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.world.borrow_mut().faults = faults;
    }

    /// Time since the beginning of the world.
    pub fn elapsed(&self) -> Duration {
        self.world.borrow().clock.elapsed()
    }

    /// The time as the actor sees it.
    pub fn now(&self) -> Instant {
        self.world.borrow().clock.now()
    }

    /// Goes to the next time at which something is due: false if nothing is. Also true when
    /// something is due already.
    pub fn advance(&self) -> bool {
        self.advance_within(Duration::MAX)
    }

    /// The same, if that is within so long.
    pub fn advance_within(&self, time: Duration) -> bool {
        self.world.borrow_mut().advance(time)
    }

    /// Puts what the owner of the world did, or saw, into the log.
    pub fn note(&self, what: &'static str, numbers: [u64; 3]) {
        self.world.borrow_mut().note(what, numbers);
    }

    /// What has happened. Its hash tells whether two worlds are the same.
    pub fn log(&self) -> Log {
        self.world.borrow().log.clone()
    }

    /// A hash of the log.
    pub fn hash(&self) -> u64 {
        self.world.borrow().log.hash()
    }
}

impl std::fmt::Debug for Sim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sim")
    }
}
