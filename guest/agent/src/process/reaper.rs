//! Collects ended children: those of the table, and as process 1 everybody's orphans.

use std::io;

use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, WaitIdStatus, WaitOptions, wait, waitid, waitpid};

use super::{Exit, Process, Processes};

/// Whether there are children left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Children {
    /// Some still run.
    Some,
    /// None at all.
    None,
}

/// Collects every child that has ended and is not held. Orphans wait meanwhile, as the kernel has no way to
/// ask for all but some.
pub(crate) fn reap(processes: &Processes) -> io::Result<Children> {
    if let Some(there) = processes.some_held() {
        for process in there {
            if process.held.get() {
                look_at(&process)?;
            } else if let Some((pid, status)) = waitpid(Some(process.pid), WaitOptions::NOHANG)? {
                processes.ended(pid, Exit::from(status));
            }
        }
        return Ok(Children::Some);
    }
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) => processes.ended(pid, Exit::from(status)),
            Ok(None) => return Ok(Children::Some),
            Err(Errno::CHILD) => return Ok(Children::None),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Notes that a process has ended, and leaves it there.
fn look_at(process: &Process) -> io::Result<()> {
    let how = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    if let Some(status) = waitid(WaitId::Pid(process.pid), how)? {
        process.exit.set(Exit::from(status));
    }
    Ok(())
}

impl From<WaitIdStatus> for Exit {
    fn from(status: WaitIdStatus) -> Self {
        match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Exit::Code(code as u32),
            (None, signal) => Exit::Signal(signal.unwrap_or_default() as u32),
        }
    }
}
