//! The warden: a process that makes, watches and buries the sandboxed actor processes.
//!
//! ```text
//!   vmm (any number of threads)                warden (one thread, in an empty world)
//!     Warden ──── Spawn{id, actors} ─────────►   clone ──► actor 1 (lock_down, seccomp, run)
//!       │                                        clone ──► actors 2 and 3, on threads
//!       ◄── Started / Failed / Died{id, why} ──  SIGCHLD
//!       │
//!       └──────── Start, then the actor's own channels, over its own link ──► actor
//! ```
//!
//! A process has one actor, or several that live and die together. Each has its own link, log, ring and
//! filter, and cannot tell: what they share is memory.
//!
//! It is forked first, while the process has one thread and has opened nothing: a process with
//! threads cannot fork safely, and what was never opened cannot leak. It decides nothing: when and
//! whether an actor is started again is the machine's business.
//!
//! Nobody outlives anybody: the warden gets SIGKILL when the machine's process ends, an actor when
//! the warden ends, and the end of its link says the same to a warden that is alive.

mod actor;
mod death;
mod log_pipe;
mod policies;
mod probe;
mod process;

use std::borrow::Cow;
use std::io;
use std::time::Duration;

use ipc::link::{self, Link, LinkConfig, LinkEnd, LinkError, Opened};
use ipc::{Deadline, Receiver, SendError, Sender, TrySendError};
use rustix::process::{Pid, PidfdFlags, WaitOptions};
use serde::{Deserialize, Serialize};

use actor::Unborn;
pub use actor::{Actor, ActorKind, MAX_ACTORS, Served, Start, Started};
pub use death::{Cause, Death};
pub use log_pipe::{Flow, LogPipe, REST, actor_prefix, actor_says};
pub use policies::{
    Enforcement, PolicyError, PolicySource, built_in_policy, compile_policy, read_policy,
};
pub use probe::{Attempt, AttemptOutcome, ProbeRequest, ProbeStart, RingOperation};

use crate::error::Hint;
pub use crate::sandbox::{Privileges, Users};

/// Requests that may wait for the warden: as many devices as a machine can start at once.
const REQUESTS: u32 = 64;

/// How long a request may wait for a place in the channel, which the warden empties in microseconds.
const SPAWN_DEADLINE: Duration = Duration::from_secs(5);

/// Tells the processes of one warden apart; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ActorId(pub u64);

/// The machine's ends of what leads to an actor.
#[derive(Debug)]
pub struct ActorLink {
    /// Its link.
    pub link: Link,
    /// Takes one [`Start`], and whatever further channels there are travel in that. Those who serve front
    /// ends take another one when one has gone.
    pub sender: Sender<Start>,
    /// Says when a front end has gone, and why if it had to go.
    pub served: Receiver<Served>,
    /// What it logs.
    pub log: LogPipe,
}

/// What the machine asks for.
#[derive(Debug, Serialize, Deserialize)]
enum Request {
    Spawn { id: ActorId, actors: Vec<Unborn> },
    Kill { id: ActorId },
}

/// What the warden says.
#[derive(Debug, Serialize, Deserialize)]
pub enum WardenEvent {
    /// The process is there.
    Started {
        /// Which.
        id: ActorId,
        /// Its number on the host.
        pid: i32,
    },
    /// There is no process.
    Failed {
        /// Which was asked for.
        id: ActorId,
        /// Why not.
        reason: String,
    },
    /// The process is gone.
    Died {
        /// Which.
        id: ActorId,
        /// How.
        death: Death,
    },
    /// The warden could not build the sandbox and ends; nothing else follows.
    Unusable {
        /// Why not.
        reason: String,
    },
}

