//! Developer tasks: the test bed, the demo, all tests, chaos, fuzzing, coverage, lint.

#![deny(unsafe_code)]

mod bed;
mod chaos;
mod coverage;
mod demo;
mod fuzz;
mod lint;
mod miri;
mod project;
mod report;
mod runner;
mod sim;
mod suites;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use bed::BedArguments;
use test::TestArguments;

/// Developer tasks of the project
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    Bed(BedArguments),
    Test(TestArguments),
    Chaos(chaos::ChaosArguments),
    Sim(sim::SimArguments),
    Fuzz(fuzz::FuzzArguments),
    Coverage(coverage::CoverageArguments),
    Miri(miri::MiriArguments),
    /// Checks format, clippy and the house's own rules
    Lint,
    /// Builds vmm, looks at this host, runs the built-in guest and boots Debian Linux
    Demo,
    /// Says whether KVM here runs guests natively
    Kvm,
    /// Has a process make a system call that its policy forbids
    #[command(hide = true)]
    Violate {
        /// Its number
        pid: i32,
    },
    /// The bed's end on the emulated host
    #[command(hide = true)]
    BedAgent,
}

/// No exit status that commands use by habit, so that a broken bed is not taken for their answer.
const FAILED: u8 = 125;

fn main() -> ExitCode {
    let result = match Arguments::parse().task {
        Task::Bed(arguments) => bed::command::run(arguments),
        Task::Test(arguments) => Ok(test::run(&arguments)),
        Task::Chaos(arguments) => chaos::run(&arguments),
        Task::Sim(arguments) => sim::run(&arguments),
        Task::Fuzz(arguments) => fuzz::run(&arguments),
        Task::Coverage(arguments) => coverage::run(&arguments),
        Task::Miri(arguments) => miri::run(&arguments),
        Task::Lint => Ok(lint::run()),
        Task::Demo => demo::run(),
        Task::Kvm => {
            println!("{}", bed::native::probe());
            Ok(ExitCode::SUCCESS)
        }
        Task::Violate { pid } => chaos::violate(pid),
        Task::BedAgent => bed::agent::run().map(|()| ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::from(FAILED)
    })
}
