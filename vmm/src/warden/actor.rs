//! The life of a sandboxed actor process.
//!
//! ```text
//!   clone ─► keep link and log ─► death note ─► lock down ─► ring ─► open the link ─► seccomp
//!                                                                                       │
//!   exit ◄── the actor ◄── Start: the first message ◄───────────────────────────────────┘
//! ```
//!
//! Nothing that another process sent is looked at before the filter is in force.

use std::os::fd::{AsFd, BorrowedFd};

use devices::virtio::parts::{DeviceParts, VirtioStart};
use devices::virtio::vhost_user::VhostUserStart;
use devices::virtio::vsock;
use executor::{Config, Executor, Operations, Restrictions};
use ipc::link::{LinkConfig, LinkEnd, Looking, Opened};
use ipc::{Fd, Reply};
use seccomp::Program;
use serde::{Deserialize, Serialize};

use super::log_pipe;
use super::probe::{self, ProbeStart};
use crate::error::Report;
use crate::sandbox::{self, DeathNoteMemory, Files, Limits, Privileges};
use crate::serve_9p::ClientsStart;

/// The exit status of an actor that could not be set up.
const FAILED: i32 = 1;

/// What an actor process can be. In the order of [`ActorKind::ALL`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ActorKind {
    /// Serves a disk.
    Blk,
    /// Serves a network.
    Net,
    /// Serves sockets.
    Vsock,
    /// Serves a console.
    Console,
    /// Serves an entropy source.
    Rng,
    /// Serves a memory balloon.
    Balloon,
    /// Serves a shared directory.
    Fs,
    /// Serves shared directories over 9P.
    P9,
    /// Serves persistent memory.
    Pmem,
    /// Tries what the sandbox forbids; for tests.
    Probe,
}

/// Whether the actor has started; a refusal is a sentence for the log.
pub type Started = Result<(), String>;

/// The first message to an actor: what it works on. Must be of the kind that was spawned.
#[derive(Debug, Serialize, Deserialize)]
pub enum Start {
    /// For a device, which must be of the same kind as the actor.
    Virtio(Box<VirtioStart>),
    /// The same, for a front end of another program.
    VhostUser(Box<VhostUserStart>),
    /// For [`ActorKind::P9`] instead of a device: clients on sockets.
    Clients(Box<ClientsStart>),
    /// For [`ActorKind::Probe`].
    Probe(ProbeStart, Reply<Started>),
}

impl ActorKind {
    /// All kinds.
    pub const ALL: &[Self] = &[
        Self::Blk,
        Self::Net,
        Self::Vsock,
        Self::Console,
        Self::Rng,
        Self::Balloon,
        Self::Fs,
        Self::P9,
        Self::Pmem,
        Self::Probe,
    ];

    /// What serves such a device. None if another program does.
    pub fn of(device: &DeviceParts) -> Option<Self> {
        match device {
            DeviceParts::Blk(_) => Some(Self::Blk),
            DeviceParts::Net(_) => Some(Self::Net),
            DeviceParts::Vsock(_) => Some(Self::Vsock),
            DeviceParts::Console(_) => Some(Self::Console),
            DeviceParts::Rng(_) => Some(Self::Rng),
            DeviceParts::Balloon(_) => Some(Self::Balloon),
            DeviceParts::Fs(_) => Some(Self::Fs),
            DeviceParts::P9(_) => Some(Self::P9),
            DeviceParts::Pmem(_) => Some(Self::Pmem),
            DeviceParts::Remote(_) => None,
        }
    }

    /// The name, also of its policy's file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Blk => "blk",
            Self::Net => "net",
            Self::Vsock => "vsock",
            Self::Console => "console",
            Self::Rng => "rng",
            Self::Balloon => "balloon",
            Self::Fs => "fs",
            Self::P9 => "p9",
            Self::Pmem => "pmem",
            Self::Probe => "probe",
        }
    }

    /// The text of the policy that is part of the program.
    pub fn built_in_policy(self) -> &'static str {
        match self {
            Self::Blk => include_str!("policies/blk.policy"),
            Self::Net => include_str!("policies/net.policy"),
            Self::Vsock => include_str!("policies/vsock.policy"),
            Self::Console => include_str!("policies/console.policy"),
            Self::Rng => include_str!("policies/rng.policy"),
            Self::Balloon => include_str!("policies/balloon.policy"),
            Self::Fs => include_str!("policies/fs.policy"),
            Self::P9 => include_str!("policies/p9.policy"),
            Self::Pmem => include_str!("policies/pmem.policy"),
            Self::Probe => include_str!("policies/probe.policy"),
        }
    }

    /// The sizes of its link.
    pub fn link(self) -> LinkConfig {
        LinkConfig::default()
    }

    fn limits(self) -> Limits {
        match self {
            // 16 queues hold about 40 descriptors; a busy disk needs a few MiB, bounce buffers included.
            Self::Blk => Limits { descriptors: 128, private_bytes: 64 << 20 },
            // 16 pairs have 16 taps and 33 queues with two descriptors each; all of them twice where a front
            // end is served, beside its memory.
            Self::Net => Limits { descriptors: 256, private_bytes: 64 << 20 },
            // A socket for each connection, and what all of them may have waiting for the host.
            Self::Vsock => Limits {
                descriptors: vsock::MAX_CONNECTIONS as u64 + 128,
                private_bytes: vsock::BUFFERED_BYTES as u64 + (128 << 20),
            },
            // 16 ports have 16 ends and 34 queues with two descriptors each; twice, as above.
            Self::Console => Limits { descriptors: 256, private_bytes: 32 << 20 },
            Self::Rng | Self::Balloon | Self::Pmem | Self::Probe => {
                Limits { descriptors: 64, private_bytes: 16 << 20 }
            }
            // Files that the guest has open, as many as the user may; a million files that it knows.
            Self::Fs => Limits { descriptors: 1 << 20, private_bytes: 512 << 20 },
            // The same for all clients together, and what each may have under way: 6 MiB.
            Self::P9 => Limits { descriptors: 1 << 20, private_bytes: 1 << 30 },
        }
    }

    fn files(self) -> Files {
        match self {
            Self::Fs | Self::P9 => Files::Below,
            _ => Files::Given,
        }
    }

    fn ring(self) -> Config {
        let transfers = Operations::READ | Operations::WRITE;
        let defaults = Config::default();
        let (entries, fixed_files, operations) = match self {
            // Two full queues in one turn, as in a thread.
            Self::Blk | Self::Fs => (
                defaults.entries,
                defaults.fixed_files,
                transfers | Operations::SYNC | Operations::ALLOCATE,
            ),
            Self::P9 => (
                defaults.entries,
                defaults.fixed_files,
                transfers | Operations::SYNC | Operations::ACCEPT,
            ),
            // The reads that wait in each queue, beside what is sent. Waiting for many sockets.
            Self::Net | Self::Vsock => (defaults.entries, defaults.fixed_files, transfers),
            // A read and a write for each port, kicks and interrupts.
            Self::Console => (128, 128, transfers),
            Self::Pmem => (16, 16, transfers | Operations::SYNC),
            // Kicks and interrupts of few queues.
            Self::Rng | Self::Balloon | Self::Probe => (16, 16, transfers),
        };
        let restrictions = Some(Restrictions { operations });
        Config { entries, fixed_files, restrictions, ..defaults }
    }
}

