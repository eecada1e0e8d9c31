//! The balloon back end (virtio 1.3 section 5.5): an actor that gives memory which the guest does
//! not use back to the host.
//!
//! ```text
//!   inflate:    page frame numbers ─► sort ─► ranges ─► holes in the file behind guest memory
//!   deflate:    nothing: a page comes back when it is touched
//!   reporting:  ranges that are free ─► holes
//!   statistics: a buffer that is held until somebody asks
//!   Change::Balloon ─► num_pages ─► configuration interrupt
//! ```
//!
//! Guest memory is one shared file, so a hole in it frees the pages for all processes that map it,
//! in one system call for each range. What the driver names is clipped to guest memory; the worst
//! it can do is to lose its own pages.
//!
//! # After a crash
//!
//! Pages that were about to be freed are freed again: until their buffer is given back, the driver
//! does not touch them. What the driver wrote to the configuration space comes again from the
//! transport, before the queues do; the target is one of the parts.
//!
//! # Indices of queues
//!
//! The specification numbers the queues of all features. Linux before 6.11 leaves those out that it
//! did not negotiate, and so numbers the others differently. Both are understood: the queues that a
//! driver enabled are, in their order, those of the features that it took.

mod failure;
mod frames;
mod inquiry;
mod pages;
mod protocol;
mod state;
mod statistics;
mod wish;

use std::io;
use std::rc::Rc;
use std::time::Duration;

use ipc::{Reply, Sender};
use serde::{Deserialize, Serialize};
use zerocopy::IntoBytes;

pub use statistics::{BalloonStatistics, GuestMemoryStatistics};

use self::protocol::{Config, PAGE_BYTES, Role};
use self::state::Balloon;
use super::backend::{BackendContext, BackendEvent, ConfigWrites, DeviceProfile};
use super::control::{Change, Effect, Statistics};
use super::parts::Parts;
use super::queue::{InflightRegion, RING_FEATURES};
use super::worker::{self, ActiveQueue, Device, Work};

/// Linux sends 256 page frame numbers at a time, and reports 32 ranges.
const QUEUE_SIZE: u16 = 128;

/// What guest memory consists of on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PageSize {
    /// Pages of 4 KiB, some of them huge for the time being.
    Small,
    /// Pages of 2 MiB of the host's reserve: less cannot be freed. Linux reports in such units, but
    /// inflates page by page, which then frees nothing.
    Huge,
}

impl PageSize {
    fn bytes(self) -> u64 {
        match self {
            Self::Small => PAGE_BYTES,
            Self::Huge => 2 << 20,
        }
    }
}

/// Whether something is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Offer {
    /// It is not.
    #[default]
    No,
    /// It is, if the driver takes it.
    Yes,
}

impl Offer {
    fn of(self, features: u64) -> u64 {
        if self == Self::Yes { features } else { 0 }
    }
}

/// What is asked of a balloon; also what it is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BalloonParts {
    /// Bytes that the guest shall give up, whole pages of 4 KiB.
    pub target_bytes: u64,
    /// The guest says which pages it has free.
    pub reporting: Offer,
    /// The guest takes pages back when it runs out of memory.
    pub deflate_on_oom: Offer,
    /// How often the guest is asked about its memory without anybody asking.
    pub statistics_interval: Option<Duration>,
    /// What guest memory consists of.
    pub pages: PageSize,
}

impl BalloonParts {
    /// An empty balloon that offers nothing beyond what all do.
    pub fn new(pages: PageSize) -> Self {
        Self {
            target_bytes: 0,
            reporting: Offer::No,
            deflate_on_oom: Offer::No,
            statistics_interval: None,
            pages,
        }
    }

    fn features(&self) -> u64 {
        // A driver that fills free pages with a pattern has to say so, or must not report them.
        let reporting = protocol::FEATURE_PAGE_REPORTING | protocol::FEATURE_PAGE_POISON;
        protocol::FEATURE_STATS_VQ
            | self.reporting.of(reporting)
            | self.deflate_on_oom.of(protocol::FEATURE_DEFLATE_ON_OOM)
            | RING_FEATURES
    }
}

