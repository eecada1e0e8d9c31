//! The devices that can be simulated.

mod balloon;
mod blk;
mod console;
mod crimes;
mod fs;
mod net;
mod places;
mod pmem;
mod rng;
mod vsock;

use executor::sim::Sim;

use crate::model::Model;

/// A device that can be simulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// A disk.
    Blk,
    /// A network.
    Net,
    /// Sockets.
    Vsock,
    /// A console.
    Console,
    /// An entropy source.
    Rng,
    /// A balloon.
    Balloon,
    /// Persistent memory.
    Pmem,
    /// A shared directory.
    Fs,
}

impl Device {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Blk,
        Self::Net,
        Self::Vsock,
        Self::Console,
        Self::Rng,
        Self::Balloon,
        Self::Pmem,
        Self::Fs,
    ];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Blk => "blk",
            Self::Net => "net",
            Self::Vsock => "vsock",
            Self::Console => "console",
            Self::Rng => "rng",
            Self::Balloon => "balloon",
            Self::Pmem => "pmem",
            Self::Fs => "fs",
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
            Self::Net => Box::new(net::Net::new(seed)),
            Self::Vsock => Box::new(vsock::Vsock::new()),
            Self::Console => Box::new(console::Console::new(seed)),
            Self::Rng => Box::new(rng::Rng::new()),
            Self::Balloon => Box::new(balloon::Balloon::new(seed)),
            Self::Pmem => Box::new(pmem::Pmem::new(sim)),
            Self::Fs => Box::new(fs::Fs::new()),
        }
    }
}
