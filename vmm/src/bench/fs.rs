//! Directories: rounds in which each contestant serves the programs of a guest.

use std::fmt::Write as _;

use loadgen::virtio_fs::{Direction, FsAmounts, FsProgram, FsTree, VirtioFs};
use loadgen::{Figures, SystemCalls};
use serde::Serialize;

use super::contestant::{Contestant, Service};
use super::error::BenchError;
use super::result::{Measured, fastest, rounded};
use crate::folder::Folder;

/// What is to be measured.
#[derive(Debug)]
pub struct FsBench {
    /// The folder that all serve.
    pub tree: FsTree,
    /// How much programs do there.
    pub amounts: FsAmounts,
    /// Which of them.
    pub kinds: Vec<ProgramKind>,
    /// Rounds.
    pub rounds: u32,
    /// Whom to hold ours against.
    pub against: Vec<Contestant>,
}

/// All contestants with one program.
#[derive(Debug, Clone)]
pub struct FsResult {
    /// What it is called.
    pub name: String,
    /// Our own back end.
    pub ours: Measured,
    /// Those of others.
    pub peers: Vec<Measured>,
}

/// All programs.
#[derive(Debug, Clone)]
pub struct FsResults {
    /// What was done, in words.
    pub workload: String,
    /// By program.
    pub results: Vec<FsResult>,
}

/// Programs that are measured together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ProgramKind {
    /// `git status`, twice
    Status,
    /// `git diff`
    Diff,
    /// `tar c`
    Tar,
    /// Making and removing files
    Create,
    /// All of a large file, read and written
    Sequential,
    /// 4 KiB anywhere, read and written
    Random,
}

/// In this order, in one session.
const PROGRAMS: [(ProgramKind, &str, FsProgram); 12] = [
    (ProgramKind::Status, "git status", FsProgram::Status),
    (ProgramKind::Status, "git status again", FsProgram::Status),
    (ProgramKind::Diff, "git diff", FsProgram::Diff),
    (ProgramKind::Tar, "tar c", FsProgram::Tar),
    (ProgramKind::Create, "create", FsProgram::Create),
    (ProgramKind::Create, "remove", FsProgram::Remove),
    (ProgramKind::Sequential, "sequential read", FsProgram::Sequential(Direction::Read)),
    (ProgramKind::Sequential, "sequential write", FsProgram::Sequential(Direction::Write)),
    (ProgramKind::Random, "random read", FsProgram::Random(Direction::Read, 1)),
    (ProgramKind::Random, "random read, 16 at a time", FsProgram::Random(Direction::Read, 16)),
    (ProgramKind::Random, "random write", FsProgram::Random(Direction::Write, 1)),
    (ProgramKind::Random, "random write, 16 at a time", FsProgram::Random(Direction::Write, 16)),
];

/// Measures; says with each run who is running.
pub fn run_fs(bench: &FsBench, progress: &dyn Fn(&str)) -> Result<FsResults, BenchError> {
    progress(&format!("making {}", bench.tree.path.display()));
    let failed = |source| BenchError::File { path: bench.tree.path.clone(), source };
    bench.tree.prepare().and_then(|()| bench.tree.warm()).map_err(failed)?;
    let folder = Folder::create().map_err(BenchError::host("make a folder for sockets"))?;
    let ours = Contestant::our_directory()?;
    let contestants: Vec<_> = std::iter::once(&ours).chain(&bench.against).collect();
    let wanted = |(kind, ..): &&(ProgramKind, _, _)| bench.kinds.contains(kind);
    let (names, programs): (Vec<_>, Vec<_>) =
        PROGRAMS.iter().filter(wanted).map(|(_, name, program)| (*name, *program)).unzip();
    // By contestant, by program.
    let mut rounds = vec![vec![Vec::new(); programs.len()]; contestants.len()];
    for round in 1..=bench.rounds {
        for (contestant, rounds) in contestants.iter().zip(&mut rounds) {
            progress(&format!("round {round} of {}: {}", bench.rounds, contestant.name));
            let figures = serve(bench, contestant, &programs, SystemCalls::Uncounted, &folder)?;
            for (rounds, figures) in rounds.iter_mut().zip(figures) {
                rounds.push(figures);
            }
        }
    }
    for (contestant, rounds) in contestants.iter().zip(&mut rounds) {
        progress(&format!("system calls: {}", contestant.name));
        let figures = serve(bench, contestant, &programs, SystemCalls::Counted, &folder)?;
        for (rounds, counted) in rounds.iter_mut().zip(figures) {
            for figures in rounds {
                figures.cost.system_calls = counted.cost.system_calls;
                figures.counted = Some(counted.operations);
            }
        }
    }
    let result = |(index, name): (usize, &&str)| {
        let mut measured = contestants
            .iter()
            .zip(&mut rounds)
            .filter_map(|(who, rounds)| Measured::of(&who.name, std::mem::take(&mut rounds[index])))
            .collect::<Vec<_>>()
            .into_iter();
        Some(FsResult { name: (*name).into(), ours: measured.next()?, peers: measured.collect() })
    };
    let FsTree { files, large, path } = &bench.tree;
    let workload = format!(
        "{files} files and one of {} MiB in {}, {} files made and removed, {} random requests; medians of {} \
         rounds",
        large >> 20,
        path.display(),
        bench.amounts.new,
        bench.amounts.random,
        bench.rounds
    );
    Ok(FsResults { workload, results: names.iter().enumerate().filter_map(result).collect() })
}

