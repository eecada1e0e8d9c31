//! `cargo xtask test`: everything that can be tested here.

use std::fs;
use std::num::NonZero;
use std::process::{Command, ExitCode};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;

use crate::bed::counts::Counts;
use crate::bed::host::{Host, Kind};
use crate::bed::protocol::Ending;
use crate::bed::session::Outcome;
use crate::bed::{Missing, counts, crates, later, native, systems};
use crate::report::{Report, Verdict, log_file, read_log, run_logged, show_end};
use crate::suites::{self, Case, Place};
use crate::{lint, project, runner, sim};

/// More at a time have not been tried.
const MOST_HOSTS: usize = 2;

/// Runs all tests: lint, unit tests, the built-in guest, and stock Linux in the bed
///
/// Prints what was skipped and why; what each case printed is kept in target/test-logs.
#[derive(Args)]
pub(crate) struct TestArguments {
    /// Leaves out what needs the bed
    #[arg(long)]
    no_bed: bool,
    /// Takes the release vmm as it is
    #[arg(long)]
    no_build: bool,
    /// Also the cases that take minutes each
    #[arg(long)]
    long: bool,
    /// Emulated hosts that run cases side by side [default: by processors and memory, at most 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=16))]
    hosts: Option<u8>,
    /// Only the cases whose names contain this, such as lint, unit, builtin, bed/boot
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
}

/// Runs all tests and prints the totals.
pub(crate) fn run(arguments: &TestArguments) -> ExitCode {
    let start = Instant::now();
    let mut report = Report::default();
    // `lint` stands for its steps, `bed/boot` for its cases.
    let wanted = |name: &str| match &arguments.only {
        Some(only) => name.contains(only.as_str()) || only.starts_with(&format!("{name}/")),
        None => true,
    };
    if wanted("lint") {
        lint::run_into(&mut report);
    }
    if wanted("unit") {
        runner::run_into(&mut report);
    }
    if wanted("sim") {
        sim::run_into(&mut report);
    }
    let cases: Vec<Case> =
        suites::all().into_iter().filter(|case| wanted(&format!("bed/{}", case.name))).collect();
    // Whoever names cases wants them, however long they take.
    let (cases, put_off): (Vec<Case>, Vec<Case>) = cases
        .into_iter()
        .partition(|case| !case.long || arguments.long || arguments.only.is_some());
    let mut bed_reason = arguments.no_bed.then(|| "--no-bed was given".to_owned());
    if wanted("builtin") || (!cases.is_empty() && bed_reason.is_none()) {
        if arguments.no_build || build(&mut report) {
            if wanted("builtin") {
                builtin_guest(&mut report);
            }
        } else {
            bed_reason = Some("the release vmm does not build".into());
        }
    }
    match bed_reason {
        Some(reason) => {
            for case in cases {
                let verdict = Verdict::Skipped(reason.clone());
                report.add(&format!("bed/{}", case.name), verdict, Duration::ZERO);
            }
        }
        None if cases.is_empty() => {}
        None => bed(&mut report, &cases, arguments.hosts.map_or_else(hosts_here, usize::from)),
    }
    for case in put_off {
        let verdict = Verdict::Skipped("takes minutes; --long runs it".into());
        report.add(&format!("bed/{}", case.name), verdict, Duration::ZERO);
    }
    report.finish(start)
}

/// Builds the release `vmm`; says whether it is there.
fn build(report: &mut Report) -> bool {
    let start = Instant::now();
    let verdict = verdict_of(project::build_vmm().map(|_| Verdict::Passed));
    let there = matches!(verdict, Verdict::Passed);
    report.add("build/release", verdict, start.elapsed());
    there
}

fn verdict_of(result: Result<Verdict>) -> Verdict {
    result.unwrap_or_else(|error| Verdict::Failed(format!("{error:#}")))
}

/// The built-in guest on this machine, whatever its KVM is.
fn builtin_guest(report: &mut Report) {
    let name = "builtin/all-checks";
    let start = Instant::now();
    if let native::Verdict::Unusable(reason) = native::probe() {
        return report.add(name, Verdict::Skipped(reason), start.elapsed());
    }
    let result = run_logged(name, Command::new(project::vmm_binary()).arg("run"));
    let verdict = result.map(|(status, text)| {
        let last = text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default().trim();
        if status.success() && last.starts_with("builtin: ") && last.ends_with(" passed, 0 failed")
        {
            return Verdict::Passed;
        }
        show_end(&text);
        Verdict::Failed(format!("{status}, the last line is {last:?}"))
    });
    report.add(name, verdict_of(verdict), start.elapsed());
}

