//! Format, clippy and the house's own rules.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result};

use crate::project;
use crate::report::{Report, Verdict, check};

/// A file that is longer is probably two.
const LONG_FILE: usize = 400;
/// A file that is longer certainly is.
const TOO_LONG_FILE: usize = 800;

/// Runs everything and prints the totals.
pub(crate) fn run() -> ExitCode {
    let start = Instant::now();
    let mut report = Report::default();
    run_into(&mut report);
    report.finish(start)
}

/// Runs everything as part of a longer run.
pub(crate) fn run_into(report: &mut Report) {
    let guest = project::root().join("guest/builtin/Cargo.toml");
    let deny = ["--", "-D", "warnings"];
    let steps: [(&str, Command); 4] = [
        ("lint/format", cargo(&["fmt", "--all", "--check"])),
        ("lint/format-builtin-guest", manifest(cargo(&["fmt", "--check"]), &guest)),
        ("lint/clippy", {
            let mut command = cargo(&["clippy", "--workspace", "--all-targets"]);
            command.args(deny);
            command
        }),
        ("lint/clippy-builtin-guest", {
            let mut command = manifest(cargo(&["clippy"]), &guest);
            command.arg("--target-dir").arg(project::target().join("builtin-guest")).args(deny);
            command
        }),
    ];
    for (name, mut command) in steps {
        let start = Instant::now();
        let verdict = check(name, &mut command);
        report.add(name, verdict, start.elapsed());
    }
    let start = Instant::now();
    let verdict = house().unwrap_or_else(|error| Verdict::Failed(format!("{error:#}")));
    report.add("lint/house", verdict, start.elapsed());
}

fn cargo(words: &[&str]) -> Command {
    let mut command = project::cargo();
    command.args(words);
    command
}

fn manifest(mut command: Command, path: &Path) -> Command {
    command.arg("--manifest-path").arg(path);
    command
}

/// Rules that no tool knows: files are short and say at their top what they are for.
fn house() -> Result<Verdict> {
    let mut broken = 0;
    let mut files = Vec::new();
    collect(&project::root(), &mut files)?;
    for path in files {
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let name = path.strip_prefix(project::root()).unwrap_or(&path).display().to_string();
        let lines = text.lines().count();
        if lines > TOO_LONG_FILE {
            println!("    {name}: {lines} lines, at most {TOO_LONG_FILE} are allowed");
            broken += 1;
        } else if lines > LONG_FILE {
            println!("    {name}: {lines} lines; can it be two files?");
        }
        // A module of unit tests is for what stands beside it.
        if !name.ends_with("tests.rs") && !name.contains("/tests/") && !text.starts_with("//!") {
            println!("    {name}: the first line does not say what the file is for");
            broken += 1;
        }
    }
    Ok(match broken {
        0 => Verdict::Passed,
        count => Verdict::Failed(format!("{count} files break a rule of the house")),
    })
}

/// All Rust files of the project.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let mut entries = fs::read_dir(folder)
        .with_context(|| format!("cannot read {}", folder.display()))?
        .collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let kind = entry.file_type()?;
        if kind.is_dir() && name != "target" && !name.starts_with('.') {
            collect(&entry.path(), files)?;
        } else if kind.is_file() && Path::new(&*name).extension().is_some_and(|e| e == "rs") {
            files.push(entry.path());
        }
    }
    Ok(())
}
