//! `cargo xtask fuzz`: gives the fuzz targets inputs for as long as there is time.
//!
//! ```text
//!   fuzz/corpus/NAME ──► libFuzzer ──► target/fuzz/found/NAME ──--keep──► fuzz/corpus/NAME
//!                            └── a panic, a hang, too much memory ──► target/fuzz/crashes/NAME-*
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Serialize;

use crate::project;

const MEMORY_MIB: u32 = 3072;
/// Longer inputs say nothing new.
const MOST_BYTES: u32 = 8192;

/// Give fuzz targets inputs: what a guest, a process in a sandbox, a client, a peer or a file can say
///
/// Takes a nightly toolchain and cargo-fuzz (`cargo install cargo-fuzz`). An input that does harm is kept
/// in target/fuzz/crashes; `cargo xtask fuzz NAME --input FILE` repeats it.
#[derive(Args)]
pub(crate) struct FuzzArguments {
    /// Targets; all if none is named
    names: Vec<String>,
    /// How long each target gets inputs
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// How many processes each target has
    #[arg(long, default_value_t = 1)]
    jobs: u32,
    /// What one input may take, far more than any needs; still more where the machine stands still at times
    #[arg(long, default_value_t = 25, value_name = "SECONDS")]
    patience: u32,
    /// Give a target one input and nothing else
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Add what is worth it of what was found to fuzz/corpus
    #[arg(long)]
    keep: bool,
    /// Say what targets there are
    #[arg(long)]
    list: bool,
    /// End with one line of JSON
    #[arg(long)]
    json: bool,
}

/// What came of a target.
#[derive(Serialize)]
struct Outcome {
    target: String,
    executions: u64,
    /// Inputs that reached something new.
    found: usize,
    crashes: usize,
}

#[derive(Serialize)]
struct Summary {
    seconds: u64,
    executions: u64,
    crashes: usize,
    targets: Vec<Outcome>,
}

pub(crate) fn run(arguments: &FuzzArguments) -> Result<ExitCode> {
    if arguments.list {
        all()?.iter().for_each(|target| println!("{target}"));
        return Ok(ExitCode::SUCCESS);
    }
    let targets = chosen(&arguments.names)?;
    let program = build()?;
    if let Some(input) = &arguments.input {
        let [target] = &targets[..] else { bail!("--input FILE is for one target: name it") };
        let status = fuzzer(&program, target, arguments.patience).arg(input).status();
        return Ok(exit(status.context("cannot start the fuzzer")?.success()));
    }
    let mut outcomes = Vec::new();
    for target in targets {
        let outcome = feed(&program, &target, arguments)?;
        let Outcome { executions, found, crashes, .. } = &outcome;
        println!(
            "{target:20} {executions:>10} executions, {found} inputs found, {crashes} crashes"
        );
        outcomes.push(outcome);
        if arguments.keep {
            keep(&program, &target, arguments.patience)?;
        }
    }
    let summary = Summary {
        seconds: u64::from(arguments.seconds) * outcomes.len() as u64,
        executions: outcomes.iter().map(|outcome| outcome.executions).sum(),
        crashes: outcomes.iter().map(|outcome| outcome.crashes).sum(),
        targets: outcomes,
    };
    if arguments.json {
        println!("{}", serde_json::to_string(&summary)?);
    }
    Ok(exit(summary.crashes == 0))
}

