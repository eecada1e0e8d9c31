//! What a process may do to what it can still name.

use std::os::fd::BorrowedFd;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{DumpableBehavior, Resource, Rlimit, Signal};
use rustix::thread::{CapabilitySet, CapabilitySets};
use serde::{Deserialize, Serialize};

use super::{SandboxError, landlock};

/// The exit status of a process whose parent died before it could be tied to it.
const ORPHANED: libc::c_int = 1;

/// Bounds on what an actor process can use up.
///
/// There is none on processes, which the seccomp policy forbids outright: `RLIMIT_NPROC` would
/// also deny `io_uring` the kernel threads that serve what blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Descriptors, in all.
    pub descriptors: u64,
    /// Private writable memory in bytes: heap, stacks. Guest RAM is shared and does not count.
    pub private_bytes: u64,
}

/// Which files an actor may open by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Files {
    /// None: it was given all that it has, and Landlock holds it to that.
    Given,
    /// What lies below directories that it will be given. Landlock would have to know these now, and
    /// any set of its rules forbids moving files between directories that it does not name.
    Below,
}

impl Limits {
    /// Those of two actors in one process.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            descriptors: self.descriptors.saturating_add(other.descriptors),
            private_bytes: self.private_bytes.saturating_add(other.private_bytes),
        }
    }
}

/// What an actor may do that its user may not; what comes later includes what comes before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Privileges {
    /// Nothing.
    None,
    /// Act for the owners of files: give files away, and go past permissions, which whoever asks has to
    /// have checked. Worth something in a world of [`Users::All`](super::Users) only.
    Owners,
}

impl Privileges {
    fn capabilities(self) -> CapabilitySet {
        match self {
            Self::None => CapabilitySet::empty(),
            Self::Owners => {
                CapabilitySet::CHOWN
                    | CapabilitySet::DAC_OVERRIDE
                    | CapabilitySet::FOWNER
                    | CapabilitySet::FSETID
            }
        }
    }
}

/// Gives up every other privilege, for good. What is left to do is what each thread does for itself:
/// [`confine_thread`] and the seccomp filter. `parent` is a pidfd of the process that the caller, which
/// must have one thread, must not outlive.
pub fn lock_down(
    limits: Limits,
    privileges: Privileges,
    parent: BorrowedFd<'_>,
) -> Result<(), SandboxError> {
    drop_capabilities(privileges.capabilities())?;
    tie_to_parent(parent)?;
    rustix::thread::set_no_new_privs(true)
        .map_err(SandboxError::of("give up gaining privileges"))?;
    limit(Resource::Nofile, limits.descriptors)?;
    limit(Resource::Data, limits.private_bytes)?;
    limit(Resource::Core, 0)?;
    // Not traceable, and its /proc entries belong to root.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(SandboxError::of("make the actor undumpable"))
}

/// Gives up what the calling thread needs less than others of its process.
pub fn confine_thread(files: Files, privileges: Privileges) -> Result<(), SandboxError> {
    drop_capabilities(privileges.capabilities())?;
    match files {
        Files::Given => landlock::deny_all(),
        Files::Below => Ok(()),
    }
}

/// Has all threads that this one will make use its heap: those of their own grow by making memory
/// accessible, which no actor may.
pub fn share_one_heap() {
    // SAFETY: sets a number before there is another thread.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1)
    };
}

/// Empties the bounding set: children of the calling process cannot gain a capability from
/// anything. It keeps those that it has.
pub fn empty_bounding_set() -> Result<(), SandboxError> {
    for number in 0..64 {
        // SAFETY: a plain prctl on integers.
        let result = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number, 0, 0, 0) };
        if result != 0 {
            // The kernel says EINVAL for the first number that it has no capability for.
            match std::io::Error::last_os_error().raw_os_error() {
                Some(libc::EINVAL) => break,
                _ => return Err(SandboxError::last("empty the bounding set of capabilities")),
            }
        }
    }
    Ok(())
}

fn drop_capabilities(kept: CapabilitySet) -> Result<(), SandboxError> {
    const DOING: &str = "drop capabilities";
    rustix::thread::clear_ambient_capability_set().map_err(SandboxError::of(DOING))?;
    let sets =
        CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets).map_err(SandboxError::of(DOING))
}

fn limit(resource: Resource, value: u64) -> Result<(), SandboxError> {
    let current = rustix::process::getrlimit(resource);
    // Never above what the user is given anyway.
    let value = Some(current.maximum.map_or(value, |maximum| value.min(maximum)));
    let limit = Rlimit { current: value, maximum: value };
    rustix::process::setrlimit(resource, limit)
        .map_err(SandboxError::of("limit an actor's resources"))
}

/// Makes the kernel send SIGKILL to this process when its parent ends, of which `parent` is a
/// pidfd. When it has ended already, so does this process.
///
/// To be called after every change of credentials, which may undo it (prctl(2),
/// `PR_SET_PDEATHSIG`).
pub fn tie_to_parent(parent: BorrowedFd<'_>) -> Result<(), SandboxError> {
    const DOING: &str = "tie the process's life to its parent's";
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(SandboxError::of(DOING))?;
    let mut polled = [PollFd::new(&parent, PollFlags::IN)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    let ended =
        rustix::event::poll(&mut polled, Some(&at_once)).map_err(SandboxError::of(DOING))?;
    if ended > 0 {
        // SAFETY: ends the process, which nobody waits for any more.
        unsafe { libc::_exit(ORPHANED) };
    }
    Ok(())
}
