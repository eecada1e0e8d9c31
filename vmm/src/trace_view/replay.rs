//! Runs a disk's code on what a trace says that happened to it, and looks whether it does the same again.
//!
//! ```text
//!   trace ── activated, taken, ended, reset ... ──► a driver, and a file that answers as it did then
//!     │                                                        │ the back end, in a simulated world
//!     └── began, given back ...   = ?   ◄── what it asks of the file, what it gives back
//! ```
//!
//! Data is not written down and decides nothing: buffers hold zeros behind their headers. What decides is
//! all there: what the driver asked for, and what came of each operation.

mod extents;
mod player;

use std::fmt;
use std::path::Path;

use serde::Serialize;
use trace::{Event, Record, TraceFile};

use self::extents::Extents;
use self::player::Player;
use super::ViewError;

/// What came of a replay.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Replayed {
    /// Whose code it was.
    pub actor: String,
    /// Requests that were taken.
    pub requests: u64,
    /// Operations that were asked of the file.
    pub operations: u64,
    /// Answers that were given.
    pub answers: u64,
    /// Entries of the trace that were not replayed: those of successors of a process that died.
    pub left_out: u64,
    /// Where it did something else.
    pub departure: Option<Departure>,
}

/// The first thing that was different.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Departure {
    /// Seconds after the beginning of the trace.
    pub seconds: f64,
    /// What happened then.
    pub then: String,
    /// What happened now.
    pub now: String,
}

impl Replayed {
    /// One line for machines.
    pub fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl fmt::Display for Replayed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { actor, requests, operations, answers, left_out, departure } = self;
        write!(f, "{actor}: {requests} requests, {operations} operations, {answers} answers")?;
        match departure {
            None => write!(f, ": all as they were")?,
            Some(Departure { seconds, then, now }) => {
                write!(f, "\nit departs at {seconds:.6} s\n  then: {then}\n  now:  {now}")?;
            }
        }
        if *left_out > 0 {
            write!(f, "\n{left_out} entries of successors are left out")?;
        }
        Ok(())
    }
}

/// Runs an actor's code on its part of a trace.
pub fn replay(path: &Path, actor: &str) -> Result<Replayed, ViewError> {
    let trace = TraceFile::open(path)?;
    let known: Vec<&str> = trace.actors().collect();
    if !known.contains(&actor) {
        let known = known.join(", ");
        return Err(ViewError::NoActor { name: actor.into(), path: path.to_owned(), known });
    }
    let refuse = |reason: &str| ViewError::NoReplay { actor: actor.into(), reason: reason.into() };
    if !actor.starts_with("blk") {
        return Err(refuse("only disks can be, for now"));
    }
    let start = trace.timeline(|_| true).next().transpose()?.map_or(0, |entry| entry.time);
    let extents = Extents::of(&trace, actor)?;
    let Some(state) = &extents.state else {
        return Err(refuse("the beginning of what it did is lost: it was traced with `last=SIZE`"));
    };
    let mut player = Player::new(&extents, state).ok_or_else(|| {
        refuse("what it was made of cannot be read: another version of the program wrote this")
    })?;
    let mut replayed = Replayed {
        actor: actor.into(),
        requests: 0,
        operations: 0,
        answers: 0,
        left_out: 0,
        departure: None,
    };
    let mut lives = 0;
    for entry in trace.timeline(|name| name == actor) {
        let entry = entry?;
        let record = match &entry.event {
            Event::Did(record) => record,
            Event::Lost(_) => return Err(refuse("some of what it did was lost")),
        };
        lives += u32::from(matches!(record, Record::Born));
        if lives > 1 || replayed.departure.is_some() {
            replayed.left_out += 1;
            continue;
        }
        match record {
            Record::Taken { began, .. } => {
                replayed.requests += 1;
                replayed.operations += u64::from(began.is_some());
            }
            Record::Began { .. } => replayed.operations += 1,
            Record::Given(_) => replayed.answers += 1,
            _ => {}
        }
        if let Err(now) = player.play(record) {
            let seconds = (entry.time - start.min(entry.time)) as f64 / 1e9;
            let then = super::words::event(&entry);
            replayed.departure = Some(Departure { seconds, then, now });
        }
    }
    Ok(replayed)
}
