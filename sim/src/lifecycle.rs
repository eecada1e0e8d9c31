//! What the transport does to a back end, and what becomes of the one that dies.

use std::time::Duration;

use devices::virtio::backend::{BackendRequest, QueueState};
use devices::virtio::queue::InflightRegion;
use executor::sim::{Faults, Numbers, Slice};
use ipc::{Message, Reply};

use crate::model::{Crime, Model, Succession};
use crate::settings::Kind;
use crate::stage::Stage;
use crate::world::{SHORT, World};

/// Slices in which a back end has to answer. What it waits for is at most a slow disk.
const PATIENCE: u32 = 20_000;

/// Slices after which the host goes on with what it does by itself.
const MEANWHILE: u32 = 20;

impl World {
    /// Somebody else than driver and device does something, if this world has such things.
    pub(crate) fn interfere(&mut self, random: &mut Numbers) {
        let choice = random.below(12);
        match choice {
            0 | 1 if self.settings.has(Kind::Crashes) => {
                self.sim.crash_after(Some(random.below(300) as u32));
            }
            2 if self.settings.has(Kind::Crashes) => self.replace(Succession::Crash),
            3 if self.settings.has(Kind::Crashes) => self.cut_power(random),
            4 if self.settings.has(Kind::Lifecycle) => self.reset(),
            5 | 6 if self.settings.has(Kind::Lifecycle) => self.pause(random),
            7 if self.settings.has(Kind::Lifecycle) => self.detach(random),
            8 if self.settings.has(Kind::Lifecycle) => {
                let request = self.stage.borrow_mut().model.control(random);
                if let Some(request) = request {
                    self.sim.note("control", [0; 3]);
                    self.actor().control(request);
                }
            }
            9..=11 if self.settings.has(Kind::Hostility) => self.commit_crime(random),
            _ => {}
        }
    }

    /// Asks the back end and waits. None if it died meanwhile; then it has a successor.
    fn ask<R: Message>(&mut self, make: impl FnOnce(Reply<R>) -> BackendRequest) -> Option<R> {
        let mut answer = self.actor().ask(make);
        for round in 0..PATIENCE {
            if round % MEANWHILE == MEANWHILE - 1 {
                let mut stage = self.stage.borrow_mut();
                let Stage { machine, model, .. } = &mut *stage;
                model.meanwhile(machine);
            }
            let within = if round < PATIENCE / 2 { SHORT } else { Duration::MAX };
            match self.slice() {
                Slice::Crashed => return None,
                Slice::Waiting => _ = self.sim.advance_within(within),
                Slice::Busy => {}
            }
            match answer.try_take() {
                Some(Ok(answer)) => return Some(answer),
                Some(Err(error)) => panic!("the back end refuses a request: {error}"),
                None => {}
            }
        }
        panic!("the back end does not answer");
    }

    /// Has the queues served, from where they stand if that is given.
    pub(crate) fn activate(&mut self, states: &[QueueState]) {
        self.positions = states.to_vec();
        let queues = self.stage.borrow().machine.setups(states);
        let features = self.settings.features;
        let answer = self.ask(|reply| BackendRequest::Activate { features, queues, reply });
        self.sim.note("activated", [states.len() as u64, 0, 0]);
        match answer {
            // A crash has activated the successor.
            None | Some(Ok(())) => {}
            Some(Err(reason)) if self.criminal => self.broken = Some(reason),
            Some(Err(reason)) => panic!("the back end refuses to start: {reason}"),
        }
    }

    /// Another process takes over.
    pub(crate) fn replace(&mut self, how: Succession) {
        self.bury();
        self.start();
        {
            let mut stage = self.stage.borrow_mut();
            let Stage { machine, model, .. } = &mut *stage;
            model.settle(machine, &self.region);
            model.succeeded(machine, how);
        }
        if how == Succession::Crash && !self.resetting {
            let positions = self.positions.clone();
            self.activate(&positions);
        }
    }

    fn bury(&mut self) {
        if let Some(actor) = self.actor.take() {
            self.sim.kill(actor.executor);
        }
    }

