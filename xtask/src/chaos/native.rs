//! Chaos under the built-in guest.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, geteuid, kill_process};
use serde::Deserialize;

use super::violate::violate;
use super::{Dice, Ring, Toll};
use crate::project;

/// How a process dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Death {
    /// Killed from outside, by a fault of its own, or by not going on any more.
    Signal(Signal),
    /// By a system call that its policy forbids. Takes root.
    Violation,
}

const DEATHS: [Death; 4] = [
    Death::Signal(Signal::KILL),
    Death::Signal(Signal::SEGV),
    Death::Signal(Signal::STOP),
    Death::Violation,
];
/// Whose processes die.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Victim {
    /// A disk's, under a load that verifies.
    Disk,
    /// A network's that sends. Its frames end at a tap, which takes root.
    Network,
}

impl Victim {
    /// The built-in guest's check and load.
    fn words(self) -> &'static str {
        match self {
            Self::Disk => "check=blk blk=verify depth=32",
            Self::Network => "check=net net=send depth=32",
        }
    }

    /// The device.
    fn arguments(self, folder: &Path) -> Result<[String; 2]> {
        match self {
            Self::Disk => {
                let disk = folder.join("disk.img");
                File::create(&disk)?.set_len(DISK_BYTES)?;
                Ok(["--disk".into(), format!("path={}", disk.display())])
            }
            Self::Network => Ok(["--net".into(), "tap".into()]),
        }
    }
}

/// How long a run is, and what happens in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// The load lasts as long as this many lives, and as many pauses are reported.
    pub(super) lives: u32,
    /// How many of them end in a kill.
    pub(super) kills: u32,
    pub(super) ring: Ring,
}

/// A life lasts this long and up to as much again: long enough to count as one.
const LIFE_MS: u64 = 40;
/// How long a successor may take to be there.
const SUCCESSION: Duration = Duration::from_secs(10);
const DISK_BYTES: u64 = 64 << 20;

/// The line that the built-in guest writes with the word `json`.
#[derive(Deserialize)]
struct GuestReport {
    failed: u32,
    loads: Vec<LoadReport>,
    networks: Vec<NetworkReport>,
}

#[derive(Deserialize)]
struct LoadReport {
    errors: u64,
    verify_failures: u64,
    pauses_ns: Vec<u64>,
}

#[derive(Deserialize)]
struct NetworkReport {
    sent: u64,
    lost: u64,
    duplicates: u64,
    reordered: u64,
    checksum_errors: u64,
    pauses_ns: Vec<u64>,
}

impl GuestReport {
    /// What came of the load, if it ran to its end.
    fn into_load(mut self, victim: Victim) -> Option<LoadReport> {
        match victim {
            Victim::Disk => self.loads.pop(),
            Victim::Network => {
                let network = self.networks.pop().filter(|network| network.sent > 0)?;
                let NetworkReport { lost, duplicates, reordered, checksum_errors, .. } = network;
                let verify_failures = lost + duplicates + reordered + checksum_errors;
                Some(LoadReport { errors: 0, verify_failures, pauses_ns: network.pauses_ns })
            }
        }
    }
}