/// An emulated host keeps one processor busy.
fn hosts_here() -> usize {
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    processors.min(crate::bed::hosts_in_memory()).clamp(1, MOST_HOSTS)
}

/// All cases on some hosts, each of which takes the next one when it is done; a lost host is replaced.
fn bed(report: &mut Report, cases: &[Case], hosts: usize) {
    let before = Counts::load();
    let start = Instant::now();
    // Alone, as it may have to build what all need.
    let first = match Host::open() {
        Ok(host) => host,
        Err(error) => return without_bed(report, cases, &error, start),
    };
    let hosts = if first.kind() == Kind::Native { 1 } else { hosts.min(cases.len()) };
    println!("the bed's cases run {}, {hosts} at a time", first.kind());
    let (waiting, report) = (Mutex::new(cases.iter()), Mutex::new(report));
    let work = |mut host: Host| {
        // In a function of its own: the lock is not held while the case runs.
        let next = || lock(&waiting).next();
        while let Some(case) = next() {
            let name = format!("bed/{}", case.name);
            let start = Instant::now();
            let verdict = verdict_of(run_case(&name, case, &mut host));
            let mut report = lock(&report);
            if let (Verdict::Failed(_), Ok(text)) = (&verdict, read_log(&name)) {
                show_end(&text);
            }
            report.add(&name, verdict, start.elapsed());
        }
    };
    thread::scope(|scope| {
        for _ in 1..hosts {
            scope.spawn(|| match Host::open() {
                Ok(host) => work(host),
                Err(error) => eprintln!("the bed goes on with fewer hosts: {error:#}"),
            });
        }
        work(first);
    });
    println!("the bed: {}", counts::Counts::load().since(before));
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// No case can run: one failure, or none when only root could have installed what is missing.
fn without_bed(report: &mut Report, cases: &[Case], error: &anyhow::Error, start: Instant) {
    let mut reason = format!("{error:#}");
    if !error.is::<Missing>() {
        report.add("bed", Verdict::Failed(reason), start.elapsed());
        reason = "there is no bed".into();
    }
    for case in cases {
        let verdict = Verdict::Skipped(reason.clone());
        report.add(&format!("bed/{}", case.name), verdict, Duration::ZERO);
    }
}

fn run_case(name: &str, case: &Case, host: &mut Host) -> Result<Verdict> {
    let log = log_file(name)?;
    let mut output = Vec::new();
    let needed = crates::ensure(case.crates)
        .and_then(|()| later::ensure(case.later))
        .and_then(|()| systems::ensure(case.systems));
    if let Err(error) = needed {
        return Ok(Verdict::Skipped(format!("{error:#}")));
    }
    let outcome = match case.place {
        Place::Host => host.run(&case.script(), case.timeout, &mut output),
        Place::Here => Host::run_beside(&case.script(), case.timeout, &mut output),
    };
    fs::write(&log, &output).with_context(|| format!("cannot write {}", log.display()))?;
    let text = String::from_utf8_lossy(&output);
    let last = text.lines().next_back().unwrap_or_default().trim().to_owned();
    let verdict = match outcome {
        Ok(Outcome::Ended(Ending::Exited(0))) => Verdict::Passed,
        Ok(Outcome::Ended(Ending::Exited(suites::SKIPPED))) => Verdict::Skipped(last),
        Ok(Outcome::Ended(Ending::Exited(code))) => {
            Verdict::Failed(format!("{} (status {code})", last.trim_start_matches("FAILED: ")))
        }
        Ok(Outcome::Ended(ending)) => Verdict::Failed(format!("{ending:?}")),
        Ok(Outcome::TimedOut) => {
            Verdict::Failed(format!("timed out after {} s", case.timeout.as_secs()))
        }
        Err(error) => Verdict::Failed(format!("the host was lost: {error:#}")),
    };
    Ok(verdict)
}
