//! `cargo xtask coverage`: which lines the kept inputs of the fuzz targets reach.

mod counted;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::{Deserialize, Serialize};

use self::counted::{BAR, PARTS};
use crate::project;

/// Say which lines of the devices the kept inputs of the fuzz targets reach
///
/// Of virtqueues and of what each device reads it must be more than 90 %, or the command fails. Takes llvm-cov of
/// the toolchain (`rustup component add llvm-tools`).
#[derive(Args)]
pub(crate) struct CoverageArguments {
    /// Say it of the files of a folder of the project instead, or of one file
    part: Option<PathBuf>,
    /// Name the lines that are not reached
    #[arg(long)]
    missing: bool,
    /// End with one line of JSON
    #[arg(long, conflicts_with = "part")]
    json: bool,
}

/// What serves tests, or the other side.
const NOT_COUNTED: &[&str] = &["/tests/", "tests.rs", "/driver/", "test_bed.rs", "front_end.rs"];

pub(crate) fn run(arguments: &CoverageArguments) -> Result<ExitCode> {
    let tools = tools()?;
    let folder = project::target().join("coverage");
    let program = build(&folder)?;
    let raw = folder.join("kept.profraw");
    let mut test = Command::new(&program);
    test.args(["--quiet", "kept_inputs"]).current_dir(project::root().join("fuzz"));
    project::run(test.env("LLVM_PROFILE_FILE", &raw).stdout(Stdio::null()))?;
    let merged = folder.join("kept.profdata");
    let mut merge = Command::new(tools.join("llvm-profdata"));
    project::run(merge.args(["merge", "-sparse", "-o"]).arg(&merged).arg(&raw))?;
    let profile = format!("-instr-profile={}", merged.display());
    if arguments.missing {
        return missing(&tools, &profile, &program, arguments.part.as_deref());
    }
    let mut export = Command::new(tools.join("llvm-cov"));
    export.args(["export", "-summary-only", &profile]).arg(&program);
    let report: Report = serde_json::from_slice(&project::output(&mut export)?)?;
    let files = report.files();
    if let Some(part) = &arguments.part {
        print_folders(&files, part);
        return Ok(ExitCode::SUCCESS);
    }
    let summary = summary(&files)?;
    if arguments.json {
        println!("{}", serde_json::to_string(&summary)?);
    }
    Ok(if summary.reached { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn missing(tools: &Path, profile: &str, program: &Path, part: Option<&Path>) -> Result<ExitCode> {
    let mut show = Command::new(tools.join("llvm-cov"));
    show.args(["show", profile]).arg(program);
    match part {
        Some(part) => {
            show.arg(project::root().join(part));
        }
        None => {
            let files =
                PARTS.iter().flat_map(|part| part.files.iter().map(move |file| (part, file)));
            show.args(files.map(|(part, file)| project::root().join(part.folder).join(file)));
        }
    }
    let shown = String::from_utf8_lossy(&project::output(&mut show)?).into_owned();
    shown.lines().filter(|line| is_missed(line)).for_each(|line| println!("{line}"));
    Ok(ExitCode::SUCCESS)
}

/// Names of files, and lines that ran zero times.
fn is_missed(line: &str) -> bool {
    let mut fields = line.split('|').map(str::trim);
    line.ends_with(".rs:") || (fields.next().is_some() && fields.next() == Some("0"))
}

fn tools() -> Result<PathBuf> {
    let mut rustc = Command::new("rustc");
    let sysroot = project::output(rustc.args(["--print", "sysroot"]))?;
    let sysroot = PathBuf::from(String::from_utf8_lossy(&sysroot).trim());
    let tools = sysroot.join("lib/rustlib").join(project::host_triple()).join("bin");
    if !tools.join("llvm-cov").exists() {
        bail!("there is no llvm-cov in {}: `rustup component add llvm-tools`", tools.display());
    }
    Ok(tools)
}

#[derive(Deserialize)]
struct Built {
    executable: Option<PathBuf>,
}

/// The test that runs the kept inputs, with counters.
fn build(folder: &Path) -> Result<PathBuf> {
    let mut cargo = project::cargo();
    cargo.args(["test", "--package", "fuzz", "--test", "corpus", "--no-run"]);
    cargo.arg("--message-format=json-render-diagnostics").stderr(Stdio::inherit());
    cargo.env("CARGO_TARGET_DIR", folder).env("RUSTFLAGS", "-Cinstrument-coverage");
    // Build scripts and macros are counted as well, and nobody wants to know.
    cargo.env("LLVM_PROFILE_FILE", "/dev/null");
    let said = project::output(&mut cargo)?;
    let said = String::from_utf8_lossy(&said);
    let built = said.lines().filter_map(|line| serde_json::from_str::<Built>(line).ok());
    built.filter_map(|built| built.executable).next_back().context("cargo built no test")
}

#[derive(Deserialize)]
struct Report {
    data: Vec<Program>,
}

#[derive(Deserialize)]
struct Program {
    files: Vec<FileReport>,
}

#[derive(Deserialize)]
struct FileReport {
    filename: PathBuf,
    summary: Counts,
}

#[derive(Deserialize)]
struct Counts {
    lines: Lines,
}

/// The project's files by name.
type Files = BTreeMap<PathBuf, Lines>;

impl Report {
    fn files(&self) -> Files {
        let root = project::root();
        let files = self.data.iter().flat_map(|program| &program.files);
        let named = files.filter_map(|file| {
            let name = file.filename.strip_prefix(&root).ok()?;
            Some((name.to_owned(), file.summary.lines))
        });
        named.collect()
    }
}

#[derive(Clone, Copy, Default, Deserialize)]
struct Lines {
    count: u64,
    covered: u64,
}

impl Lines {
    fn add(&mut self, other: Self) {
        self.count += other.count;
        self.covered += other.covered;
    }

    fn percent(self) -> f64 {
        if self.count == 0 { 100.0 } else { 100.0 * self.covered as f64 / self.count as f64 }
    }
}

/// What `--json` says.
#[derive(Serialize)]
struct Summary {
    lines: u64,
    covered: u64,
    percent: f64,
    /// Whether each part is over the bar.
    reached: bool,
    parts: Vec<PartSummary>,
}

#[derive(Serialize)]
struct PartSummary {
    name: &'static str,
    lines: u64,
    covered: u64,
    percent: f64,
}

/// The files that count, then what they come to.
fn summary(files: &Files) -> Result<Summary> {
    let (mut all, mut parts) = (Lines::default(), Vec::new());
    for part in PARTS {
        let mut sum = Lines::default();
        for file in part.files {
            let name = Path::new(part.folder).join(file);
            let Some(lines) = files.get(&name) else {
                bail!("there is no {} any more: mend coverage/counted.rs", name.display());
            };
            say(&name.to_string_lossy(), *lines);
            sum.add(*lines);
        }
        all.add(sum);
        parts.push((part.name, sum));
    }
    println!();
    for (name, lines) in &parts {
        say(name, *lines);
    }
    say("all", all);
    let reached = parts.iter().all(|(_, lines)| lines.percent() > BAR);
    if !reached {
        println!("not every part is over {BAR:.0} %");
    }
    let parts = parts.into_iter().map(|(name, lines)| PartSummary {
        name,
        lines: lines.count,
        covered: lines.covered,
        percent: lines.percent(),
    });
    let (lines, covered, percent) = (all.count, all.covered, all.percent());
    Ok(Summary { lines, covered, percent, reached, parts: parts.collect() })
}

/// Files, then their folders, then all.
fn print_folders(files: &Files, part: &Path) {
    let (mut folders, mut all) = (BTreeMap::<PathBuf, Lines>::new(), Lines::default());
    for (name, lines) in files {
        let text = name.to_string_lossy();
        if !name.starts_with(part) || NOT_COUNTED.iter().any(|other| text.contains(other)) {
            continue;
        }
        say(&text, *lines);
        folders.entry(name.parent().unwrap_or(name).to_owned()).or_default().add(*lines);
        all.add(*lines);
    }
    println!();
    for (folder, lines) in &folders {
        say(&format!("{}/", folder.display()), *lines);
    }
    say("all", all);
}

fn say(what: &str, lines: Lines) {
    println!("{:>6.1} % of {:>5} lines  {what}", lines.percent(), lines.count);
}
