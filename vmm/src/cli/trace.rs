//! `vmm trace`: what the actors of a machine did.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::error::Report;
use crate::trace_view::{self, Format, Selection, ViewError};

const EXAMPLES: &str = "\
Examples:
  vmm run vmlinux --root path=root.img --trace run.trace
  vmm trace show run.trace --actor blk0 --since 1.5
  vmm trace report run.trace --html run.html
  vmm trace replay run.trace --actor blk0";

/// Look at a trace that `vmm run --trace FILE` has written
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct TraceArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print what happened, in the order of time
    Show(ShowArgs),
    /// Write a page that draws what happened
    Report(ReportArgs),
    /// Run an actor's code alone on what was written down, and say where it departs from that
    Replay(ReplayArgs),
}

#[derive(Debug, Args)]
struct Part {
    /// The trace
    file: PathBuf,
    /// Only these actors: blk0, net0, vcpu0, machine, operator ...; several with commas
    #[arg(long = "actor", value_name = "NAME", value_delimiter = ',')]
    actors: Vec<String>,
    /// Only from so many seconds after the beginning
    #[arg(long, value_name = "SECONDS", default_value = "0", value_parser = seconds, hide_default_value = true)]
    since: Duration,
    /// Only up to so many seconds after the beginning
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    until: Option<Duration>,
}

#[derive(Debug, Args)]
struct ShowArgs {
    #[command(flatten)]
    part: Part,
    /// A line of JSON for each entry
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct ReportArgs {
    #[command(flatten)]
    part: Part,
    /// Where the page goes
    #[arg(long, value_name = "FILE")]
    html: PathBuf,
}

#[derive(Debug, Args)]
struct ReplayArgs {
    /// The trace
    file: PathBuf,
    /// The actor, a disk: blk0
    #[arg(long, value_name = "NAME")]
    actor: String,
    /// End with one line of JSON
    #[arg(long)]
    json: bool,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let number = text.strip_suffix('s').unwrap_or(text).parse::<f64>();
    let duration = number.ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    duration.ok_or_else(|| "expected a number of seconds, for example 1.5".into())
}

impl From<Part> for Selection {
    fn from(part: Part) -> Self {
        let Part { actors, since, until, .. } = part;
        Self { actors, since, until }
    }
}

/// Does what is asked, and gives the exit status of the process.
pub(super) fn run(arguments: TraceArgs) -> u8 {
    let done = match arguments.action {
        Action::Show(arguments) => show(arguments),
        Action::Report(ReportArgs { part, html }) => {
            let file = part.file.clone();
            trace_view::report(&file, &part.into(), &html).map(|()| 0)
        }
        Action::Replay(arguments) => replay(&arguments),
    };
    done.unwrap_or_else(|error| {
        let report = Report::new(&error);
        super::run::say(&report.to_string());
        report.exit_code()
    })
}

fn show(arguments: ShowArgs) -> Result<u8, ViewError> {
    let ShowArgs { part, json } = arguments;
    let format = if json { Format::Json } else { Format::Text };
    let file = part.file.clone();
    let out = io::BufWriter::new(io::stdout().lock());
    match trace_view::show(&file, &part.into(), format, out) {
        // Whoever read it has seen enough.
        Err(ViewError::Write { source, .. }) if source.kind() == io::ErrorKind::BrokenPipe => Ok(0),
        other => other.map(|()| 0),
    }
}

fn replay(arguments: &ReplayArgs) -> Result<u8, ViewError> {
    let replayed = trace_view::replay(&arguments.file, &arguments.actor)?;
    println!("{replayed}");
    if arguments.json {
        println!("{}", replayed.json());
    }
    Ok(u8::from(replayed.departure.is_some()))
}
