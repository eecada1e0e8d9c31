//! Calls to the back end, each with a deadline.

use std::time::Duration;

use ipc::{CallError, Deadline, Message, Reply, Sender};

use crate::log_limit::Foreign;
use crate::virtio::backend::{BackendRequest, QueueSetup};
use crate::virtio::written::Written;

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
        Deadlines { patient: Duration::from_secs(5), impatient: Duration::from_millis(20) }
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

/// What the death of the back end means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Succession {
    /// The device is broken until somebody resets it, and then again.
    #[default]
    None,
    /// Somebody brings a successor ([`super::VirtioPciDevice::replace_backend`]): the driver only
    /// waits for it.
    Expected,
}

/// Whether the machine is paused. The driver may touch the device all the same, and the back end
/// may die.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Motion {
    Going,
    Paused,
    /// And a successor waits to be activated: it would go on with what is in flight.
    PausedBeforeActivation,
}

/// What to do about the back end when a pause is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AfterPause {
    /// Nothing more.
    Done,
    /// Activate it: it took over during the pause.
    Activate,
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
    succession: Succession,
    condition: Condition,
    missed_deadline: bool,
    motion: Motion,
    /// The back end died before a reset could reach it: what it left in flight is void.
    left_void: bool,
    written: Written,
}

impl BackendLink {
    pub(super) fn new(
        requests: Sender<BackendRequest>,
        deadlines: Deadlines,
        succession: Succession,
    ) -> BackendLink {
        BackendLink {
            requests,
            deadlines,
            succession,
            condition: Condition::Idle,
            missed_deadline: false,
            motion: Motion::Going,
            left_void: false,
            written: Written::default(),
        }
    }

    /// Turns to a successor. Whether what its predecessor left in flight is void is returned.
    pub(super) fn turn_to(&mut self, requests: Sender<BackendRequest>) -> bool {
        self.requests = requests;
        self.missed_deadline = false;
        std::mem::take(&mut self.left_void) || self.condition == Condition::Idle
    }

    /// Whether a successor has to wait for the end of a pause. Asked when one takes over.
    pub(super) fn defers_activation(&mut self) -> bool {
        let paused = self.motion != Motion::Going;
        if paused {
            self.motion = Motion::PausedBeforeActivation;
        }
        paused
    }

    /// Has the back end finish what is in flight and touch the guest no more. One that is gone does
    /// neither.
    pub(super) fn pause(&mut self) -> Result<(), CallError> {
        if self.motion != Motion::Going {
            return Ok(());
        }
        self.motion = Motion::Paused;
        self.call_unless_gone(|reply| BackendRequest::Pause { reply })
    }

    /// Lets the back end go on.
    pub(super) fn resume(&mut self) -> Result<AfterPause, CallError> {
        match std::mem::replace(&mut self.motion, Motion::Going) {
            Motion::Going => Ok(AfterPause::Done),
            Motion::PausedBeforeActivation => Ok(AfterPause::Activate),
            Motion::Paused => {
                self.call_unless_gone(|reply| BackendRequest::Resume { reply })?;
                Ok(AfterPause::Done)
            }
        }
    }

