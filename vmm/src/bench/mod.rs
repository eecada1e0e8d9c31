//! `vmm bench`: load for our back ends and those of others, in turns.
//!
//! ```text
//!   for each depth, for each round:   native ── ours ── each peer      (A B C A B C ...)
//!                                        │       │         │
//!                                        │       └ a process of its own, load over vhost-user
//!                                        └ the same requests straight to the kernel
//!   for each depth: medians of the rounds, and ratios of medians
//! ```

mod blk;
mod contestant;
mod error;
mod fs;
mod net;
pub(crate) mod report;
mod result;
mod streams;

pub use blk::{BlkBench, run_blk};
pub use contestant::{Contestant, ContestantError};
pub use error::BenchError;
pub use fs::{FsBench, FsResult, FsResults, run_fs};
pub use net::{NetBench, NetResults, run_net};
pub use report::html;
pub use result::{BlkResult, BlkResults, Measured};
