//! Load for devices: a virtio driver over vhost-user, without a guest and without KVM, and what it is
//! held against.
//!
//! ```text
//!   virtio_blk  threads with some queues each ── rings in shared memory ──► any vhost-user back end
//!   virtio_net  the same for frames
//!   stream      TCP with the host's kernel, over the same and over plain calls
//!   virtio_fs   programs of a guest that share a queue
//!   native      the same requests straight to the kernel: what there is to get
//!   first_run   from exec to the first instruction of a guest, of any VMM
//!   cost        what the back end's processes spend: processor time, system calls, switches
//! ```
//!
//! Figures are taken while a run goes on, after a time to warm up. Runs are short and many: whoever
//! compares lets the contestants take turns and compares medians.

mod contents;
mod cost;
mod figures;
mod first_run;
pub mod flood;
pub mod frames;
pub mod native;
mod placement;
mod ring;
pub mod stream;
pub mod virtio_blk;
pub mod virtio_fs;
pub mod virtio_net;
mod workload;

pub use cost::{Cost, Processes, SystemCalls};
pub use figures::Figures;
pub use first_run::first_run;
pub use placement::{Placed, Placement};
pub use workload::{Access, Check, Order, Polling, Workload};

/// Why a run gave no figures.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The back end does not do what the protocol says.
    #[error("the back end: {0}")]
    FrontEnd(#[from] devices::virtio::vhost_user::front_end::FrontEndError),
    /// It cannot serve such a workload.
    #[error("the back end {0}")]
    Unfit(String),
    /// A request failed.
    #[error("a request for block {block} ended with status {status}")]
    Request {
        /// Which block, in units of the workload's size.
        block: u64,
        /// The device's word for it (virtio 1.3 section 5.2.6).
        status: u8,
    },
    /// A request of a file system failed.
    #[error("request {opcode} ended with error {error}: {}", std::io::Error::from_raw_os_error(*error))]
    Fuse {
        /// What it was (`FUSE_LOOKUP` and so on).
        opcode: u32,
        /// As in `errno`.
        error: i32,
    },
    /// An answer is not what is in the file system.
    #[error("an answer is wrong: {0}")]
    Wrong(String),
    /// A VMM ran no guest.
    #[error("it did not get to its first KVM_RUN: {0}")]
    NoRun(String),
    /// Nothing came back for a long time.
    #[error("no request has come back for {} s", ring::PATIENCE.as_secs())]
    Stuck,
    /// Something of this machine does not work.
    #[error("{doing}: {source}")]
    System {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
}

impl LoadError {
    fn system(doing: &'static str) -> impl Fn(std::io::Error) -> Self {
        move |source| Self::System { doing, source }
    }
}