impl Parts for BalloonParts {
    fn profile(&self) -> DeviceProfile {
        DeviceProfile {
            device_type: protocol::DEVICE_TYPE,
            features: self.features(),
            queue_sizes: vec![QUEUE_SIZE; protocol::QUEUES],
            config: Config::new(page_count(self.target_bytes), 0, 0).as_bytes().to_vec(),
            config_writes: ConfigWrites::Forwarded,
        }
    }

    fn try_clone(&self) -> io::Result<Self> {
        Ok(self.clone())
    }

    fn remember(&mut self, change: &Change) {
        if let Change::Balloon { bytes } = change {
            self.target_bytes = *bytes;
        }
    }

    async fn run(self, inflight: Option<InflightRegion>, context: BackendContext) {
        let target = page_count(self.target_bytes);
        let device = BalloonDevice {
            balloon: Rc::new(Balloon::new(self.pages, self.statistics_interval, target)),
            memory_bytes: context.memory.size(),
            events: context.events.clone(),
        };
        worker::serve(device, inflight, context).await;
    }
}

/// As many pages as a driver can be asked for: 16 TiB in all.
fn page_count(bytes: u64) -> u32 {
    u32::try_from(bytes / PAGE_BYTES).unwrap_or(u32::MAX)
}

struct BalloonDevice {
    balloon: Rc<Balloon>,
    memory_bytes: u64,
    events: Sender<BackendEvent>,
}

impl Device for BalloonDevice {
    fn start(&mut self, features: u64, queues: Vec<ActiveQueue>) -> Result<Vec<Work>, String> {
        debug_assert_eq!(features & protocol::FEATURE_FREE_PAGE_HINT, 0, "never offered");
        if features & protocol::FEATURE_PAGE_POISON == 0 {
            self.balloon.poison.set(0);
        }
        let roles = protocol::roles(features);
        // A driver may do without the last ones, but not use more.
        if queues.len() > roles.len() {
            let (queues, roles) = (queues.len(), roles.len());
            return Err(format!("{queues} queues are enabled, and there are {roles}"));
        }
        let serve = |(role, active): (Role, ActiveQueue)| -> Work {
            match role {
                Role::Statistics => Box::pin(inquiry::serve(self.balloon.clone(), active)),
                role => Box::pin(pages::serve(self.balloon.clone(), role, active)),
            }
        };
        Ok(roles.into_iter().zip(queues).map(serve).collect())
    }

    fn config(&self) -> Vec<u8> {
        self.balloon.config().as_bytes().to_vec()
    }

    fn write_config(&mut self, offset: u32, data: &[u8]) {
        let written = self.balloon.config().written(offset, data);
        self.balloon.actual.set(u32::from_le_bytes(written.actual));
        self.balloon.poison.set(u32::from_le_bytes(written.poison_val));
    }

    fn change(&mut self, change: &Change) -> Result<Effect, String> {
        let Change::Balloon { bytes } = *change else {
            return Err("a balloon has nothing but its size to change".into());
        };
        if bytes > self.memory_bytes {
            return Err(format!("the guest has {} bytes of memory", self.memory_bytes));
        }
        if !bytes.is_multiple_of(PAGE_BYTES) {
            return Err(format!("a balloon grows and shrinks by {PAGE_BYTES} bytes"));
        }
        let had = self.balloon.target.replace(page_count(bytes));
        Ok(if had == self.balloon.target.get() { Effect::Unseen } else { Effect::Config })
    }

    fn report(&mut self, reply: Reply<Statistics>) {
        self.balloon.answer(reply);
    }

    fn reset(&mut self) {
        let before = self.balloon.config();
        self.balloon.actual.set(0);
        self.balloon.poison.set(0);
        if before != self.balloon.config() {
            // If the channel is full the transport shows the old one until the driver writes.
            let _ = self.events.try_send(BackendEvent::ConfigChanged { config: self.config() });
        }
    }
}

#[cfg(test)]
mod tests;