/// One session with a back end that is started for it.
fn serve(
    bench: &FsBench,
    contestant: &Contestant,
    programs: &[FsProgram],
    calls: SystemCalls,
    folder: &Folder,
) -> Result<Vec<Figures>, BenchError> {
    let path = &bench.tree.path;
    let failed = |source| BenchError::File { path: path.clone(), source };
    let path = path.canonicalize().map_err(failed)?;
    let what = path.display().to_string();
    let (mut service, connection) = contestant.start(&what, &folder.file("socket"), 1)?;
    let load = VirtioFs::new(connection, bench.amounts)
        .and_then(|driver| driver.run(&bench.tree, programs, service.process(), calls));
    Service::judge(std::slice::from_mut(&mut service), contestant, load)
}

/// One contestant, for machines.
#[derive(Debug, Serialize)]
struct Line<'a> {
    name: &'a str,
    per_second: u64,
    per_second_min: u64,
    per_second_max: u64,
    p50_us: f64,
    p99_us: f64,
    cpu_us: f64,
    syscalls: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Entry<'a> {
    program: &'a str,
    /// Ours to the fastest peer.
    ratio_peer: Option<f64>,
    ours: Line<'a>,
    peers: Vec<Line<'a>>,
}

impl<'a> From<&'a Measured> for Line<'a> {
    fn from(measured: &'a Measured) -> Self {
        let (slowest, fastest) = measured.spread();
        Self {
            name: &measured.name,
            per_second: measured.rate() as u64,
            per_second_min: slowest as u64,
            per_second_max: fastest as u64,
            p50_us: measured.percentile_us(50.0),
            p99_us: measured.percentile_us(99.0),
            cpu_us: rounded(measured.cpu_us()),
            syscalls: measured.system_calls().map(rounded),
        }
    }
}

impl<'a> From<&'a FsResult> for Entry<'a> {
    fn from(result: &'a FsResult) -> Self {
        Self {
            program: &result.name,
            ratio_peer: result.ratio().map(rounded),
            ours: (&result.ours).into(),
            peers: result.peers.iter().map(Line::from).collect(),
        }
    }
}

impl FsResult {
    /// Our rate to that of the fastest peer.
    pub fn ratio(&self) -> Option<f64> {
        fastest(&self.peers).map(|best| self.ours.rate() / best.rate())
    }
}

impl FsResults {
    /// One line of JSON.
    pub fn json(&self) -> String {
        let results: Vec<_> = self.results.iter().map(Entry::from).collect();
        serde_json::json!({ "results": results }).to_string()
    }

    /// A table for readers.
    pub fn table(&self) -> String {
        let mut text = format!("{}\n\n", self.workload);
        text += "program                     contestant             per second   seconds     p50 us     p99 us     \
                 CPU us     calls   ours\n";
        for result in &self.results {
            for measured in std::iter::once(&result.ours).chain(&result.peers) {
                let name = &measured.name;
                let calls =
                    measured.system_calls().map_or("-".into(), |calls| format!("{calls:.2}"));
                let _ = writeln!(
                    text,
                    "{:<27} {name:<20} {:>12.0} {:>9.3} {:>10.1} {:>10.1} {:>10.2} {calls:>9} {:>6.2}",
                    result.name,
                    measured.rate(),
                    measured.seconds(),
                    measured.percentile_us(50.0),
                    measured.percentile_us(99.0),
                    measured.cpu_us(),
                    result.ours.rate() / measured.rate(),
                );
            }
        }
        text
    }
}
