//! Why an executor could not be made.

use std::io;

/// What failed while an executor was set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `io_uring_setup` failed and nothing else was allowed.
    #[error(
        "cannot set up an io_uring of {entries} entries (a container's seccomp policy or \
         /proc/sys/kernel/io_uring_disabled may forbid it)"
    )]
    RingSetup {
        /// Size of the submission queue that was asked for.
        entries: u32,
        /// What the kernel answered.
        #[source]
        source: io::Error,
    },
    /// The ring works, but not with a thread of the kernel that looks for what is queued.
    #[error("cannot have a thread of the kernel look for what is queued in an io_uring{}", on(*processor))]
    KernelThread {
        /// The processor that it was to run on.
        processor: Option<u32>,
        /// What the kernel answered.
        #[source]
        source: io::Error,
    },
    /// The ring works, but not one whose transfers are polled for.
    #[error("cannot set up an io_uring whose transfers are polled for")]
    PolledRing(#[source] io::Error),
    /// Only an `io_uring` does what the configuration asks for.
    #[error("epoll has neither threads of the kernel nor transfers that are polled for")]
    NoRing,
    /// The kernel has `io_uring`, but without something this crate cannot work without.
    #[error("the io_uring of this kernel is too old: it has no {feature} (Linux 5.11 has)")]
    RingTooOld {
        /// The missing feature by its kernel name.
        feature: &'static str,
    },
    /// The restrictions of the ring could not be put in force.
    #[error("cannot restrict the operations of the io_uring")]
    RingRestrictions(#[source] io::Error),
    /// `epoll_create1` failed.
    #[error("cannot create an epoll instance")]
    Epoll(#[source] io::Error),
    /// The eventfd through which other threads wake the executor could not be made.
    #[error("cannot create the eventfd that wakes the executor")]
    Doorbell(#[source] io::Error),
}

fn on(processor: Option<u32>) -> String {
    processor.map_or_else(String::new, |number| {
        format!(" on processor {number} (is there one, and may this process use it?)")
    })
}
