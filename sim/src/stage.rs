//! Where driver and device meet: the machine and the model, which also act between two stores of the
//! device.

use executor::sim::Numbers;

use crate::machine::Machine;
use crate::model::Model;
use crate::settings::Kind;

/// The driver acts at one in so many points.
const RACES: u64 = 6;

pub(crate) struct Stage {
    pub(crate) machine: Machine,
    pub(crate) model: Box<dyn Model>,
    pub(crate) racing: Numbers,
}

impl Stage {
    /// The driver on another processor acts, or not.
    pub(crate) fn race(&mut self) {
        if !self.machine.settings.has(Kind::Races) || !self.racing.once_in(RACES) {
            return;
        }
        let queue = self.racing.below(self.machine.queues() as u64) as usize;
        let choice = self.racing.below(3);
        if choice != 0 {
            self.machine.publish(queue);
        }
        if choice != 1 {
            self.collect(queue);
        }
    }

    /// The driver takes what was given back.
    pub(crate) fn collect(&mut self, queue: usize) {
        while let Some(used) = self.machine.take(queue) {
            if self.machine.outlaw != Some((queue, used.head)) {
                self.model.used(&mut self.machine, queue, used);
            }
        }
    }

    pub(crate) fn collect_all(&mut self) {
        for queue in 0..self.machine.queues() {
            self.collect(queue);
        }
    }
}
