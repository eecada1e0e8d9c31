//! Developer tasks: the test bed, the demo, all tests, lint.

#![deny(unsafe_code)]

mod bed;
mod project;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use bed::BedArguments;

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
    /// The bed's end on the emulated host
    #[command(hide = true)]
    BedAgent,
}

/// No exit status that commands use by habit, so that a broken bed is not taken for their answer.
const FAILED: u8 = 125;

fn main() -> ExitCode {
    let result = match Arguments::parse().task {
        Task::Bed(arguments) => bed::command::run(arguments),
        Task::BedAgent => bed::agent::run().map(|()| ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::from(FAILED)
    })
}
