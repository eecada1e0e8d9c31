//! How an executor is set up.

use std::time::Duration;

/// Which driver an executor shall use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DriverChoice {
    /// `io_uring`, and epoll where the host forbids or lacks it (with one warning per process).
    #[default]
    Auto,
    /// `io_uring` or an error.
    Uring,
    /// epoll and plain system calls.
    Epoll,
}

/// Which driver an executor uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriverKind {
    /// One ring per executor.
    Uring,
    /// epoll and plain system calls.
    Epoll,
    /// A simulated world; see [`sim`](crate::sim).
    Simulated,
}

bitflags::bitflags! {
    /// Kinds of operations that a restricted ring lets pass.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Operations: u32 {
        /// `read` and `readv`, with and without an offset; on sockets that is `recv`.
        const READ = 1 << 0;
        /// `write` and `writev`, with and without an offset; on sockets that is `send`. Also
        /// [`Fd::signal`](crate::Fd::signal).
        const WRITE = 1 << 1;
        /// `fsync` and `fdatasync`.
        const SYNC = 1 << 2;
        /// `fallocate`.
        const ALLOCATE = 1 << 3;
        /// `accept`.
        const ACCEPT = 1 << 4;
        /// `connect`.
        const CONNECT = 1 << 5;
        /// `send`.
        const SEND = 1 << 6;
        /// `recv`.
        const RECEIVE = 1 << 7;
        /// Waking another executor's ring from this one. Without it an eventfd is written.
        const MESSAGE_RING = 1 << 8;
    }
}

/// What a ring may do after it is enabled. seccomp cannot see what a ring does, so a sandboxed
/// process needs this beside its system call policy.
///
/// What the executor itself lives on is always allowed: polling, cancelling, and registering
/// files. The epoll driver makes plain system calls, which seccomp does see; there this has no
/// effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restrictions {
    /// The operations that are allowed; every other one completes with `EACCES`.
    pub operations: Operations,
}

bitflags::bitflags! {
    /// Optional features of the kernel's `io_uring`, to do without on purpose: to find out whether
    /// one is to blame, or to run what an older kernel would run.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct KernelFeatures: u32 {
        /// `IORING_SETUP_SINGLE_ISSUER` and `IORING_SETUP_DEFER_TASKRUN` (Linux 6.1). With a
        /// [`KernelThread`] only the former goes.
        const DEFER_TASKRUN = 1 << 0;
        /// `IORING_SETUP_COOP_TASKRUN` (Linux 5.19).
        const COOP_TASKRUN = 1 << 1;
        /// Multishot poll (Linux 5.13).
        const MULTISHOT_POLL = 1 << 2;
        /// `IOSQE_CQE_SKIP_SUCCESS` (Linux 5.17).
        const SKIP_SUCCESS = 1 << 3;
        /// `IORING_OP_MSG_RING` (Linux 5.18).
        const MESSAGE_RING = 1 << 4;
        /// Registered files.
        const FIXED_FILES = 1 << 5;
        /// The ring's own descriptor registered with the thread (Linux 5.18).
        const REGISTERED_RING = 1 << 6;
    }
}

/// How what is queued gets to the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Submission {
    /// By a system call of the executor's thread, one a turn.
    #[default]
    BySystemCall,
    /// By a thread of the kernel that looks for it (`IORING_SETUP_SQPOLL`). Without `io_uring` there
    /// is no executor then: nobody else does what was asked for.
    ByKernelThread(KernelThread),
}

/// A thread of the kernel that takes operations from the queue as soon as they are there, and
/// performs them up to where they wait. The executor spares the system call for that; it still makes
/// one to sleep, and one to wake the thread.
///
/// As long as it looks, it takes a processor. What it does counts as processor time of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelThread {
    /// How long it looks without finding anything before it sleeps. Whole milliseconds, at least one.
    pub idle: Duration,
    /// The processor that it runs on; else any that the executor's thread may run on.
    pub processor: Option<u32>,
}

impl Default for KernelThread {
    fn default() -> Self {
        KernelThread {
            // Longer than fast storage takes, or a busy guest thinks, between two operations. A wake-up
            // costs some ten microseconds, so longer would only take a processor from somebody; the kernel
            // counts in ticks of up to 10 ms, and looks for a whole one at least.
            idle: Duration::from_millis(2),
            processor: None,
        }
    }
}

/// How the executor learns that a transfer of a file that bypasses the page cache is complete.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DirectIo {
    /// The device interrupts.
    #[default]
    Interrupts,
    /// Transfers of files made by [`Fd::polled`](crate::Fd::polled) are asked for again and again
    /// (`IORING_SETUP_IOPOLL`), in a ring of their own; the executor does not sleep while there are some.
    /// Without `io_uring` there is no executor then.
    Polled,
}

impl DirectIo {
    /// Transfers of more bytes than this are never polled for.
    ///
    /// One that the device does not take at once has to be divided, which cannot be polled for, and Linux 6.1 tries it
    /// again for ever. So this is less than what Linux assumes of devices that say nothing, 127 KiB; who makes
    /// an [`Fd::polled`](crate::Fd::polled) sees to it that its device takes so much, with each page of it somewhere else. A
    /// large transfer is the one for which an interrupt counts least.
    pub const MOST_POLLED: usize = 64 << 10;
}

/// Settings of an executor. `Config::default()` is right for most.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which driver.
    pub driver: DriverChoice,
    /// Entries of the submission queue; rounded up to a power of two. More operations than this
    /// may be in flight; a turn that queues more makes one more system call per this many.
    pub entries: u32,
    /// Slots of the table of registered files. An [`Fd`](crate::Fd) beyond that many works
    /// unregistered.
    pub fixed_files: u32,
    /// How operations get to the ring's other side.
    pub submission: Submission,
    /// Whether there are files whose transfers are polled for.
    pub direct_io: DirectIo,
    /// Lock the ring down to these operations.
    pub restrictions: Option<Restrictions>,
    /// How long to look for work before each sleep in the kernel. Zero: sleep at once, unless
    /// [something](crate::Lookout::patience) expects work.
    pub idle_spin: Duration,
    /// Kernel features not to use even where they exist.
    pub without: KernelFeatures,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            driver: DriverChoice::Auto,
            // Two full virtqueues of 128 requests in one turn.
            entries: 256,
            // Disks, taps, and the eventfds of some dozens of queues.
            fixed_files: 128,
            submission: Submission::BySystemCall,
            direct_io: DirectIo::Interrupts,
            restrictions: None,
            idle_spin: Duration::ZERO,
            without: KernelFeatures::empty(),
        }
    }
}

impl Config {
    /// Whether epoll cannot stand in for what is asked for.
    pub(crate) fn needs_ring(&self) -> bool {
        self.submission != Submission::BySystemCall || self.direct_io == DirectIo::Polled
    }
}
