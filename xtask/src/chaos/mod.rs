//! `cargo xtask chaos`: kills the processes of devices under load and counts what the guest noticed.
//!
//! ```text
//!   built-in guest, or Linux with fio in the bed ──load──► disk ◄── kill, by every means, N times
//!        └── I/O errors, verify failures, longest pauses ──► one line of JSON
//! ```
//!
//! A network's process is killed, too, while the built-in guest sends; its blackouts are not among those
//! that are reported.
//!
//! The built-in guest runs on this machine's KVM whatever that is; it reports the longest times
//! without a finished request. Each kill makes one such pause, which begins with the last request
//! that finished before it: a blackout and what led up to it. On a noisy machine other pauses are
//! among the longest, too, so the figures err on the side of too long; `--baseline` says what those are.

pub(crate) mod linux;
mod native;
mod violate;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use rustix::process::{Pid, geteuid};
use serde::Serialize;

use native::{Plan, Victim};

/// Kill device processes under load and count what guests notice
#[derive(Args)]
pub(crate) struct ChaosArguments {
    /// How often to kill a device's process under the built-in guest
    #[arg(long, default_value_t = 200)]
    kills: u32,
    /// Where the random delays and signals start from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How often to kill a network's process under the built-in guest; takes root
    #[arg(long, default_value_t = 20)]
    net_kills: u32,
    /// How often to kill it under Linux with fio, in the bed
    #[arg(long, default_value_t = 20)]
    linux_kills: u32,
    /// The format of the rings that the built-in guest asks for; Linux takes packed ones where it can
    #[arg(long, value_enum, default_value_t = Ring::Split)]
    ring: Ring,
    /// First run as long without kills, to tell this machine's own pauses from those of the kills
    #[arg(long)]
    baseline: bool,
    /// Only the built-in guest
    #[arg(long)]
    no_linux: bool,
    /// End with one line of JSON
    #[arg(long)]
    json: bool,
}

/// The format of virtqueues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Ring {
    Split,
    Packed,
}

/// What a run came to.
#[derive(Debug, Default, Serialize)]
struct Toll {
    kills: u32,
    io_errors: u64,
    verify_failures: u64,
    blackout_median_us: u64,
    blackout_max_us: u64,
}

/// Random numbers that a seed decides (xorshift64*).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) % bound
    }
}

pub(crate) fn run(arguments: &ChaosArguments) -> Result<ExitCode> {
    let vmm = crate::project::build_vmm()?;
    let dice = &mut Dice(arguments.seed.max(1));
    let plan = |lives| Plan { lives, kills: lives, ring: arguments.ring };
    if arguments.baseline {
        let calm = Plan { kills: 0, ..plan(arguments.kills) };
        let Toll { blackout_median_us, blackout_max_us, .. } =
            native::run(&vmm, Victim::Disk, calm, dice)?;
        eprintln!(
            "chaos: without kills, the {} longest pauses: median {blackout_median_us} us, longest \
             {blackout_max_us} us",
            arguments.kills
        );
    }
    let mut toll = native::run(&vmm, Victim::Disk, plan(arguments.kills), dice)?;
    eprintln!("chaos: built-in guest, disk: {toll:?}");
    if arguments.net_kills == 0 {
        // Not asked for.
    } else if geteuid().is_root() {
        let network = native::run(&vmm, Victim::Network, plan(arguments.net_kills), dice)?;
        eprintln!("chaos: built-in guest, network: {network:?}");
        toll.kills += network.kills;
        toll.verify_failures += network.verify_failures;
    } else {
        eprintln!("chaos: networks are left out: it takes root to make a tap");
    }
    if !arguments.no_linux {
        let status = linux::run(arguments.linux_kills)?;
        if status == 0 {
            toll.kills += arguments.linux_kills;
        } else {
            eprintln!("chaos: Linux with fio noticed the kills: status {status}");
            toll.io_errors += 1;
        }
    }
    if arguments.json {
        println!("{}", serde_json::to_string(&toll)?);
    }
    Ok(if toll.io_errors + toll.verify_failures == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Has a process make a system call that its policy forbids.
pub(crate) fn violate(pid: i32) -> Result<ExitCode> {
    let pid =
        Pid::from_raw(pid).filter(|pid| !pid.is_init()).context("not a process to violate")?;
    violate::violate(pid)?;
    Ok(ExitCode::SUCCESS)
}
