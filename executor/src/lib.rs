//! The runtime of the project: one single-threaded executor per thread over one `io_uring` ring,
//! or over epoll where the host forbids `io_uring`.
//!
//! ```text
//!   tasks ──poll──▶ operations ──▶ slots (generation, waker)        other threads
//!     ▲                               │ token                          │ lock-free lists
//!     │ ready queue                   ▼                                ▼ + MSG_RING / eventfd
//!     └────── completions ◀──── Driver: uring | epoll | sim   ◀──── doorbell
//! ```
//!
//! One turn of the loop polls what is ready, then makes at most one system call: everything that
//! the turn queued goes down in it, and everything that has completed comes up with it.
//!
//! Memory safety of operations rests on one rule: an operation owns (or guards) its buffers until
//! the kernel has reported its completion. A future that is dropped early leaves its buffers with
//! the executor, which cancels the operation and frees them when the completion arrives.
//!
//! ```
//! use executor::{Config, Executor, Fd};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut executor = Executor::new(&Config::default())?;
//! let (result, buffer) = executor.block_on(async {
//!     let file = Fd::new(std::fs::File::open("/proc/self/status")?)?;
//!     std::io::Result::Ok(file.read_at(vec![0; 64], 0).await)
//! })?;
//! assert_eq!(&buffer[..result?.min(5)], b"Name:");
//! # Ok(()) }
//! ```

mod address;
mod buffer;
mod combinators;
mod config;
mod core;
mod driver;
mod error;
mod executor;
mod fd;
mod idle;
mod ops;
mod processors;
mod remote;
mod task;
#[cfg(test)]
mod tests;
mod time;

/// Worlds that a seed decides, to run actors in.
pub mod sim {
    pub use crate::driver::sim::{Asked, AskedFor, ScriptId};
    pub use crate::driver::sim::{
        DiskId, EventId, Faults, Kept, Log, Note, Numbers, PerMille, Sim, Slice,
    };
}

pub use address::SocketAddress;
pub use buffer::{IoBuf, IoBufMut, IoVecs, IoVecsMut, Slice, Vectored, VectoredMut};
pub use combinators::{Either, Elapsed, YieldNow, join, join_all, select, timeout, yield_now};
pub use config::{
    Config, DirectIo, DriverChoice, DriverKind, KernelFeatures, KernelThread, Operations,
    Restrictions, Submission,
};
pub use core::Stats;
pub use error::Error;
pub use executor::{Executor, driver, flush, random, remote, stats, tell_time, visit};
pub use fd::Fd;
pub use idle::{IdlePoller, Lookout, idle_poller};
pub use libc::iovec;
pub use ops::op::Op;
pub use ops::set::{Full, OpSet};
pub use ops::stream::{Notifications, PollStream};
pub use processors::{MAX_PROCESSORS, allowed_processors, must_share_processor, pin_thread};
pub use remote::Remote;
pub use rustix::event::PollFlags;
pub use rustix::fs::FallocateFlags;
pub use rustix::net::{RecvFlags, SendFlags};
pub use task::{Task, group::TaskGroup, spawn};
pub use time::instant::Instant;
pub use time::sleep::{Sleep, now, sleep, sleep_until};
