//! Chaos under the built-in guest.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;

use super::{Dice, Toll};
use crate::project;

/// How a process dies: killed from outside, by a fault of its own, by a system call that its policy
/// forbids (as the kernel says it), and by not going on any more.
const DEATHS: [Signal; 4] = [Signal::KILL, Signal::SEGV, Signal::SYS, Signal::STOP];
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
}

#[derive(Deserialize)]
struct LoadReport {
    errors: u64,
    verify_failures: u64,
    pauses_ns: Vec<u64>,
}

pub(super) fn run(vmm: &Path, kills: u32, mut dice: Dice) -> Result<Toll> {
    let folder = project::target().join("chaos");
    std::fs::create_dir_all(&folder)?;
    let disk = folder.join("disk.img");
    std::fs::File::create(&disk)?.set_len(DISK_BYTES)?;

    // The mean life is one and a half times the shortest, a succession a few milliseconds.
    let seconds = u64::from(kills) * (LIFE_MS * 3 / 2 + 15) / 1000 + 2;
    let words = format!("json check=blk blk=verify depth=32 seconds={seconds} pauses={kills}");
    let mut machine = Command::new(vmm)
        .args(["-v", "run", "-p", &words, "--disk"])
        .arg(format!("path={}", disk.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start vmm")?;
    let pids = watch(&mut machine)?;
    let result = torment(&pids, kills, &mut dice);
    let mut output = String::new();
    machine.stdout.take().context("vmm has no output")?.read_to_string(&mut output)?;
    let status = machine.wait()?;
    let killed = result?;
    let line = output.lines().find(|line| line.starts_with('{')).with_context(|| {
        format!("the guest reports nothing; vmm ended with {status}, its output:\n{output}")
    })?;
    let report: GuestReport =
        serde_json::from_str(line).context("cannot read the guest's report")?;
    let Some(load) = report.loads.first() else {
        bail!("the guest's load ended before its time: {line}");
    };
    if !status.success() && load.errors + load.verify_failures == 0 {
        bail!("vmm ended with {status}, {} checks failed: {line}", report.failed);
    }
    Ok(Toll {
        kills: killed,
        io_errors: load.errors,
        verify_failures: load.verify_failures,
        blackout_median_us: load.pauses_ns.get(killed as usize / 2).copied().unwrap_or(0) / 1000,
        blackout_max_us: load.pauses_ns.first().copied().unwrap_or(0) / 1000,
    })
}

/// Reads vmm's log and passes on the numbers of the processes that serve the disk.
fn watch(machine: &mut Child) -> Result<Receiver<i32>> {
    let log = BufReader::new(machine.stderr.take().context("vmm has no log")?);
    let (sender, pids) = channel();
    thread::spawn(move || {
        for line in log.lines().map_while(Result::ok) {
            let pid = line.split("served by process ").nth(1).and_then(|pid| pid.parse().ok());
            match pid {
                // When nobody listens any more, the log is still read so that vmm does not stall.
                Some(pid) => drop(sender.send(pid)),
                None if line.contains("ERROR") => eprintln!("{line}"),
                None => {}
            }
        }
    });
    Ok(pids)
}

/// Kills `kills` processes in a row; returns how many there were.
fn torment(pids: &Receiver<i32>, kills: u32, dice: &mut Dice) -> Result<u32> {
    for number in 0..kills {
        let pid = pids
            .recv_timeout(SUCCESSION)
            .with_context(|| format!("no process serves the disk after {number} kills"))?;
        // The length of a life, not a wait for something.
        thread::sleep(Duration::from_millis(LIFE_MS + dice.below(LIFE_MS)));
        let death = DEATHS[dice.below(DEATHS.len() as u64) as usize];
        let pid = Pid::from_raw(pid).context("a process has number 0")?;
        kill_process(pid, death)
            .with_context(|| format!("cannot kill process {pid:?} after {number} kills"))?;
    }
    Ok(kills)
}
