//! `vmm trace`: what the actors of a machine did.

mod page;
mod replay;
mod words;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use thiserror::Error;
use trace::{Entry, Event, TraceError, TraceFile};

use crate::error::Hint;

pub use replay::{Departure, Replayed, replay};

/// Why a trace cannot be looked at.
#[derive(Debug, Error)]
pub enum ViewError {
    /// The file.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// An actor that is not in it.
    #[error("there is no actor `{name}` in {path}; there are {known}")]
    NoActor {
        /// The name.
        name: String,
        /// The file.
        path: PathBuf,
        /// Those that are.
        known: String,
    },
    /// What is shown cannot be written.
    #[error("cannot write {what}")]
    Write {
        /// To where.
        what: String,
        /// Why.
        source: io::Error,
    },
    /// The actor's code cannot be run on what was written down.
    #[error("{actor} cannot be replayed: {reason}")]
    NoReplay {
        /// Whose.
        actor: String,
        /// Why.
        reason: String,
    },
}

impl Hint for ViewError {}

/// Which part of a trace.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Of these actors; of all if there are none.
    pub actors: Vec<String>,
    /// From this time after its beginning.
    pub since: Duration,
    /// Up to this time.
    pub until: Option<Duration>,
}

impl Selection {
    fn check(&self, trace: &TraceFile, path: &Path) -> Result<(), ViewError> {
        let known: Vec<&str> = trace.actors().collect();
        // Messages of vCPUs and of others of the program's own are in the part of the program itself.
        let told_by_vmm = |name: &str| !known.contains(&name) && is_own_actor(name);
        match self.actors.iter().find(|name| !known.contains(&name.as_str()) && !told_by_vmm(name))
        {
            Some(name) => Err(ViewError::NoActor {
                name: name.clone(),
                path: path.to_owned(),
                known: known.join(", "),
            }),
            None => Ok(()),
        }
    }

    fn has_actor(&self, entry: &Entry<'_>) -> bool {
        self.actors.is_empty() || self.actors.iter().any(|name| name == words::actor(entry))
    }
}

fn is_own_actor(name: &str) -> bool {
    name == "machine" || name == "operator" || name.starts_with("vcpu")
}

/// The entries of a selection, with times after the beginning of the trace.
fn entries<'a>(
    trace: &'a TraceFile,
    selection: &'a Selection,
) -> impl Iterator<Item = Result<(Duration, Entry<'a>), TraceError>> {
    let mut start = None;
    let told = trace.timeline(|_| true).map(move |entry| {
        let entry = entry?;
        let start = *start.get_or_insert(entry.time);
        Ok((Duration::from_nanos(entry.time.saturating_sub(start)), entry))
    });
    told.filter(|entry| match entry {
        Ok((time, entry)) => {
            let in_time = *time >= selection.since && selection.until.is_none_or(|end| *time < end);
            in_time && selection.has_actor(entry)
        }
        Err(_) => true,
    })
}

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// A line of JSON for each entry.
    Json,
}

#[derive(Serialize)]
struct Line<'a> {
    seconds: f64,
    actor: &'a str,
    #[serde(flatten)]
    what: What<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
enum What<'a> {
    Did(&'a trace::Record<'static>),
    LostBytes(u64),
}

/// Writes the selected entries, line by line.
pub fn show(
    path: &Path,
    selection: &Selection,
    format: Format,
    mut out: impl Write,
) -> Result<(), ViewError> {
    let trace = TraceFile::open(path)?;
    selection.check(&trace, path)?;
    let written = |source| ViewError::Write { what: "standard output".into(), source };
    for entry in entries(&trace, selection) {
        let (time, entry) = entry?;
        let seconds = time.as_secs_f64();
        let actor = words::actor(&entry);
        match format {
            Format::Text => {
                writeln!(out, "{seconds:12.6} {actor:10} {}", words::event(&entry))
                    .map_err(written)?;
            }
            Format::Json => {
                let what = match &entry.event {
                    Event::Did(record) => What::Did(record),
                    Event::Lost(bytes) => What::LostBytes(*bytes),
                };
                let line = Line { seconds, actor, what };
                serde_json::to_writer(&mut out, &line).map_err(|error| written(error.into()))?;
                out.write_all(b"\n").map_err(written)?;
            }
        }
    }
    if trace.is_cut() && format == Format::Text {
        writeln!(out, "{:12} {:10} the program that wrote this was killed", "", "")
            .map_err(written)?;
    }
    out.flush().map_err(written)
}

/// Writes a page that draws the selected entries.
pub fn report(path: &Path, selection: &Selection, html: &Path) -> Result<(), ViewError> {
    let trace = TraceFile::open(path)?;
    selection.check(&trace, path)?;
    let page = page::html(&path.display().to_string(), entries(&trace, selection))?;
    let what = html.display().to_string();
    std::fs::write(html, page).map_err(|source| ViewError::Write { what, source })
}
