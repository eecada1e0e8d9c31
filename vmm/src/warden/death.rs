//! How an actor process ended.

use std::fmt;

use seccomp::Arch;
use serde::{Deserialize, Serialize};

use crate::sandbox::{DeathNote, NOTED_EXIT};

/// How an actor process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Death {
    /// Its number on the host.
    pub pid: i32,
    /// What the kernel says.
    pub cause: Cause,
    /// What the actor wrote before it died. It may have been taken over, so this is for the log.
    pub note: Option<DeathNote>,
}

/// What ended a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// It ended by itself, with this status.
    Exited(i32),
    /// This signal ended it.
    Killed(i32),
    /// It was stopped, which no actor comes back from by itself, and was killed for that.
    Stopped,
}

impl Death {
    /// Whether the actor ended in good order: its work was done.
    pub fn is_orderly(&self) -> bool {
        self.cause == Cause::Exited(0)
    }

    /// Whether the actor's own doing ended it: a status, or a signal that is no order from outside.
    pub fn is_own_doing(&self) -> bool {
        match self.cause {
            Cause::Exited(status) => status != 0,
            Cause::Killed(signal) => signal != libc::SIGKILL && signal != libc::SIGTERM,
            Cause::Stopped => false,
        }
    }

    /// Whether the actor ended itself because of an error, so that the last one that it logged is
    /// the reason.
    pub fn is_explained_by_log(&self) -> bool {
        match (self.cause, self.note) {
            (Cause::Exited(NOTED_EXIT), Some(note)) => note.signal == libc::SIGABRT,
            (Cause::Exited(status), _) => status != 0,
            (Cause::Killed(_) | Cause::Stopped, _) => false,
        }
    }

    /// The system call that the seccomp policy forbids, if that was the reason.
    pub fn forbidden_call(&self) -> Option<&'static str> {
        Arch::HOST.name(self.note?.system_call?)
    }
}

/// The end of "the device's process ended: ".
impl fmt::Display for Death {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.cause, self.note) {
            (Cause::Exited(NOTED_EXIT), Some(note)) => describe(formatter, &note),
            (Cause::Exited(status), _) => write!(formatter, "exit status {status}"),
            (Cause::Killed(signal), _) => write!(formatter, "killed by {}", Signal(signal)),
            (Cause::Stopped, _) => formatter.write_str("killed because it was stopped"),
        }
    }
}

fn describe(formatter: &mut fmt::Formatter<'_>, note: &DeathNote) -> fmt::Result {
    let signal = Signal(note.signal);
    match note.system_call {
        Some(number) => match Arch::HOST.name(number) {
            Some(name) => write!(formatter, "{signal}: its policy forbids `{name}`"),
            None => write!(formatter, "{signal}: its policy forbids system call {number}"),
        },
        None if note.address != 0 => write!(formatter, "{signal} at {:#x}", note.address),
        None => write!(formatter, "{signal}"),
    }
}

struct Signal(i32);

impl fmt::Display for Signal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            libc::SIGSEGV => "SIGSEGV",
            libc::SIGBUS => "SIGBUS",
            libc::SIGILL => "SIGILL",
            libc::SIGFPE => "SIGFPE",
            libc::SIGABRT => "SIGABRT",
            libc::SIGTRAP => "SIGTRAP",
            libc::SIGSYS => "SIGSYS",
            libc::SIGKILL => "SIGKILL",
            number => return write!(formatter, "signal {number}"),
        };
        formatter.write_str(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_death_is_described_by_what_is_known() {
        let note = |signal, system_call, address| DeathNote { signal, system_call, address };
        let openat = Arch::HOST.number("openat");
        let table = [
            (Cause::Exited(3), None, "exit status 3"),
            (Cause::Killed(libc::SIGKILL), None, "killed by SIGKILL"),
            (Cause::Killed(64), None, "killed by signal 64"),
            (Cause::Stopped, None, "killed because it was stopped"),
            (
                Cause::Exited(NOTED_EXIT),
                Some(note(libc::SIGSYS, openat, 0)),
                "SIGSYS: its policy forbids `openat`",
            ),
            (
                Cause::Exited(NOTED_EXIT),
                Some(note(libc::SIGSYS, Some(99_999), 0)),
                "SIGSYS: its policy forbids system call 99999",
            ),
            (Cause::Exited(NOTED_EXIT), Some(note(libc::SIGSEGV, None, 0x10)), "SIGSEGV at 0x10"),
            (Cause::Exited(NOTED_EXIT), Some(note(libc::SIGABRT, None, 0)), "SIGABRT"),
        ];
        for (cause, note, expected) in table {
            let death = Death { pid: 1, cause, note };
            assert_eq!(death.to_string(), expected);
            let by_itself = matches!(expected, "exit status 3" | "SIGABRT");
            assert_eq!(death.is_explained_by_log(), by_itself, "{expected}");
            let from_outside =
                matches!(expected, "killed by SIGKILL" | "killed because it was stopped");
            assert_eq!(death.is_own_doing(), !from_outside, "{expected}");
        }
    }
}
