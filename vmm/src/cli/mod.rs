//! The command line: `vmm run`, `vmm exec`, `vmm shell`, `vmm cp`, `vmm list`, `vmm logs`, `vmm crashes`, `vmm test`, `vmm bench`,
//! `vmm ctl`, `vmm device`, `vmm doctor`, `vmm pstore`, `vmm seccomp`, `vmm serve-9p`, `vmm share`, `vmm unshare`,
//! `vmm trace`, `vmm version`,
//! `vmm completion`.

mod bench;
mod cp;
mod crashes;
mod ctl;
mod device;
mod exec;
mod forward;
mod list;
mod logging;
mod logs;
mod pstore;
mod run;
mod runner;
mod seccomp;
mod serve_9p;
mod share;
mod shell;
mod test;
mod trace;
mod usage;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::Shell;

use crate::config::MachineConfig;
use crate::doctor;
use crate::error::{Hint, Report};
use crate::outcome::Outcome;

/// Runs virtual machines
#[derive(Debug, Parser)]
#[command(name = "vmm", version, disable_help_subcommand = true, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    verbosity: Verbosity,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(Box<run::RunArgs>),
    Exec(Box<exec::ExecArgs>),
    Shell(shell::ShellArgs),
    Cp(cp::CpArgs),
    Forward(forward::ForwardArgs),
    List(list::ListArgs),
    Logs(logs::LogsArgs),
    Crashes(crashes::CrashesArgs),
    Test(test::TestArgs),
    Bench(Box<bench::BenchArgs>),
    Ctl(ctl::CtlArgs),
    Device(device::DeviceArgs),
    Doctor(doctor::DoctorArgs),
    Pstore(pstore::PstoreArgs),
    Seccomp(seccomp::SeccompArgs),
    #[command(name = "serve-9p")]
    Serve9p(serve_9p::Serve9pArgs),
    Share(share::ShareArgs),
    Trace(trace::TraceArgs),
    Unshare(share::UnshareArgs),
    /// Say which version this is
    Version,
    /// Write a completion script for a shell to standard output
    Completion {
        /// The shell
        shell: Shell,
    },
}

/// How much is logged to standard error.
#[derive(Debug, Clone, Copy, Args)]
struct Verbosity {
    // The variable VMM_LOG sets it per module; run.md describes it.
    /// Log more; -vv and -vvv still more
    #[arg(short, long, global = true, action = ArgAction::Count, display_order = 1000)]
    verbose: u8,
    /// Log errors only; -qq logs nothing
    #[arg(short, long, global = true, action = ArgAction::Count, display_order = 1001,
          conflicts_with = "verbose")]
    quiet: u8,
}

/// Reads the arguments, does what they say and gives the exit status of the process.
///
/// `run_machine` runs a machine to its end; it is called with the process still single-threaded.
pub fn main<E: Hint + 'static>(run_machine: fn(&MachineConfig) -> Result<Outcome, E>) -> ExitCode {
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    if is_exec(&arguments) {
        runner::end_options(&mut arguments);
    }
    let status = match parse(&arguments) {
        Ok(cli) => dispatch(cli, run_machine),
        Err(error) => match usage::finish(&error, &arguments) {
            crate::outcome::BAD_INPUT if is_exec(&arguments) => crate::exec::status::FAILED,
            status => status,
        },
    };
    ExitCode::from(status)
}

/// Whether a command in a guest was meant, whose statuses are its own.
fn is_exec(arguments: &[OsString]) -> bool {
    usage::subcommand(arguments) == Some("exec")
}

fn parse(arguments: &[OsString]) -> Result<Cli, clap::Error> {
    Cli::from_arg_matches(&command().try_get_matches_from(arguments)?)
}

/// The definition of the command line.
fn command() -> clap::Command {
    Cli::command().mut_subcommand("exec", exec::kernel_as_option)
}

fn dispatch<E: Hint + 'static>(
    cli: Cli,
    run_machine: fn(&MachineConfig) -> Result<Outcome, E>,
) -> u8 {
    logging::start(cli.verbosity);
    match cli.command {
        Command::Run(arguments) => run::run(*arguments, run_machine),
        Command::Exec(arguments) => exec::run(*arguments),
        Command::Shell(arguments) => shell::run(arguments),
        Command::Cp(arguments) => cp::run(arguments),
        Command::Forward(arguments) => forward::run(arguments),
        Command::List(arguments) => list::run(&arguments),
        Command::Logs(arguments) => logs::run(arguments),
        Command::Crashes(arguments) => crashes::run(arguments),
        Command::Test(arguments) => test::run(&arguments),
        Command::Bench(arguments) => bench::run(*arguments),
        Command::Ctl(arguments) => ctl::run(arguments),
        Command::Device(arguments) => device::run(arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Pstore(arguments) => pstore::run(&arguments),
        Command::Seccomp(arguments) => seccomp::run(&arguments),
        Command::Serve9p(arguments) => serve_9p::run(arguments),
        Command::Share(arguments) => share::share(arguments),
        Command::Trace(arguments) => trace::run(arguments),
        Command::Unshare(arguments) => share::unshare(arguments),
        Command::Version => print(concat!("vmm ", env!("CARGO_PKG_VERSION"), "\n").as_bytes()),
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut command(), "vmm", &mut script);
            print(&script)
        }
    }
}

/// Writes all of it to standard output. A reader that went away has what it wanted.
pub(crate) fn print(bytes: &[u8]) -> u8 {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => 0,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
        Err(error) => {
            eprintln!("{}", Report::of(&error));
            crate::outcome::BAD_INPUT
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        command().debug_assert();
    }
}