/// A warden that cannot be made or reached.
#[derive(Debug, thiserror::Error)]
pub enum WardenError {
    /// There is no process for it.
    #[error("cannot start the process that makes sandboxes")]
    Fork(#[source] io::Error),
    /// There is no link to it, or to an actor.
    #[error("cannot make a link to a sandboxed process")]
    Link(#[from] LinkError),
    /// There is no pipe for an actor's log.
    #[error("cannot make a pipe for the log of a sandboxed process")]
    Log(#[source] io::Error),
    /// A policy has mistakes.
    #[error("cannot use a seccomp policy")]
    Policy(#[from] PolicyError),
    /// It does not take requests.
    #[error("cannot reach the process that makes sandboxes")]
    Request(#[from] SendError),
}

impl Hint for WardenError {
    fn hint(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Policy(error) => error.hint(),
            Self::Fork(_) | Self::Link(_) | Self::Log(_) | Self::Request(_) => Some(
                "`vmm doctor` says what the sandbox lacks; `--single-process` runs without one"
                    .into(),
            ),
        }
    }
}

/// The warden's process, as the machine holds it.
#[derive(Debug)]
pub struct Warden {
    pid: Pid,
    link: Link,
    spawner: Spawner,
}

/// Asks the warden for processes.
#[derive(Debug, Clone)]
pub struct Spawner {
    requests: Sender<Request>,
}

impl Warden {
    /// Forks the warden, whose world has these users. The process must have one thread.
    pub fn fork(
        policies: &PolicySource,
        users: Users,
    ) -> Result<(Self, Receiver<WardenEvent>), WardenError> {
        let programs = policies.compile()?;
        let config = LinkConfig { capacity: REQUESTS, ..LinkConfig::default() };
        let (ours, theirs) = link::pair::<Request, WardenEvent>(&config)?;
        let myself = rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty())
            .map_err(|errno| WardenError::Fork(errno.into()))?;
        // SAFETY: the process has one thread (the caller says so), so the child may do anything.
        let pid = match unsafe { libc::fork() } {
            -1 => return Err(WardenError::Fork(io::Error::last_os_error())),
            0 => process::run(theirs, programs, users, &myself),
            pid => {
                Pid::from_raw(pid).ok_or_else(|| WardenError::Fork(io::ErrorKind::Other.into()))?
            }
        };
        let Opened { link, sender, receiver } = ours.open()?;
        let spawner = Spawner { requests: sender };
        Ok((Self { pid, link, spawner }, receiver))
    }

    /// The link to the warden; somebody must [drive](Link::drive) it for the events to arrive.
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// What asks for processes.
    pub fn spawner(&self) -> &Spawner {
        &self.spawner
    }

    /// The warden's process number.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }
}

impl Spawner {
    /// Asks for a process with one actor. That it runs, or cannot, is an event.
    pub async fn spawn(&self, id: ActorId, actor: Actor) -> Result<ActorLink, WardenError> {
        let (unborn, ours) = Expected::new(actor)?;
        self.requests.send(Request::Spawn { id, actors: vec![unborn] }).await?;
        ours.open()
    }

    /// Asks for a process with several actors, at most [`MAX_ACTORS`], and does not wait for a place in the
    /// channel; the links are in the same order.
    pub fn spawn_together(
        &self,
        id: ActorId,
        actors: impl IntoIterator<Item = Actor>,
    ) -> Result<Vec<ActorLink>, WardenError> {
        let both = actors.into_iter().map(Expected::new).collect::<Result<Vec<_>, _>>()?;
        let (actors, ours): (Vec<_>, Vec<_>) = both.into_iter().unzip();
        self.requests.try_send(Request::Spawn { id, actors }).map_err(|error| match error {
            TrySendError::Full(_) => SendError::TimedOut,
            TrySendError::Closed(_) => SendError::Closed,
            TrySendError::PeerDied(_) => SendError::PeerDied,
            TrySendError::Unsendable(reason) => SendError::Unsendable(reason),
        })?;
        ours.into_iter().map(Expected::open).collect()
    }

    /// [`Spawner::spawn`] from a thread without an executor.
    pub fn spawn_blocking(&self, id: ActorId, actor: Actor) -> Result<ActorLink, WardenError> {
        let (unborn, ours) = Expected::new(actor)?;
        let request = Request::Spawn { id, actors: vec![unborn] };
        self.requests.send_blocking(request, Deadline::after(SPAWN_DEADLINE))?;
        ours.open()
    }

    /// Asks for the end of an actor process, whose death is an event.
    pub async fn kill(&self, id: ActorId) -> Result<(), WardenError> {
        Ok(self.requests.send(Request::Kill { id }).await?)
    }

    /// [`Spawner::kill`] from a thread without an executor.
    pub fn kill_blocking(&self, id: ActorId) -> Result<(), WardenError> {
        let deadline = Deadline::after(SPAWN_DEADLINE);
        Ok(self.requests.send_blocking(Request::Kill { id }, deadline)?)
    }
}

/// The machine's ends for an actor that is about to be asked for.
struct Expected {
    end: LinkEnd<Start, Served>,
    log: LogPipe,
}

impl Expected {
    fn new(actor: Actor) -> Result<(Unborn, Self), WardenError> {
        let (ours, end) = link::pair(&actor.kind.link())?;
        let (pipe, log) = LogPipe::new().map_err(WardenError::Log)?;
        Ok((Unborn { actor, end, log: log.into() }, Self { end: ours, log: pipe }))
    }

    fn open(self) -> Result<ActorLink, WardenError> {
        let Opened { link, sender, receiver } = self.end.open()?;
        Ok(ActorLink { link, sender, served: receiver, log: self.log })
    }
}

impl Drop for Warden {
    /// Ends the warden with all its actors and waits until they are gone.
    fn drop(&mut self) {
        self.link.close();
        let waited = rustix::io::retry_on_intr(|| {
            rustix::process::waitpid(Some(self.pid), WaitOptions::empty())
        });
        if let Err(errno) = waited {
            log::warn!("the warden's end was not seen: {errno}");
        }
    }
}