    /// The driver resets the device and starts it again.
    pub(crate) fn reset(&mut self) {
        self.resetting = true;
        if self.ask(|reply| BackendRequest::Reset { reply }).is_none() {
            // It died, and nothing is to be taken over any more.
            self.region.clear();
        }
        self.resetting = false;
        self.sim.note("reset", [0; 3]);
        self.begin_anew();
    }

    /// After a reset.
    fn begin_anew(&mut self) {
        {
            let mut stage = self.stage.borrow_mut();
            let Stage { machine, model, .. } = &mut *stage;
            machine.new_rings();
            model.reset(machine);
        }
        self.broken = None;
        self.criminal = false;
        self.activate(&[]);
    }

    /// A pause under load, and one of the ways on from there.
    fn pause(&mut self, random: &mut Numbers) {
        let Some(states) = self.ask(|reply| BackendRequest::Pause { reply }) else { return };
        self.sim.note("paused", [states.len() as u64, 0, 0]);
        self.stage.borrow_mut().machine.publish_all();
        match random.below(4) {
            0 => self.reset(),
            1 => {
                // The record says the same as the positions; either is enough.
                let survives = self.stage.borrow().model.survives_without_record();
                if random.once_in(2) && survives {
                    self.region.clear();
                }
                self.replace(Succession::Handover);
                self.sim.note("handed over", [0; 3]);
                self.activate(&states);
            }
            _ => {
                if self.ask(|reply| BackendRequest::Resume { reply }).is_some() {
                    self.sim.note("resumed", [0; 3]);
                }
            }
        }
    }

    /// The queues are let go of and taken up again, perhaps by another back end: one with another memory.
    fn detach(&mut self, random: &mut Numbers) {
        // A front end that gets no answer starts the device anew; that is a reset.
        self.sim.crash_after(None);
        let Some(states) = self.ask(|reply| BackendRequest::Detach { reply }) else { return };
        self.sim.note("detached", [states.len() as u64, 0, 0]);
        if random.once_in(2) {
            self.replace(Succession::Handover);
        }
        self.activate(&states);
    }

    /// The host loses its power, and the machine starts anew.
    fn cut_power(&mut self, random: &mut Numbers) {
        self.bury();
        let cut = {
            let mut stage = self.stage.borrow_mut();
            let Stage { machine, model, .. } = &mut *stage;
            model.power_cut(machine, random)
        };
        if cut {
            self.sim.note("power cut", [0; 3]);
            self.region = record(self.stage.borrow().model.as_ref());
        }
        self.start();
        if cut {
            self.begin_anew();
            return;
        }
        {
            let mut stage = self.stage.borrow_mut();
            let Stage { machine, model, .. } = &mut *stage;
            model.settle(machine, &self.region);
            model.succeeded(machine, Succession::Crash);
        }
        let positions = self.positions.clone();
        self.activate(&positions);
    }

    /// The driver breaks the rules. Whatever follows ends with a reset.
    fn commit_crime(&mut self, random: &mut Numbers) {
        let crime = {
            let mut stage = self.stage.borrow_mut();
            let Stage { machine, model, .. } = &mut *stage;
            let crime = model.misbehave(machine, random);
            machine.publish_all();
            crime
        };
        let Some(crime) = crime else { return };
        self.sim.note("crime", [u64::from(crime == Crime::Unforgivable), 0, 0]);
        self.criminal = true;
        // Nothing that takes long, or the device need not have looked.
        self.sim.crash_after(None);
        self.sim.set_faults(Faults::NONE);
        for queue in 0..self.settings.sizes.len() {
            self.stage.borrow_mut().machine.kick(queue);
        }
        let mut quiet = 0;
        while quiet < 3 && self.broken.is_none() {
            quiet = match self.slice() {
                Slice::Waiting if !self.sim.advance_within(SHORT) => quiet + 1,
                _ => 0,
            };
        }
        let noticed = self.broken.is_some();
        assert!(noticed || crime == Crime::Petty, "a broken rule was not noticed");
        self.sim.set_faults(self.settings.faults);
        self.reset();
    }
}

/// A record of what is in flight, of which nothing is.
pub(crate) fn record(model: &dyn Model) -> InflightRegion {
    let (queues, size) = model.profile().inflight_size();
    InflightRegion::create(queues, size).expect("memory for a record")
}
