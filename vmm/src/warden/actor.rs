//! The life of a sandboxed actor process.
//!
//! ```text
//!   clone ─► keep links and logs ─► death note ─► lock down ─► a thread for each further actor and helper
//!                                                                  │
//!            in each thread:  Landlock ─► ring ─► open the link ─► seccomp
//!                                                                  │
//!   exit ◄── the actor ◄── Start: the first message ◄──────────────┘
//! ```
//!
//! Nothing that another process sent is looked at before the filter is in force.
//!
//! Threads that [help](devices::virtio::helpers) an actor are as it is, but for a link: what they do they get from it.
//!
//! Actors that share a process have what the kernel keeps for each thread: filter, ring, capabilities, Landlock.
//! They share memory, so one that is taken over may take over the others: all of them together can do what
//! each of them may, and nothing else.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use devices::virtio::helpers::{Helper, HelperDuty};
use devices::virtio::parts::{DeviceParts, ExecutorNeeds, VirtioStart};
use devices::virtio::vhost_user::VhostUserStart;
use devices::virtio::vsock;
use executor::{Config, Executor, Operations, Restrictions};
use ipc::link::{LinkConfig, LinkEnd, Looking, Opened};
use ipc::{Fd, Receiver, Reply, Sender};
use seccomp::Program;
use serde::{Deserialize, Serialize};

use super::log_pipe;
use super::policies::Programs;
use super::probe::{self, ProbeStart};
use crate::affinity;
use crate::error::Report;
use crate::sandbox::{self, DeathNoteMemory, Files, Limits, Privileges, SandboxError};
use crate::serve_9p::ClientsStart;

/// The exit status of an actor that could not be set up.
const FAILED: i32 = 1;

/// The most actors of one process: what the descriptors of a message can connect.
pub const MAX_ACTORS: usize = 16;

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

/// What an actor is, for whoever asks for one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// Its kind.
    pub kind: ActorKind,
    /// What it may do that its user may not.
    pub privileges: Privileges,
    /// Processors of the host that it runs on; empty for any. If there are enough, each of its threads has one.
    pub cpus: Vec<u16>,
    /// Threads that it runs on: its own, and those that help it.
    pub threads: u16,
    /// What its executor is like.
    pub executor: ExecutorNeeds,
}

impl Actor {
    /// One with nothing of its own.
    pub fn plain(kind: ActorKind) -> Self {
        let (privileges, executor) = (Privileges::None, ExecutorNeeds::default());
        Self { kind, privileges, cpus: Vec::new(), threads: 1, executor }
    }
}

/// An actor that is asked for, and the far ends of what will lead to it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Unborn {
    pub(super) actor: Actor,
    pub(super) end: LinkEnd<Served, Start>,
    /// Where its log goes.
    pub(super) log: Fd,
}

/// Whether the actor has started; a refusal is a sentence for the log.
pub type Started = Result<(), String>;

/// A front end has gone. An error is a sentence for the log.
pub type Served = Result<(), String>;

/// The first message to an actor: what it works on. Must be of the kind that was spawned.
#[derive(Debug, Serialize, Deserialize)]
pub enum Start {
    /// For a device, which must be of the same kind as the actor.
    Virtio(Box<VirtioStart>),
    /// The same, for a front end of another program. When that has gone, another one may follow.
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

    /// What a thread that helps takes beside that: a ring, a few descriptors for it and its file, a stack.
    const HELPER: Limits = Limits { descriptors: 16, private_bytes: 8 << 20 };

    fn files(self) -> Files {
        match self {
            Self::Fs | Self::P9 => Files::Below,
            _ => Files::Given,
        }
    }

    fn ring(self, needs: ExecutorNeeds) -> Config {
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
        needs.of_executor(Config { entries, fixed_files, restrictions, ..defaults })
    }
}

/// What a new process starts from.
pub(super) struct Birth<'w> {
    pub(super) actors: Vec<Unborn>,
    pub(super) note: DeathNoteMemory,
    pub(super) programs: &'w Programs,
    /// A pidfd of the warden.
    pub(super) parent: BorrowedFd<'w>,
}

/// An actor whose process is locked down.
struct Newborn {
    actor: Actor,
    end: LinkEnd<Served, Start>,
    /// Where its log goes, if not to standard error.
    log: Option<Fd>,
    program: Program,
    place: Place,
    helpers: Vec<Helper>,
    /// Actors of the process that have not ended.
    left: Arc<AtomicUsize>,
}

/// A thread that will help an actor.
struct Hand {
    actor: Actor,
    /// Which of its threads.
    thread: u16,
    log: Option<Fd>,
    program: Program,
    duty: HelperDuty,
}