pub(super) fn run(vmm: &Path, victim: Victim, plan: Plan, dice: &mut Dice) -> Result<Toll> {
    let Plan { lives, kills, ring } = plan;
    let folder = project::target().join("chaos");
    std::fs::create_dir_all(&folder)?;
    // The mean life is one and a half times the shortest, a succession a few milliseconds.
    let seconds = u64::from(lives) * (LIFE_MS * 3 / 2 + 15) / 1000 + 2;
    let mut words = format!("json {} seconds={seconds} pauses={lives}", victim.words());
    if ring == Ring::Packed {
        words.push_str(" ring=packed");
    }
    let mut machine = Command::new(vmm)
        .args(["-v", "run", "-p", &words])
        .args(victim.arguments(&folder)?)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start vmm")?;
    let Watch { pids, violations } = watch(&mut machine)?;
    let result = torment(&pids, kills, dice);
    let mut output = String::new();
    machine.stdout.take().context("vmm has no output")?.read_to_string(&mut output)?;
    let status = machine.wait()?;
    let told = violations.join().map_err(|_| anyhow!("vmm's log cannot be read"))?;
    let Killed { kills: killed, violations } = result?;
    if told != violations {
        bail!("{violations} processes were made to violate their policy, the log tells of {told}");
    }
    let line = output.lines().find(|line| line.starts_with('{')).with_context(|| {
        format!("the guest reports nothing; vmm ended with {status}, its output:\n{output}")
    })?;
    let report: GuestReport =
        serde_json::from_str(line).context("cannot read the guest's report")?;
    let failed = report.failed;
    let Some(load) = report.into_load(victim) else {
        bail!("the guest's load ended before its time: {line}");
    };
    if !status.success() && load.errors + load.verify_failures == 0 {
        bail!("vmm ended with {status}, {failed} checks failed: {line}");
    }
    Ok(Toll {
        kills: killed,
        io_errors: load.errors,
        verify_failures: load.verify_failures,
        blackout_median_us: load.pauses_ns.get(lives as usize / 2).copied().unwrap_or(0) / 1000,
        blackout_max_us: load.pauses_ns.first().copied().unwrap_or(0) / 1000,
    })
}

/// What vmm's log tells.
struct Watch {
    /// The numbers of the processes that serve the device.
    pids: Receiver<i32>,
    /// At the end: how many died of a system call that their policy forbids.
    violations: JoinHandle<u32>,
}

fn watch(machine: &mut Child) -> Result<Watch> {
    let log = BufReader::new(machine.stderr.take().context("vmm has no log")?);
    let (sender, pids) = channel();
    let violations = thread::spawn(move || {
        let mut violations = 0;
        for line in log.lines().map_while(Result::ok) {
            if line.contains("its policy forbids") {
                violations += 1;
            }
            let pid = line.split("served by process ").nth(1).and_then(|pid| pid.parse().ok());
            match pid {
                // When nobody listens any more, the log is still read so that vmm does not stall.
                Some(pid) => drop(sender.send(pid)),
                None if line.contains("ERROR") => eprintln!("{line}"),
                None => {}
            }
        }
        violations
    });
    Ok(Watch { pids, violations })
}

/// What was done to processes.
#[derive(Default)]
struct Killed {
    kills: u32,
    violations: u32,
}

/// Those that this user can bring about.
fn deaths() -> &'static [Death] {
    if geteuid().is_root() {
        return &DEATHS;
    }
    eprintln!(
        "chaos: forbidden system calls are left out: it takes root to have a process make one"
    );
    DEATHS.split_last().map_or(&[], |(_violation, others)| others)
}

/// Kills `kills` processes in a row.
fn torment(pids: &Receiver<i32>, kills: u32, dice: &mut Dice) -> Result<Killed> {
    let deaths = deaths();
    let mut killed = Killed::default();
    for number in 0..kills {
        let pid = pids
            .recv_timeout(SUCCESSION)
            .with_context(|| format!("no process serves the device after {number} kills"))?;
        // The length of a life, not a wait for something.
        thread::sleep(Duration::from_millis(LIFE_MS + dice.below(LIFE_MS)));
        let death = deaths[dice.below(deaths.len() as u64) as usize];
        let pid = Pid::from_raw(pid).context("a process has number 0")?;
        let done = match death {
            Death::Signal(signal) => kill_process(pid, signal).map_err(Into::into),
            Death::Violation => violate(pid),
        };
        done.with_context(|| format!("{death:?} of process {pid:?} after {number} kills"))?;
        killed.violations += u32::from(death == Death::Violation);
        killed.kills += 1;
    }
    Ok(killed)
}
