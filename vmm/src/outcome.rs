//! How a machine ended, and the exit status that says so.
//!
//! | Status    | Meaning                                                  |
//! |-----------|----------------------------------------------------------|
//! | 0         | the guest powered off                                    |
//! | 32        | the guest asked for a reset                              |
//! | 33        | the machine crashed: triple fault, or a fault of the VMM |
//! | 34        | the guest's kernel panicked, or a built-in check failed  |
//! | 35        | the arguments, a file or the host cannot do it           |
//! | 36        | somebody stopped it by its control socket                |
//! | 128 + N   | signal N ended it                                        |

use std::fmt;

use serde::Serialize;

use crate::config::WatchdogAction;

/// The exit status of a process that could not do what its arguments say.
pub const BAD_INPUT: u8 = 35;

/// The exit status after a crash.
pub const CRASH: u8 = 33;

/// How a machine that ran has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The guest powered off.
    Shutdown,
    /// The built-in guest ran its checks and powered off.
    BuiltIn(BuiltInSummary),
    /// The guest asked for a reset.
    Reset,
    /// The guest cannot go on, or the VMM cannot carry it on.
    Crash {
        /// What happened, for the log.
        reason: String,
    },
    /// The watchdog fired, which shall count as this.
    Watchdog(WatchdogAction),
    /// The guest's kernel said that it panicked.
    GuestPanic,
    /// Somebody stopped it by its control socket.
    Stopped,
    /// The signal of this number ended the machine in order.
    Signal(i32),
}

/// The last line of the built-in guest: `builtin: N passed, M failed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct BuiltInSummary {
    /// Checks that passed.
    pub passed: u32,
    /// Checks that failed.
    pub failed: u32,
}

impl Outcome {
    /// The exit status of the process.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Shutdown
            | Self::BuiltIn(BuiltInSummary { failed: 0, .. })
            | Self::Watchdog(WatchdogAction::Shutdown) => 0,
            Self::Reset | Self::Watchdog(WatchdogAction::Reset) => 32,
            Self::Crash { .. } => CRASH,
            Self::BuiltIn(_) | Self::GuestPanic | Self::Watchdog(WatchdogAction::Panic) => 34,
            Self::Stopped => 36,
            // As a shell reports a process that a signal killed. Signal numbers end at 64.
            Self::Signal(number) => 128_u8.saturating_add(*number as u8),
        }
    }

    /// One word for machines.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Shutdown | Self::BuiltIn(_) => "shutdown",
            Self::Reset => "reset",
            Self::Crash { .. } => "crash",
            Self::Watchdog(_) => "watchdog",
            Self::GuestPanic => "guest-panic",
            Self::Stopped => "stop",
            Self::Signal(_) => "signal",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shutdown => f.write_str("the guest powered off"),
            Self::BuiltIn(BuiltInSummary { passed, failed }) => {
                write!(f, "the built-in guest ended: {passed} passed, {failed} failed")
            }
            Self::Reset => f.write_str("the guest asked for a reset"),
            Self::Crash { reason } => write!(f, "the machine crashed: {reason}"),
            Self::Watchdog(_) => {
                f.write_str("the watchdog fired: the guest did not show in time that it lives")
            }
            Self::GuestPanic => f.write_str("the guest's kernel panicked"),
            Self::Stopped => f.write_str("the machine was stopped by its control socket"),
            Self::Signal(number) => match signal_name(*number) {
                Some(name) => write!(f, "{name} ended the machine"),
                None => write!(f, "signal {number} ended the machine"),
            },
        }
    }
}

/// The name of a signal that ends a machine.
pub fn signal_name(number: i32) -> Option<&'static str> {
    match number {
        libc::SIGHUP => Some("SIGHUP"),
        libc::SIGINT => Some("SIGINT"),
        libc::SIGQUIT => Some("SIGQUIT"),
        libc::SIGTERM => Some("SIGTERM"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_outcome_has_its_status() {
        let built_in = |failed| Outcome::BuiltIn(BuiltInSummary { passed: 3, failed });
        let table = [
            (Outcome::Shutdown, 0),
            (built_in(0), 0),
            (built_in(1), 34),
            (Outcome::Reset, 32),
            (Outcome::Crash { reason: "triple fault".into() }, 33),
            (Outcome::GuestPanic, 34),
            (Outcome::Watchdog(WatchdogAction::Reset), 32),
            (Outcome::Watchdog(WatchdogAction::Shutdown), 0),
            (Outcome::Watchdog(WatchdogAction::Panic), 34),
            (Outcome::Stopped, 36),
            (Outcome::Signal(libc::SIGHUP), 129),
            (Outcome::Signal(libc::SIGINT), 130),
            (Outcome::Signal(libc::SIGTERM), 143),
            (Outcome::Signal(i32::MAX), 255),
        ];
        for (outcome, status) in table {
            assert_eq!(outcome.exit_code(), status, "{outcome}");
        }
    }
}
