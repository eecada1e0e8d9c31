//! `vmm run`: from arguments to a machine, and from its end to an exit status.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use crate::config::{Error, MachineConfig, MachineOptions};
use crate::error::{Hint, Report};
use crate::exec::{self, RootDir};
use crate::names::Claim;
use crate::outcome::{self, BuiltInSummary, Outcome, signal_name};
use crate::terminal;

const EXAMPLES: &str = "\
Examples:
  vmm run                                   the built-in guest checks machine and devices
  vmm run vmlinux --root path=root.img      Linux with its root file system on root.img
  vmm run bzImage --initrd initrd.img -c 4 -m 2G -p 'quiet panic=-1'
  vmm run --config vm.toml --disk path=data.img,ro,direct,queues=4
  vmm run --root-dir rootfs                 the kernel and the system in a directory

Ctrl-A x quits, Ctrl-A h lists the other keys. The exit status is 0 when the guest powered off,
32 for a reset, 33 for a crash, 34 for a guest panic, 35 for bad arguments, 36 after
`vmm ctl SOCK stop`, 128+N for signal N.";

/// Run a virtual machine until it ends
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct RunArgs {
    #[command(flatten)]
    machine: MachineOptions,

    /// Boot from a directory of this host: DIR[,rw]; read-only, with the guest's changes in its memory, unless rw
    #[arg(long, value_name = "DIR", help_heading = "Other options")]
    root_dir: Option<RootDir>,

    /// Read options from a TOML file; flags win over it, lists append to it
    #[arg(long, value_name = "FILE", help_heading = "Other options")]
    config: Vec<PathBuf>,

    /// Write how it ended as one last line of JSON to standard output
    #[arg(long, help_heading = "Other options")]
    json: bool,
}

/// Runs one machine and gives the exit status of the process.
pub(super) fn run<E: Hint + 'static>(
    arguments: RunArgs,
    run_machine: fn(&MachineConfig) -> Result<Outcome, E>,
) -> u8 {
    let RunArgs { machine, root_dir, config, json } = arguments;
    let mut options = match options(machine, &config) {
        Ok(options) => options,
        Err(error) => return report_error(&Report::new(&error), json),
    };
    // Until the machine has ended: the kernel's files are there.
    let booted = root_dir.as_ref().map(|root| exec::boot_from(root, &mut options));
    let _boot_files = match booted.transpose() {
        Ok(files) => files,
        Err(error) => {
            report_error(&Report::new(&error), json);
            return outcome::BAD_INPUT;
        }
    };
    // As long as the machine lives, too.
    let _name = match Claim::of(&mut options) {
        Ok(name) => name,
        Err(error) => {
            report_error(&Report::new(&error), json);
            return outcome::BAD_INPUT;
        }
    };
    let config = match options.check() {
        Ok(config) => config,
        Err(error) => return report_error(&Report::new(&error), json),
    };
    match run_machine(&config) {
        Ok(outcome) => report_outcome(&outcome, json),
        Err(error) => report_error(&Report::new(&error), json),
    }
}

fn options(machine: MachineOptions, files: &[PathBuf]) -> Result<MachineOptions, Error> {
    let mut options = MachineOptions::default();
    for file in files {
        options = options.overlay(MachineOptions::from_file(file)?);
    }
    Ok(options.overlay(machine))
}

/// The last line of `--json`.
#[derive(Debug, Serialize)]
struct JsonEnd<'a> {
    exit: &'a str,
    status: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    builtin: Option<BuiltInSummary>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signal: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(flatten)]
    error: Option<&'a Report>,
}

fn report_outcome(outcome: &Outcome, json: bool) -> u8 {
    let status = outcome.exit_code();
    // The guest's own output is all there is to say when it powered off.
    if !matches!(outcome, Outcome::Shutdown | Outcome::BuiltIn(_)) {
        say(&format!("vmm: {outcome}"));
    }
    if json {
        print_json(&JsonEnd {
            exit: outcome.name(),
            status,
            builtin: match outcome {
                Outcome::BuiltIn(summary) => Some(*summary),
                _ => None,
            },
            signal: match outcome {
                Outcome::Signal(number) => signal_name(*number),
                _ => None,
            },
            reason: match outcome {
                Outcome::Crash { reason } => Some(reason),
                _ => None,
            },
            error: None,
        });
    }
    status
}

/// Shows an error on standard error, and as JSON on standard output if wanted.
pub(super) fn report_error(report: &Report, json: bool) -> u8 {
    say(&report.to_string());
    if json {
        print_json_error(report);
    }
    report.exit_code()
}

pub(super) fn print_json_error(report: &Report) {
    print_json(&JsonEnd {
        exit: "error",
        status: report.exit_code(),
        builtin: None,
        signal: None,
        reason: None,
        error: Some(report),
    });
}

/// Writes lines to standard error, on lines of their own.
pub(super) fn say(text: &str) {
    // Nobody is left to hear that standard error is closed.
    let _ = writeln!(io::stderr().lock(), "{}{text}", terminal::start_of_error_line());
}

fn print_json(end: &JsonEnd<'_>) {
    match serde_json::to_string(end) {
        Ok(line) => {
            super::print(format!("{}{line}\n", terminal::start_of_line()).as_bytes());
        }
        Err(error) => say(&Report::of(&error).to_string()),
    }
}
