//! What others than its driver ask of a device while it runs.
//!
//! A change that was made is also remembered in the device's parts ([`Parts::remember`]), so that a
//! successor of the back end starts with it.
//!
//! [`Parts::remember`]: super::parts::Parts::remember

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use ipc::Reply;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

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
    /// Share one more directory.
    Share(SharedDirectory),
    /// Share a directory no more: what the guest has open in it is stale.
    Unshare {
        /// Its name.
        name: String,
    },
}

/// A directory that the guest finds by a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedDirectory {
    /// The name, in the root of what is shared.
    pub name: String,
    /// What the guest may do.
    pub access: fileserver::Access,
    /// The directory; `O_PATH` will do.
    pub directory: SharedFd,
}

/// A descriptor that several have.
#[derive(Debug, Clone)]
pub struct SharedFd(Arc<ipc::Fd>);

impl SharedFd {
    /// Shares a descriptor.
    pub fn new(descriptor: OwnedFd) -> Self {
        Self(Arc::new(descriptor.into()))
    }

    /// One of its own.
    pub fn try_clone(&self) -> io::Result<OwnedFd> {
        self.0.try_clone().map(OwnedFd::from)
    }
}

impl PartialEq for SharedFd {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for SharedFd {}

impl Serialize for SharedFd {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for SharedFd {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        ipc::Fd::deserialize(deserializer).map(|descriptor| Self(Arc::new(descriptor)))
    }
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