/// What a new process starts from.
pub(super) struct Birth<'w> {
    pub(super) kind: ActorKind,
    pub(super) privileges: Privileges,
    pub(super) end: LinkEnd<(), Start>,
    /// Where its log goes.
    pub(super) log: Fd,
    pub(super) note: DeathNoteMemory,
    pub(super) program: &'w Program,
    /// A pidfd of the warden.
    pub(super) parent: BorrowedFd<'w>,
}

/// Never returns: this is the whole life of the process.
pub(super) fn run(birth: Birth<'_>) -> ! {
    let kind = birth.kind;
    let status = match settle(birth) {
        Ok(Settled { mut executor, opened, looking }) => {
            executor.block_on(act(kind, opened, looking))
        }
        Err(error) => {
            let reason = Report::of(&*error).one_line();
            log::error!("a {} process cannot start: {reason}", kind.name());
            FAILED
        }
    };
    // What this process inherited from the warden must not be dropped.
    // SAFETY: ends the process.
    unsafe { libc::_exit(status) }
}

struct Settled {
    executor: Executor,
    opened: Opened<(), Start>,
    looking: Looking,
}

fn settle(birth: Birth<'_>) -> Result<Settled, Box<dyn std::error::Error>> {
    let Birth { kind, privileges, end, log, note, program, parent } = birth;
    log_pipe::speak_into(log.as_fd())?;
    // Closed below, with all that is not kept.
    std::mem::forget(log);
    let mut kept = end.descriptors().to_vec();
    kept.push(parent);
    sandbox::keep_only(&kept)?;
    note.install_handlers()?;
    devices::memory::survive_bus_errors()?;
    die_of_panics();
    sandbox::lock_down(kind.limits(), kind.files(), privileges, parent)?;
    sandbox::keep_only(&end.descriptors())?;
    let executor = Executor::new(&kind.ring())?;
    let opened = end.open()?;
    // Asks the kernel what the filter may forbid.
    let looking = Looking::for_this_host();
    program.install()?;
    Ok(Settled { executor, opened, looking })
}

/// A panic must not unwind into the code of the warden that this process was forked from.
fn die_of_panics() {
    std::panic::set_hook(Box::new(|panic| {
        log::error!("{panic}");
        sandbox::die_noted(libc::SIGABRT);
    }));
}

/// The actor itself; returns the exit status.
async fn act(kind: ActorKind, opened: Opened<(), Start>, looking: Looking) -> i32 {
    let Opened { link, mut receiver, .. } = opened;
    executor::spawn(link.drive()).detach();
    // A vCPU that reads a configuration reads several fields, and waits for each.
    let _looking = (looking == Looking::WhileItPays).then(|| link.look_when_idle());
    executor::spawn(sandbox::shed_beginnings()).detach();
    // Without a first message the machine has changed its mind, or is gone.
    let Ok(start) = receiver.recv().await else {
        return 0;
    };
    match (kind, start) {
        (kind, Start::Virtio(start)) if Some(kind) == ActorKind::of(&start.device) => {
            if let Err(reason) = start.run().await {
                log::error!("a {} process cannot start: {reason}", kind.name());
                return FAILED;
            }
        }
        (kind, Start::VhostUser(start)) if Some(kind) == ActorKind::of(&start.device) => {
            if let Err(reason) = start.run().await {
                log::error!("{reason}");
                return FAILED;
            }
        }
        (ActorKind::P9, Start::Clients(start)) => {
            if let Err(error) = start.run().await {
                log::error!("clients of 9P cannot be served: {error}");
                return FAILED;
            }
        }
        (ActorKind::Probe, Start::Probe(start, started)) => {
            started.send(Ok(()));
            probe::run(start).await;
        }
        (kind, _) => {
            log::error!("a {} process was started as something else", kind.name());
            return FAILED;
        }
    }
    0
}