/// Where an actor runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In a process of its own.
    Alone,
    /// On the first thread of a process.
    First,
    /// On another one.
    Further,
}

/// Never returns: this is the whole life of the process.
pub(super) fn run(birth: Birth<'_>) -> ! {
    let mut newborns = lock_down(birth).unwrap_or_else(|error| give_up("the", &*error));
    for newborn in &mut newborns {
        if let Err(error) = newborn.employ() {
            give_up(newborn.actor.kind.name(), &error);
        }
    }
    let mut newborns = newborns.into_iter();
    let Some(first) = newborns.next() else { end(0) };
    for newborn in newborns {
        let kind = newborn.actor.kind.name();
        // While there is no filter on this thread: none allows to make threads.
        let thread = std::thread::Builder::new().name(kind.into());
        if let Err(error) = thread.spawn(move || live(newborn)) {
            give_up(kind, &error);
        }
    }
    live(first)
}

impl Newborn {
    /// Makes the threads that will help it.
    fn employ(&mut self) -> io::Result<()> {
        let kind = self.actor.kind.name();
        for thread in 1..self.actor.threads {
            let (helper, duty) = Helper::pair();
            let log = self.log.as_ref().map(Fd::try_clone).transpose()?;
            let (actor, program) = (self.actor.clone(), self.program.clone());
            let hand = Hand { actor, thread, log, program, duty };
            let builder = std::thread::Builder::new().name(format!("{kind}-{thread}"));
            builder.spawn(move || help(hand))?;
            self.helpers.push(helper);
        }
        Ok(())
    }
}

/// What is the same for all threads of the process.
fn lock_down(birth: Birth<'_>) -> Result<Vec<Newborn>, Box<dyn std::error::Error>> {
    let Birth { actors, note, programs, parent } = birth;
    if let Some(first) = actors.first() {
        log_pipe::speak_into(first.log.as_fd())?;
    }
    let ends = actors.iter().flat_map(|unborn| unborn.end.descriptors());
    let logs = actors.iter().skip(1).map(|unborn| unborn.log.as_fd());
    let kept = ends.chain(logs).collect::<Vec<_>>();
    sandbox::keep_only(&[&kept[..], &[parent]].concat())?;
    note.install_handlers()?;
    devices::memory::survive_bus_errors()?;
    die_of_panics();
    let limits = actors.iter().flat_map(|unborn| {
        let helpers = (1..unborn.actor.threads).map(|_| ActorKind::HELPER);
        std::iter::once(unborn.actor.kind.limits()).chain(helpers)
    });
    let limits = limits.reduce(Limits::and).ok_or("it has no actor")?;
    let privileges = actors.iter().map(|unborn| unborn.actor.privileges).max();
    sandbox::lock_down(limits, privileges.unwrap_or(Privileges::None), parent)?;
    sandbox::keep_only(&kept)?;
    let left = Arc::new(AtomicUsize::new(actors.len()));
    if actors.len() > 1 || actors.iter().any(|unborn| unborn.actor.threads > 1) {
        sandbox::share_one_heap();
    }
    let alone = actors.len() == 1;
    let newborns = actors.into_iter().enumerate().map(|(index, unborn)| {
        let Unborn { actor, end, log } = unborn;
        let (place, log) = match index {
            0 => {
                // Closed above, with all that is not kept.
                std::mem::forget(log);
                (if alone { Place::Alone } else { Place::First }, None)
            }
            _ => (Place::Further, Some(log)),
        };
        let program = programs.of(actor.kind).clone();
        let (helpers, left) = (Vec::new(), Arc::clone(&left));
        Newborn { actor, end, log, program, place, helpers, left }
    });
    Ok(newborns.collect())
}

/// Never returns: this is the whole life of the actor, and that of the last one the process's.
fn live(newborn: Newborn) -> ! {
    let (kind, place, left) = (newborn.actor.kind, newborn.place, Arc::clone(&newborn.left));
    let status = match settle(newborn) {
        Ok(Settled { mut executor, opened, looking, helpers }) => {
            executor.block_on(act(kind, place, opened, looking, helpers))
        }
        Err(error) => give_up(kind.name(), &*error),
    };
    if status != 0 || left.fetch_sub(1, Ordering::AcqRel) == 1 {
        end(status);
    }
    rest()
}

/// Never returns: this is the whole life of a thread that helps.
fn help(hand: Hand) -> ! {
    let Hand { actor, thread, log, program, duty } = hand;
    let settled = settle_thread(&actor, thread, log).and_then(|executor| {
        program.install()?;
        Ok(executor)
    });
    match settled {
        Ok(mut executor) => duty.work(&mut executor),
        Err(error) => give_up(actor.kind.name(), &*error),
    }
    rest()
}

