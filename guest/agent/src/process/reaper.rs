//! Collects ended children: those of the table, and as process 1 everybody's orphans.

use std::io;

use rustix::io::Errno;
use rustix::process::{WaitOptions, wait};

use super::{Exit, Processes};

/// Whether there are children left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Children {
    /// Some still run.
    Some,
    /// None at all.
    None,
}

/// Collects every child that has ended.
pub(crate) fn reap(processes: &Processes) -> io::Result<Children> {
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
