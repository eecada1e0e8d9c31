//! One run of one seed.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use devices::simulation::at_points;
use devices::virtio::backend::{BackendEvent, QueueState};
use devices::virtio::queue::InflightRegion;
use executor::sim::{Faults, Numbers, Sim, Slice};

use crate::actor::Actor;
use crate::lifecycle::record;
use crate::machine::Machine;
use crate::model::{Model, Succession};
use crate::settings::{Kind, Settings};
use crate::stage::Stage;

/// Parts of what a seed decides: each has numbers of its own, so that leaving one out does not change
/// the others.
const SETTINGS: u64 = 1;
const RACES: u64 = 2;
const STEPS: u64 = 1000;

/// Slices of a world after which it is taken to run in circles.
const MOST_SLICES: u32 = 20_000;
/// What drivers and hosts that act now and then may be late by: longer than any disk takes, and shorter
/// than what devices wait for before they give somebody up.
pub(crate) const SHORT: Duration = Duration::from_millis(200);
/// Slices without anything due after which nothing more is expected.
const QUIET: u32 = 4;
/// A world's guest has so much memory.
const MEMORY: u64 = 512 << 10;

/// Which world, and what to leave out of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// Kinds of things that do not happen.
    pub without: Vec<Kind>,
    /// How many steps it has at most.
    pub steps: Option<u32>,
    /// Steps that are left out.
    pub skip: BTreeSet<u32>,
}

impl Plan {
    /// All of a seed's world.
    pub fn of(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }
}

/// Lives through a world, which has to be new. Panics if something does not hold.
///
/// # Panics
///
/// If something that must hold does not.
pub fn live(plan: &Plan, sim: &Sim, model: Box<dyn Model>) {
    let mut world = World::new(plan, sim, model);
    for step in 0..world.steps {
        if !plan.skip.contains(&step) {
            sim.note("step", [step.into(), 0, 0]);
            world.step(Numbers::of(plan.seed, STEPS + u64::from(step)));
        }
    }
    world.settle();
    world.end();
}

/// The world of a plan, before anything has happened.
pub fn dawn(plan: &Plan) -> Sim {
    Sim::new(Numbers::of(plan.seed, 0).next(), Faults::NONE)
}

pub(crate) struct World {
    pub(crate) sim: Sim,
    pub(crate) stage: Rc<RefCell<Stage>>,
    pub(crate) region: InflightRegion,
    pub(crate) actor: Option<Actor>,
    /// The actor runs, so the hook is meant.
    inside: Rc<Cell<bool>>,
    pub(crate) settings: Settings,
    steps: u32,
    slices: u32,
    /// What the device said when it asked for a reset.
    pub(crate) broken: Option<String>,
    /// Where the queues stood when they were activated; a live record knows better.
    pub(crate) positions: Vec<QueueState>,
    /// The driver waits for a reset: a successor has nothing to go on with.
    pub(crate) resetting: bool,
    /// The driver has broken a rule since the last reset.
    pub(crate) criminal: bool,
}

impl World {
    fn new(plan: &Plan, sim: &Sim, mut model: Box<dyn Model>) -> Self {
        let mut random = Numbers::of(plan.seed, SETTINGS);
        let profile = model.profile();
        let settings = Settings::choose(&mut random, &profile, model.droppable());
        let mut settings = settings.without(&plan.without);
        settings.sizes.truncate(model.queues(settings.features));
        let region = record(model.as_ref());
        let mut machine = Machine::new(sim, settings.clone(), MEMORY, &mut random);
        model.begin(&mut machine);
        let racing = Numbers::of(plan.seed, RACES);
        let stage = Rc::new(RefCell::new(Stage { machine, model, racing }));
        sim.set_faults(settings.faults);
        let steps = plan.steps.unwrap_or(settings.steps).min(settings.steps);
        let mut world = Self {
            sim: sim.clone(),
            stage,
            region,
            actor: None,
            inside: Rc::default(),
            settings,
            steps,
            slices: 0,
            broken: None,
            positions: Vec::new(),
            resetting: false,
            criminal: false,
        };
        world.hook();
        world.start();
        world.activate(&[]);
        world
    }

    /// Lets the driver act, and the actor die, between two stores of the device.
    fn hook(&self) {
        let (sim, stage) = (self.sim.clone(), Rc::clone(&self.stage));
        let inside = Rc::clone(&self.inside);
        let hook = move || {
            // Not while the driver itself writes, and not on the way out of a panic.
            if !inside.get() || std::thread::panicking() {
                return;
            }
            inside.set(false);
            stage.borrow_mut().race();
            inside.set(true);
            sim.point();
        };
        at_points(Some(Rc::new(hook)));
    }

