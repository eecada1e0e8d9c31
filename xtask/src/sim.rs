//! `cargo xtask sim`: back ends in simulated worlds, each of which a seed decides.

use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::project;
use crate::report::{Report, Verdict, run_logged, show_end};

/// Seeds of each device in the run of all tests.
const SEEDS: &str = "500";

/// Simulates devices: one seed decides what happens and what goes wrong
#[derive(Args)]
#[command(disable_help_flag = true)]
pub(crate) struct SimArguments {
    /// What to do; `--help` says what there is
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Builds the simulation and runs it with these arguments.
pub(crate) fn run(arguments: &SimArguments) -> Result<ExitCode> {
    let status = built()?.args(&arguments.arguments).status().context("cannot start sim")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Some seeds of each device, and the planted bugs.
pub(crate) fn run_into(report: &mut Report) {
    step(report, "sim/seeds", &["--seeds", SEEDS, "--json"]);
    step(report, "sim/planted", &["--planted", "--json"]);
}

fn step(report: &mut Report, name: &str, arguments: &[&str]) {
    let start = Instant::now();
    let result = built().and_then(|mut sim| run_logged(name, sim.args(arguments)));
    let verdict = match result {
        Ok((status, _)) if status.success() => Verdict::Passed,
        Ok((status, text)) => {
            show_end(&text);
            Verdict::Failed(format!("sim ended with {status}"))
        }
        Err(error) => Verdict::Failed(format!("{error:#}")),
    };
    report.add(name, verdict, start.elapsed());
}

/// The program, built with checks and with what only simulations need of devices.
fn built() -> Result<Command> {
    let mut cargo = project::cargo();
    cargo.args([
        "build",
        "--quiet",
        "--profile",
        "sim",
        "--package",
        "sim",
        "--features",
        "points",
    ]);
    project::run(&mut cargo).context("cannot build the simulation")?;
    let program = project::target().join("sim/sim");
    if !program.is_file() {
        bail!("cargo has built no {}", program.display());
    }
    Ok(Command::new(program))
}
