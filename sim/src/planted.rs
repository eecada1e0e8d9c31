//! Bugs that are planted to see whether they are found, and in how much time.

use std::time::{Duration, Instant};

use devices::simulation::{Bug, plant};

use crate::hunt::{Failure, Quest, hunt};
use crate::models::Device;

/// For how long to look for each.
const PATIENCE: Duration = Duration::from_mins(1);

/// What became of a bug.
#[derive(Debug)]
pub struct Verdict {
    /// The bug.
    pub bug: Bug,
    /// The device in which it was looked for.
    pub device: Device,
    /// Seeds that were tried.
    pub seeds: u64,
    /// How long that took.
    pub time: Duration,
    /// Where it showed, if it did.
    pub failure: Option<Failure>,
}

/// Plants a bug and looks for it.
pub fn look_for(bug: Bug, threads: usize) -> Verdict {
    let device = home(bug);
    let quest = Quest { first: 0, seeds: u64::MAX, time: Some(PATIENCE), enough: 1 };
    let start = Instant::now();
    let bag = hunt(device, quest, threads, || plant(Some(bug)));
    let failure = bag.failures.into_iter().next();
    Verdict { bug, device, seeds: bag.seeds, time: start.elapsed(), failure }
}

/// The device that has the bug, or one of several.
fn home(bug: Bug) -> Device {
    match bug {
        Bug::CreditOverflow => Device::Vsock,
        _ => Device::Blk,
    }
}