    /// A back end in a new process.
    pub(crate) fn start(&mut self) {
        let mut stage = self.stage.borrow_mut();
        let Stage { machine, model, .. } = &mut *stage;
        let region = self.region.clone();
        let actor =
            Actor::start(&self.sim, &machine.memory, |context| model.start(region, context));
        self.actor = Some(actor);
    }

    pub(crate) fn actor(&mut self) -> &mut Actor {
        self.actor.as_mut().expect("there is always an actor, dead or alive")
    }

    /// The actor runs for a while. One that dies has a successor when this returns.
    pub(crate) fn slice(&mut self) -> Slice {
        self.slices += 1;
        assert!(self.slices < MOST_SLICES, "the world does not come to rest");
        let actor = self.actor.as_mut().expect("there is an actor");
        self.inside.set(true);
        let slice = self.sim.run(&mut actor.executor);
        self.inside.set(false);
        if slice == Slice::Crashed {
            self.replace(Succession::Crash);
        } else {
            self.listen();
        }
        slice
    }

    /// What the device says.
    fn listen(&mut self) {
        while let Ok(event) = self.actor().events.try_recv() {
            if let BackendEvent::NeedsReset { queue, reason } = &event {
                self.sim.note("needs reset", [u64::from(*queue), 0, 0]);
                assert!(self.criminal, "queue {queue} asks for a reset: {reason}");
                self.broken = Some(reason.clone());
            }
            let mut stage = self.stage.borrow_mut();
            let Stage { machine, model, .. } = &mut *stage;
            model.event(machine, &event);
        }
    }

    /// One step: somebody does something, then the actor runs for a while.
    fn step(&mut self, mut random: Numbers) {
        match random.below(100) {
            0..=64 => self.act(&mut random),
            65..=79 => self.stage.borrow_mut().collect_all(),
            80..=84 => {
                let queue = random.below(self.settings.sizes.len() as u64) as usize;
                self.stage.borrow_mut().machine.kick(queue);
            }
            _ => self.interfere(&mut random),
        }
        for _ in 0..random.below(5) {
            if self.slice() == Slice::Waiting && !random.once_in(3) {
                self.sim.advance_within(SHORT);
            }
            if random.once_in(3) {
                self.stage.borrow_mut().collect_all();
            }
        }
        if self.broken.is_some() {
            self.reset();
        }
    }

    fn act(&mut self, random: &mut Numbers) {
        let mut stage = self.stage.borrow_mut();
        let Stage { machine, model, .. } = &mut *stage;
        for _ in 0..=random.below(6) {
            model.act(machine, random);
            if random.once_in(3) {
                machine.publish_all();
            }
        }
        if !random.once_in(4) {
            machine.publish_all();
        }
    }

    /// Faults are over, and so is everything that was asked for.
    fn settle(&mut self) {
        self.sim.note("settle", [0; 3]);
        self.sim.set_faults(Faults::NONE);
        self.sim.crash_after(None);
        let mut quiet = 0;
        loop {
            let before = self.sim.hash();
            let done = {
                let mut stage = self.stage.borrow_mut();
                let Stage { machine, model, .. } = &mut *stage;
                let done = model.wind_up(machine);
                machine.publish_all();
                stage.collect_all();
                done
            };
            if self.broken.is_some() {
                self.reset();
            }
            quiet = match self.slice() {
                // Somebody may have something to say to what has just happened.
                Slice::Waiting if self.sim.hash() != before => 0,
                Slice::Waiting if !self.sim.advance_within(SHORT) => quiet + 1,
                _ => 0,
            };
            if quiet < QUIET {
                continue;
            }
            let left = self.stage.borrow().model.left_behind();
            if left.is_some() && self.sim.advance() {
                // What takes long, when nobody has anything else to do.
                quiet = 0;
                continue;
            }
            match left {
                None if done => return,
                Some(left) => panic!("left behind: {left}"),
                None if quiet > 4 * QUIET => panic!("it does not come to an end"),
                None => {}
            }
        }
    }

    /// The last checks, and the end of the actor.
    fn end(&mut self) {
        {
            let mut stage = self.stage.borrow_mut();
            let Stage { machine, model, .. } = &mut *stage;
            model.finish(machine);
        }
        self.actor().close();
        for _ in 0..1000 {
            if self.actor().has_ended() {
                return;
            }
            if self.slice() == Slice::Waiting {
                self.sim.advance();
            }
        }
        panic!("the back end does not end when its channel closes");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // The hook holds the stage.
        at_points(None);
        self.inside.set(false);
        if let Some(actor) = self.actor.take() {
            self.sim.kill(actor.executor);
        }
    }
}
