//! Namespaces: what a process can name at all.

use std::fs;
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::Path;

use rustix::process::Pid;
use rustix::thread::UnshareFlags;

use super::users::Mapping;
pub use super::users::Users;
use super::{SandboxError, root};

/// Moves the calling process, which must have one thread, into empty user, mount, network, IPC
/// and UTS namespaces. Its children are born there.
pub fn enter_empty_world(users: Users) -> Result<(), SandboxError> {
    let mapping = Mapping::prepare(users)?;
    // SAFETY: none of these flags share or unshare what Rust's safety rests on (the memory and
    // the descriptor table stay as they are).
    unsafe {
        rustix::thread::unshare_unsafe(
            UnshareFlags::NEWUSER
                | UnshareFlags::NEWNS
                | UnshareFlags::NEWNET
                | UnshareFlags::NEWIPC
                | UnshareFlags::NEWUTS,
        )
    }
    .map_err(SandboxError::of("create namespaces"))?;
    mapping.put_in_force()?;
    // A user namespace of its own would give an actor capabilities again, if only over nothing.
    write_proc("sys/user/max_user_namespaces", "0", "forbid user namespaces")?;
    root::enter_empty_root()
}

/// Gives the calling thread a umask and a working directory of its own.
pub fn leave_shared_places() -> Result<(), SandboxError> {
    // SAFETY: memory and descriptors stay as they are.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS) }
        .map_err(SandboxError::of("give a thread a umask of its own"))
}

pub(super) fn write_proc(file: &str, text: &str, doing: &'static str) -> Result<(), SandboxError> {
    fs::write(Path::new("/proc").join(file), text).map_err(|source| SandboxError { doing, source })
}

/// A process made by [`clone_into_pid_namespace`].
#[derive(Debug)]
pub struct Child {
    /// Its number in the caller's PID namespace.
    pub pid: Pid,
    /// Becomes readable when it ends.
    pub pidfd: OwnedFd,
}

/// Forks the calling process, which must have one thread, into a new PID namespace, where the
/// child is process 1. Returns `None` in the child.
pub fn clone_into_pid_namespace() -> Result<Option<Child>, SandboxError> {
    const DOING: &str = "fork an actor process";
    let mut pidfd: libc::c_int = -1;
    // SAFETY: an all-zero clone_args asks for a plain fork.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = (libc::CLONE_NEWPID | libc::CLONE_PIDFD) as u64;
    arguments.pidfd = &raw mut pidfd as u64;
    arguments.exit_signal = libc::SIGCHLD as u64;
    // SAFETY: without CLONE_VM the child has memory of its own, as after fork; the process has
    // one thread, so no lock is held by a thread that the child lacks. `arguments` is valid for
    // the length that is passed.
    let pid = unsafe {
        libc::syscall(libc::SYS_clone3, &raw mut arguments, size_of::<libc::clone_args>())
    };
    match pid {
        0 => Ok(None),
        -1 => Err(SandboxError::last(DOING)),
        pid => {
            // SAFETY: CLONE_PIDFD stored a descriptor that is nobody else's.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            let pid = Pid::from_raw(pid as i32).ok_or_else(|| SandboxError::last(DOING))?;
            Ok(Some(Child { pid, pidfd }))
        }
    }
}
