//! `vmm seccomp`: policies for the sandboxes of device processes.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use seccomp::{Arch, Policy};

use crate::error::Report;
use crate::outcome::BAD_INPUT;
use crate::warden::{
    ActorKind, Enforcement, PolicyError, built_in_policy, compile_policy, read_policy,
};

/// Check and show system call policies
#[derive(Debug, Args)]
pub(super) struct SeccompArgs {
    #[command(subcommand)]
    command: SeccompCommand,
}

#[derive(Debug, Subcommand)]
enum SeccompCommand {
    /// Say what is wrong with policies, with file and line
    Check {
        /// Policy files
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Show the filter that a policy is compiled to
    Dump {
        /// A policy file, or the name of a built-in policy
        #[arg(value_name = "FILE")]
        policy: PathBuf,
        /// For this architecture instead of the host's
        #[arg(long)]
        arch: Option<ArchName>,
    },
    /// List the built-in policies: name, system calls allowed, instructions
    List,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ArchName {
    #[value(name = "x86_64")]
    X86_64,
    Aarch64,
}

impl From<ArchName> for Arch {
    fn from(name: ArchName) -> Self {
        match name {
            ArchName::X86_64 => Self::X86_64,
            ArchName::Aarch64 => Self::Aarch64,
        }
    }
}

/// Does what the arguments say and gives the exit status of the process.
pub(super) fn run(arguments: &SeccompArgs) -> u8 {
    match &arguments.command {
        SeccompCommand::Check { files } => check(files),
        SeccompCommand::Dump { policy, arch } => {
            show(dump(policy, arch.map_or(Arch::HOST, Arch::from)))
        }
        SeccompCommand::List => show(list()),
    }
}

fn show(text: Result<String, PolicyError>) -> u8 {
    match text {
        Ok(text) => super::print(text.as_bytes()),
        Err(error) => {
            eprintln!("{}", Report::new(&error));
            BAD_INPUT
        }
    }
}

fn check(files: &[PathBuf]) -> u8 {
    let mut status = 0;
    for file in files {
        let mistakes = match mistakes(file) {
            Ok(mistakes) => mistakes,
            Err(error) => {
                eprintln!("{}", Report::new(&error));
                status = BAD_INPUT;
                continue;
            }
        };
        for mistake in &mistakes {
            // One per line and in this form, which editors understand.
            eprintln!("{mistake}");
            status = BAD_INPUT;
        }
    }
    status
}

/// Everything that is wrong with a policy on any architecture, in the order of its lines.
fn mistakes(file: &Path) -> Result<Vec<seccomp::Error>, PolicyError> {
    let mut known = BTreeSet::new();
    let mut all = Vec::new();
    for arch in [Arch::X86_64, Arch::Aarch64] {
        let compiled = read_policy(file, arch)
            .and_then(|policy| compile_policy(&policy, arch, Enforcement::Enforce));
        match compiled {
            Ok(_) => {}
            Err(PolicyError::Mistakes { first, others }) => {
                let new = |error: &seccomp::Error| known.insert(error.to_string());
                all.extend(std::iter::once(first).chain(others).filter(new));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

fn dump(name: &Path, arch: Arch) -> Result<String, PolicyError> {
    let policy = find(name, arch)?;
    let program = compile_policy(&policy, arch, Enforcement::Enforce)?;
    let mut text = format!(
        "# {} for {arch:?}: {} system calls, {} instructions\n",
        policy.file,
        policy.allowed_calls().len(),
        program.len()
    );
    for line in program.disassemble() {
        text.push_str(&line);
        text.push('\n');
    }
    Ok(text)
}

/// A built-in policy of this name, unless there is such a file.
fn find(name: &Path, arch: Arch) -> Result<Policy, PolicyError> {
    let is_named = |kind: &&ActorKind| Path::new(kind.name()) == name;
    match ActorKind::ALL.iter().find(is_named) {
        Some(kind) if !name.exists() => built_in_policy(*kind, arch),
        _ => read_policy(name, arch),
    }
}

fn list() -> Result<String, PolicyError> {
    let mut text = String::new();
    for kind in ActorKind::ALL {
        let policy = built_in_policy(*kind, Arch::HOST)?;
        let program = compile_policy(&policy, Arch::HOST, Enforcement::Enforce)?;
        let calls = policy.allowed_calls().len();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{:10} {calls:4} {:5}", kind.name(), program.len());
    }
    Ok(text)
}
