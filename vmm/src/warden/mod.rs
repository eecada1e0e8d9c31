//! The warden: a process that makes, watches and buries the sandboxed actor processes.
//!
//! ```text
//!   vmm (any number of threads)                warden (one thread, in an empty world)
//!     Warden ──── Spawn{id, kind, link} ─────►   clone ──► actor 1 (lock_down, seccomp, run)
//!       │                                        clone ──► actor 2
//!       ◄── Started / Failed / Died{id, why} ──  SIGCHLD
//!       │
//!       └──────── Start, then the actor's own channels, over its own link ──► actor
//! ```
//!
//! It is forked first, while the process has one thread and has opened nothing: a process with
//! threads cannot fork safely, and what was never opened cannot leak. It decides nothing: when and
//! whether an actor is started again is the machine's business.
//!
//! Nobody outlives anybody: the warden gets SIGKILL when the machine's process ends, an actor when
//! the warden ends, and the end of its link says the same to a warden that is alive.

mod actor;
mod death;
mod policies;
mod probe;
mod process;

use std::borrow::Cow;
use std::io;
use std::time::Duration;

use ipc::link::{self, Link, LinkConfig, LinkEnd, LinkError, Opened};
use ipc::{Deadline, Receiver, SendError, Sender};
use rustix::process::{Pid, PidfdFlags, WaitOptions};
use serde::{Deserialize, Serialize};

pub use actor::{ActorKind, Start, Started};
pub use death::{Cause, Death};
pub use policies::{
    Enforcement, PolicyError, PolicySource, built_in_policy, compile_policy, read_policy,
};
pub use probe::{Attempt, AttemptOutcome, ProbeRequest, ProbeStart, RingOperation};

use crate::error::Hint;

/// Requests that may wait for the warden: as many devices as a machine can start at once.
const REQUESTS: u32 = 64;

/// How long a request may wait for a place in the channel, which the warden empties in microseconds.
const SPAWN_DEADLINE: Duration = Duration::from_secs(5);

/// Tells the processes of one warden apart; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ActorId(pub u64);

/// The machine's end of the link to an actor: it sends one [`Start`], and whatever further
/// channels there are travel in that.
pub type ActorLink = Opened<Start, ()>;

/// What the machine asks for.
#[derive(Debug, Serialize, Deserialize)]
enum Request {
    Spawn { id: ActorId, kind: ActorKind, end: LinkEnd<(), Start> },
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
            Self::Fork(_) | Self::Link(_) | Self::Request(_) => Some(
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
    /// Forks the warden. The process must have one thread.
    pub fn fork(policies: &PolicySource) -> Result<(Self, Receiver<WardenEvent>), WardenError> {
        let programs = policies.compile()?;
        let config = LinkConfig { capacity: REQUESTS, ..LinkConfig::default() };
        let (ours, theirs) = link::pair::<Request, WardenEvent>(&config)?;
        let myself = rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty())
            .map_err(|errno| WardenError::Fork(errno.into()))?;
        // SAFETY: the process has one thread (the caller says so), so the child may do anything.
        let pid = match unsafe { libc::fork() } {
            -1 => return Err(WardenError::Fork(io::Error::last_os_error())),
            0 => process::run(theirs, programs, &myself),
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
    /// Asks for an actor process. That it runs, or cannot, is an event.
    pub async fn spawn(&self, id: ActorId, kind: ActorKind) -> Result<ActorLink, WardenError> {
        let (ours, end) = link::pair(&kind.link())?;
        self.requests.send(Request::Spawn { id, kind, end }).await?;
        Ok(ours.open()?)
    }

    /// [`Spawner::spawn`] from a thread without an executor.
    pub fn spawn_blocking(&self, id: ActorId, kind: ActorKind) -> Result<ActorLink, WardenError> {
        let (ours, end) = link::pair(&kind.link())?;
        let deadline = Deadline::after(SPAWN_DEADLINE);
        self.requests.send_blocking(Request::Spawn { id, kind, end }, deadline)?;
        Ok(ours.open()?)
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