fn exit(success: bool) -> ExitCode {
    if success { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn chosen(names: &[String]) -> Result<Vec<String>> {
    let all = all()?;
    if names.is_empty() {
        return Ok(all);
    }
    if let Some(name) = names.iter().find(|name| !all.contains(name)) {
        bail!("there is no target {name}; `cargo xtask fuzz --list` names them");
    }
    Ok(names.to_vec())
}

/// Each target has a folder of inputs; a test says so.
fn all() -> Result<Vec<String>> {
    let folder = project::root().join("fuzz/corpus");
    let entries =
        fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let names = entries.filter_map(Result::ok).map(|entry| entry.file_name());
    let mut names: Vec<String> = names.map(|name| name.to_string_lossy().into_owned()).collect();
    names.sort();
    Ok(names)
}

/// Where the fuzzer is built and what it finds.
fn folder() -> PathBuf {
    project::target().join("fuzz")
}

fn build() -> Result<PathBuf> {
    let hint = "the fuzzer takes `rustup toolchain install nightly` and `cargo install cargo-fuzz`";
    let mut rustup = Command::new("rustup");
    rustup.args(["run", "nightly", "cargo", "fuzz", "build", "--fuzz-dir", "fuzz/libfuzzer"]);
    rustup.arg("target").current_dir(project::root()).env("CARGO_TARGET_DIR", folder());
    // A toolchain that this program was started by is not the one that is meant.
    rustup.env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO");
    project::run(&mut rustup).context(hint)?;
    Ok(folder().join(project::host_triple()).join("release/target"))
}

fn fuzzer(program: &Path, target: &str, patience: u32) -> Command {
    let mut command = Command::new(program);
    command.env("FUZZ_TARGET", target).current_dir(project::root());
    command.arg(format!("-timeout={patience}")).arg(format!("-rss_limit_mb={MEMORY_MIB}"));
    // What takes less is no harm, also where it is kept: the machine may have stood still.
    command.arg(format!("-report_slow_units={patience}"));
    command.arg(format!("-max_len={MOST_BYTES}"));
    // A target that limits the size of files takes care of the signal.
    command.arg("-handle_xfsz=0");
    command
}

fn kept(target: &str) -> PathBuf {
    project::root().join("fuzz/corpus").join(target)
}

fn found(target: &str) -> PathBuf {
    folder().join("found").join(target)
}

/// Lets a target have inputs.
fn feed(program: &Path, target: &str, arguments: &FuzzArguments) -> Result<Outcome> {
    let (found, crashes) = (found(target), folder().join("crashes"));
    for made in [&found, &crashes] {
        fs::create_dir_all(made).with_context(|| format!("cannot make {}", made.display()))?;
    }
    let before = (count(&found, "")?, count(&crashes, target)?);
    let log = folder().join(format!("{target}.log"));
    let output =
        fs::File::create(&log).with_context(|| format!("cannot make {}", log.display()))?;
    let mut command = fuzzer(program, target, arguments.patience);
    command.arg(format!("-max_total_time={}", arguments.seconds)).arg("-print_final_stats=1");
    command.arg(format!("-artifact_prefix={}/{target}-", crashes.display()));
    if arguments.jobs > 1 {
        command.arg(format!("-fork={}", arguments.jobs));
    }
    command.arg(&found);
    if kept(target).is_dir() {
        command.arg(kept(target));
    }
    // What targets print themselves is of no use.
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(output);
    let status = command.status().context("cannot start the fuzzer")?;
    let said = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
    let crashes = count(&crashes, target)? - before.1;
    if !status.success() {
        let last: Vec<&str> = said.lines().rev().take(40).collect();
        for line in last.iter().rev() {
            eprintln!("{line}");
        }
        eprintln!("{target}: {status}; all of it is in {}", log.display());
    }
    let executions = executions(&said);
    let crashes = crashes.max(usize::from(!status.success()));
    Ok(Outcome {
        target: target.to_owned(),
        executions,
        found: count(&found, "")? - before.0,
        crashes,
    })
}

/// As libFuzzer reports at its end, alone or with several processes.
fn executions(said: &str) -> u64 {
    let last =
        |line: &str| line.split_whitespace().last().and_then(|number| number.parse::<u64>().ok());
    let alone = said.lines().filter(|line| line.starts_with("stat::number_of_executed_units:"));
    let together = said.lines().filter_map(|line| line.strip_prefix('#'));
    let together = together.filter_map(|line| line.split(':').next()?.trim().parse().ok());
    alone.filter_map(last).sum::<u64>().max(together.max().unwrap_or_default())
}

fn count(folder: &Path, prefix: &str) -> Result<usize> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}-") };
    Ok(entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
        .count())
}

/// What reaches more than the kept inputs do joins them.
fn keep(program: &Path, target: &str, patience: u32) -> Result<()> {
    let kept = kept(target);
    fs::create_dir_all(&kept).with_context(|| format!("cannot make {}", kept.display()))?;
    let mut command = fuzzer(program, target, patience);
    command.arg("-merge=1").arg(&kept).arg(found(target));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    project::run(&mut command).with_context(|| format!("cannot merge the inputs of {target}"))
}
