//! `vmm bench`: load for our back ends and those of others, in turns.
//!
//! ```text
//!   for each depth, for each round:   native ── ours ── each peer      (A B C A B C ...)
//!                                        │       │         │
//!                                        │       └ a process of its own, load over vhost-user
//!                                        └ the same requests straight to the kernel
//!   for each depth: medians of the rounds, and ratios of medians
//! ```
//!
//! What devices are made of is measured as trials: the same small thing very often, in turns with other ways to do it.

mod blk;
mod boot;
mod contestant;
mod error;
mod executor;
mod exits;
mod fs;
mod ipc;
mod net;
pub(crate) mod report;
mod result;
mod streams;
mod trial;

pub use blk::{BlkBench, run_blk};
pub use boot::{Starter, StarterError, run_boot};
pub use contestant::{Contestant, ContestantError, DiskPeers};
pub use error::BenchError;
pub use executor::run_executor;
pub use exits::run_exits;
pub use fs::{FsBench, FsResult, FsResults, ProgramKind, run_fs};
pub use ipc::run_ipc;
pub use net::{NetBench, NetResults, run_net};
pub use report::html;
pub use result::{BlkResult, BlkResults, Measured};
pub use trial::TrialResults;
