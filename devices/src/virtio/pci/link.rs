//! Calls to the back end, each with a deadline.

use std::time::Duration;

use ipc::{CallError, Deadline, Message, Reply, Sender};

use crate::log_limit::Foreign;
use crate::virtio::backend::{BackendRequest, QueueSetup};

/// How long a vCPU waits for a back end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// For requests that do input and output (reset waits for what is in flight) or set things up.
    pub patient: Duration,
    /// For each request once the back end has missed a deadline, until it answers again: a guest
    /// that tries in a loop must not keep its vCPUs from being stopped.
    pub impatient: Duration,
}

impl Default for Deadlines {
    /// Five seconds is long for a disk and short for someone who waits; linux gives up on a block
    /// request after 30.
    fn default() -> Deadlines {
        Deadlines {
            patient: Duration::from_secs(5),
            impatient: Duration::from_millis(20),
        }
    }
}

/// What the transport knows of the back end's guest state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    /// It has none: never activated, or reset since.
    Idle,
    /// It may have some, so a reset must reach it.
    MayBeActive,
}

/// Whether a reset has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ResetOutcome {
    /// No I/O of the device touches guest memory any more.
    Complete,
    /// The same, because the back end is gone; it will not come back by itself.
    BackEndGone(CallError),
    /// Nobody knows.
    Unconfirmed(CallError),
}

/// The way to the back end.
#[derive(Debug)]
pub(super) struct BackendLink {
    requests: Sender<BackendRequest>,
    deadlines: Deadlines,
    condition: Condition,
    missed_deadline: bool,
}

impl BackendLink {
    pub(super) fn new(requests: Sender<BackendRequest>, deadlines: Deadlines) -> BackendLink {
        BackendLink {
            requests,
            deadlines,
            condition: Condition::Idle,
            missed_deadline: false,
        }
    }

    /// Activates the back end. The error is a sentence for the log.
    pub(super) fn activate(
        &mut self,
        features: u64,
        queues: Vec<QueueSetup>,
    ) -> Result<(), String> {
        self.condition = Condition::MayBeActive;
        self.call(|reply| BackendRequest::Activate {
            features,
            queues,
            reply,
        })
        .map_err(|error| format!("activating the back end: {error}"))?
        .map_err(|reason| format!("the back end refused to start: {}", Foreign(&reason)))
    }

    /// Resets the back end, unless it has nothing to reset.
    pub(super) fn reset(&mut self) -> ResetOutcome {
        if self.condition == Condition::Idle {
            return ResetOutcome::Complete;
        }
        let outcome = match self.call(|reply| BackendRequest::Reset { reply }) {
            Ok(()) => ResetOutcome::Complete,
            Err(error @ (CallError::PeerDied | CallError::Closed)) => {
                ResetOutcome::BackEndGone(error)
            }
            // Refused, too: a back end that broke off may have left operations in flight.
            Err(error @ (CallError::TimedOut | CallError::Refused)) => {
                return ResetOutcome::Unconfirmed(error);
            }
        };
        self.condition = Condition::Idle;
        outcome
    }

    /// Forwards a write to the configuration space and returns the space as it is then.
    pub(super) fn write_config(
        &mut self,
        offset: u32,
        data: Vec<u8>,
        length: u32,
    ) -> Result<Vec<u8>, CallError> {
        self.call(|reply| BackendRequest::WriteConfig {
            offset,
            data,
            reply,
        })?;
        self.call(|reply| BackendRequest::ReadConfig {
            offset: 0,
            length,
            reply,
        })
    }

    fn call<R: Message>(
        &mut self,
        make: impl FnOnce(Reply<R>) -> BackendRequest,
    ) -> Result<R, CallError> {
        let patience = if self.missed_deadline {
            self.deadlines.impatient
        } else {
            self.deadlines.patient
        };
        let result = self.requests.call_blocking(make, Deadline::after(patience));
        self.missed_deadline = matches!(result, Err(CallError::TimedOut));
        result
    }
}
