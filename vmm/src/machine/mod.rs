//! The machine: the one owner of a VM's life.
//!
//! ```text
//!            start            pause
//!  Created ────────► Running ───────► Paused
//!     │                 │  ▲             │
//!     │                 │  └── resume ───┤
//!     │  stop           │ stop           │ stop
//!     └───────────────► Stopped ◄────────┘
//! ```
//!
//! Who talks to whom once it runs; each box is an actor, each arrow a bounded channel:
//!
//! ```text
//!  vCPU threads ──MachineEvent──►┌──────────────┐◄──signals── the outside
//!  legacy devices ──────────────►│ control loop │
//!        │                       │ (this thread)│──Pause/Stop──► vCPU threads
//!        │ registers             └──────┬───────┘
//!        ▼                        events│pumps
//!  virtio-pci transport ◄───────────────┘
//!        └──BackendRequest──► back ends (a thread or a process each)
//! ```

mod assembly;
mod backends;
mod balloon;
mod consoles;
mod control;
mod death_record;
mod directory;
mod error;
mod host_sockets;
mod kernel;
mod lifecycle;
pub(crate) mod lives;
mod loader;
mod memory;
mod metrics_text;
mod networks;
mod operator;
mod pmem;
mod resize;
pub(crate) mod shares;
mod smbios;
mod stand_alone;
mod supervisor;
mod tracing;
mod user_net;
mod vcpu;
mod workplace;

pub use error::Error;
pub use kernel::BootFailure;
pub use loader::LoadError;
pub use memory::RamError;
pub use stand_alone::{Grouping, Lifetime, ServedDevice, Service, serve};
pub use user_net::UserNetError;

use serde::{Deserialize, Serialize};

use crate::config::MachineConfig;
use crate::outcome::Outcome;

/// What a vCPU says of its own accord.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Event {
    /// It cannot go on.
    Crash {
        /// Why, for the log.
        reason: String,
    },
}

/// Builds the machine that `config` describes and runs it to its end. Call it with one thread.
pub fn run(config: &MachineConfig) -> Result<Outcome, Error> {
    control::run(config)
}