/// The end of a thread takes calls that no actor may make.
fn rest() -> ! {
    loop {
        std::thread::park();
    }
}

fn give_up(kind: &str, error: &dyn std::error::Error) -> ! {
    log::error!("a {kind} process cannot start: {}", Report::of(error).one_line());
    end(FAILED)
}

fn end(status: i32) -> ! {
    // What this process inherited from the warden must not be dropped.
    // SAFETY: ends the process.
    unsafe { libc::_exit(status) }
}

struct Settled {
    executor: Executor,
    opened: Opened<Served, Start>,
    looking: Looking,
    helpers: Vec<Helper>,
}

fn settle(newborn: Newborn) -> Result<Settled, Box<dyn std::error::Error>> {
    let Newborn { actor, end, log, program, place, helpers, .. } = newborn;
    if place != Place::Alone {
        // File servers have a working directory and a umask of their own.
        sandbox::leave_shared_places()?;
    }
    let executor = settle_thread(&actor, 0, log)?;
    let opened = end.open()?;
    // Asks the kernel what the filter may forbid.
    let looking = Looking::for_this_host();
    program.install()?;
    Ok(Settled { executor, opened, looking, helpers })
}

/// What all threads of an actor do before there is a filter.
fn settle_thread(
    actor: &Actor,
    thread: u16,
    log: Option<Fd>,
) -> Result<Executor, Box<dyn std::error::Error>> {
    if let Some(log) = log {
        log_pipe::speak_here(log.into());
    }
    let cpus = affinity::of_thread(&actor.cpus, thread, actor.threads);
    if !cpus.is_empty() {
        executor::pin_thread(cpus.iter().copied())
            .map_err(|error| SandboxError::new("run on its CPUs", error))?;
    }
    sandbox::confine_thread(actor.kind.files(), actor.privileges)?;
    Ok(Executor::new(&actor.kind.ring(actor.executor))?)
}

/// A panic must not unwind into the code of the warden that this process was forked from.
fn die_of_panics() {
    std::panic::set_hook(Box::new(|panic| {
        log::error!("{panic}");
        sandbox::die_noted(libc::SIGABRT);
    }));
}

/// The actor itself; returns the exit status.
async fn act(
    kind: ActorKind,
    place: Place,
    opened: Opened<Served, Start>,
    looking: Looking,
    helpers: Vec<Helper>,
) -> i32 {
    let Opened { link, mut receiver, sender } = opened;
    executor::spawn(link.drive()).detach();
    // A vCPU that reads a configuration reads several fields, and waits for each.
    let _looking = (looking == Looking::WhileItPays).then(|| link.look_when_idle());
    if place != Place::Further {
        executor::spawn(sandbox::shed_beginnings()).detach();
    }
    all_locked_down(&helpers).await;
    // Without a first message the machine has changed its mind, or is gone.
    let Ok(start) = receiver.recv().await else {
        return 0;
    };
    match (kind, start) {
        (kind, Start::Virtio(start)) if Some(kind) == ActorKind::of(&start.device) => {
            if let Err(reason) = start.run(helpers).await {
                log::error!("a {} process cannot start: {reason}", kind.name());
                return FAILED;
            }
        }
        (kind, Start::VhostUser(start)) => {
            return serve_front_ends((kind, helpers), *start, &mut receiver, &sender).await;
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
            return started_as_something_else(kind);
        }
    }
    0
}

/// Waits until all threads that help do what they are given, which is when their filters are in force.
async fn all_locked_down(helpers: &[Helper]) {
    let (waiting, mut all) = ipc::channel::<()>(1);
    for helper in helpers {
        let waiting = waiting.clone();
        // One that cannot be locked down ends the process.
        let _ = helper.give(move || async move { drop(waiting) });
    }
    drop(waiting);
    // Nobody sends: it can only be closed.
    let _ = all.recv().await;
}

/// Serves one front end after the other, as long as others may come.
async fn serve_front_ends(
    (kind, helpers): (ActorKind, Vec<Helper>),
    first: VhostUserStart,
    starts: &mut Receiver<Start>,
    served: &Sender<Served>,
) -> i32 {
    let mut start = first;
    loop {
        if ActorKind::of(&start.device) != Some(kind) {
            return started_as_something_else(kind);
        }
        let outcome = start.run_with(helpers.clone()).await;
        if served.send(outcome).await.is_err() {
            return 0;
        }
        start = match starts.recv().await {
            Ok(Start::VhostUser(next)) => *next,
            Ok(_) => return started_as_something_else(kind),
            Err(_) => return 0,
        };
    }
}

fn started_as_something_else(kind: ActorKind) -> i32 {
    log::error!("a {} process was started as something else", kind.name());
    FAILED
}
