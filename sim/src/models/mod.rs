//! The devices that can be simulated.

mod blk;
mod crimes;

use executor::sim::Sim;

use crate::model::Model;

/// A device that can be simulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// A disk.
    Blk,
}

impl Device {
    /// All of them.
    pub const ALL: [Self; 1] = [Self::Blk];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Blk => "blk",
        }
    }

    /// The one of this name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|device| device.name() == name)
    }

    /// Driver, host and oracle for a world.
    pub fn model(self, sim: &Sim, seed: u64) -> Box<dyn Model> {
        match self {
            Self::Blk => Box::new(blk::Blk::new(sim, seed)),
        }
    }
}