    fn call_unless_gone<R: Message>(
        &mut self,
        make: impl FnOnce(Reply<R>) -> BackendRequest,
    ) -> Result<(), CallError> {
        if self.condition == Condition::Idle {
            return Ok(());
        }
        match self.call(make) {
            Ok(_) | Err(CallError::PeerDied | CallError::Closed) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// There will be no successor.
    pub(super) fn give_up(&mut self) {
        self.succession = Succession::None;
    }

    /// Tells a successor what the driver wrote to the configuration space.
    pub(super) fn repeat_writes(&mut self) -> Result<(), CallError> {
        let writes: Vec<_> = self.written.iter().collect();
        for (offset, data) in writes {
            self.call(|reply| BackendRequest::WriteConfig { offset, data, reply })?;
        }
        Ok(())
    }

    fn awaits_successor(&self, error: CallError) -> bool {
        let gone = matches!(error, CallError::PeerDied | CallError::Closed);
        gone && self.succession == Succession::Expected
    }

    /// Activates the back end. The error is a sentence for the log. One that has died and is to be
    /// replaced is as good as active: its successor will be.
    pub(super) fn activate(
        &mut self,
        features: u64,
        queues: Vec<QueueSetup>,
    ) -> Result<(), String> {
        match self.call_activate(features, queues) {
            // A driver that starts during a pause, which only its vCPUs were left out of.
            Ok(Ok(())) if self.motion != Motion::Going => self
                .call_unless_gone(|reply| BackendRequest::Pause { reply })
                .map_err(|error| format!("pausing the back end: {error}")),
            Err(error) if self.awaits_successor(error) => Ok(()),
            answer => judge(answer),
        }
    }

    /// Activates a successor that was turned to. The error is a sentence for the log, also when it
    /// has died as well.
    pub(super) fn activate_successor(
        &mut self,
        features: u64,
        queues: Vec<QueueSetup>,
    ) -> Result<(), String> {
        judge(self.call_activate(features, queues))
    }

    fn call_activate(
        &mut self,
        features: u64,
        queues: Vec<QueueSetup>,
    ) -> Result<Result<(), String>, CallError> {
        self.condition = Condition::MayBeActive;
        self.call(|reply| BackendRequest::Activate { features, queues, reply })
    }

    /// Resets the back end, unless it has nothing to reset.
    pub(super) fn reset(&mut self) -> ResetOutcome {
        if self.condition == Condition::Idle {
            return ResetOutcome::Complete;
        }
        let outcome = match self.call(|reply| BackendRequest::Reset { reply }) {
            Ok(()) => ResetOutcome::Complete,
            Err(error @ (CallError::PeerDied | CallError::Closed)) => {
                self.left_void = true;
                if self.awaits_successor(error) {
                    ResetOutcome::Complete
                } else {
                    ResetOutcome::BackEndGone(error)
                }
            }
            // Refused, too: a back end that broke off may have left operations in flight.
            Err(error @ (CallError::TimedOut | CallError::Refused)) => {
                return ResetOutcome::Unconfirmed(error);
            }
        };
        self.condition = Condition::Idle;
        if self.motion == Motion::PausedBeforeActivation {
            self.motion = Motion::Paused;
        }
        self.written.clear();
        outcome
    }

    /// Forwards a write to the configuration space and returns the space as it is then, or nothing
    /// when only a successor can say.
    pub(super) fn write_config(
        &mut self,
        offset: u32,
        data: Vec<u8>,
        length: u32,
    ) -> Result<Option<Vec<u8>>, CallError> {
        self.written.remember(offset, &data);
        let written = self.call(|reply| BackendRequest::WriteConfig { offset, data, reply });
        let answer = written.and_then(|()| {
            self.call(|reply| BackendRequest::ReadConfig { offset: 0, length, reply })
        });
        match answer {
            Ok(config) => Ok(Some(config)),
            Err(error) if self.awaits_successor(error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn call<R: Message>(
        &mut self,
        make: impl FnOnce(Reply<R>) -> BackendRequest,
    ) -> Result<R, CallError> {
        let patience =
            if self.missed_deadline { self.deadlines.impatient } else { self.deadlines.patient };
        let result = self.requests.call_blocking(make, Deadline::after(patience));
        self.missed_deadline = matches!(result, Err(CallError::TimedOut));
        result
    }
}

/// What the answer to an activation means.
fn judge(answer: Result<Result<(), String>, CallError>) -> Result<(), String> {
    answer
        .map_err(|error| format!("activating the back end: {error}"))?
        .map_err(|reason| format!("the back end refused to start: {}", Foreign(&reason)))
}
