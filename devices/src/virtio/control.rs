//! What others than its driver ask of a device while it runs.
//!
//! A change that was made is also remembered in the device's parts ([`Parts::remember`]), so that a
//! successor of the back end starts with it.
//!
//! [`Parts::remember`]: super::parts::Parts::remember

use ipc::Reply;
use serde::{Deserialize, Serialize};

use super::balloon::BalloonStatistics;
use super::console::WindowSize;
use super::net::{LinkState, NetStatistics};
use crate::rate_limit::RateLimits;

/// A request to a back end. It is answered when it holds.
#[derive(Debug, Serialize, Deserialize)]
pub enum ControlRequest {
    /// Be different from now on.
    Change {
        /// How.
        change: Change,
        /// An error is a sentence for whoever asked.
        reply: Reply<Result<(), String>>,
    },
    /// What the device has done since its back end started.
    Statistics {
        /// The answer.
        reply: Reply<Statistics>,
    },
}

/// What can be changed. A device refuses what makes no sense for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// Plug a network's cable in or out.
    Link(LinkState),
    /// Have another size in bytes. The file behind it is at least as large already.
    Size {
        /// In bytes.
        bytes: u64,
    },
    /// A console's window has another size.
    Window(WindowSize),
    /// Go by other limits.
    RateLimits {
        /// Limits of what.
        traffic: LimitedTraffic,
        /// The limits.
        limits: RateLimits,
    },
    /// Have the guest give up so much memory.
    Balloon {
        /// How much in all; whole pages of 4 KiB.
        bytes: u64,
    },
}

/// What limits are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LimitedTraffic {
    /// All that the device does, one limit for all of it.
    Both,
    /// What reaches the guest: received frames.
    Receive,
    /// What leaves the guest: transmitted frames.
    Transmit,
}

/// What the driver has to be told of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    Unseen,
    /// That the configuration space is another.
    Config,
}

/// What a device has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Statistics {
    /// It counts nothing of its own.
    #[default]
    None,
    /// A network's.
    Net(NetStatistics),
    /// A balloon's.
    Balloon(BalloonStatistics),
}
