//! What it costs to leave a guest.

use std::io;
use std::time::Duration;

use kvm_ioctls::{IoEventAddress, Kvm, NoDatamatch};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::error::BenchError;
use super::trial::{Trial, TrialResults, Way, run_trials};
use crate::kvm::tiny::{PORT, TinyGuest, TinyGuestError, Turn};

/// Enough on a processor; an emulated one needs half a second for the dearest.
const TURNS: u64 = 20_000;

/// Measures; this needs KVM.
pub fn run_exits(rounds: u32, progress: &dyn Fn(&str)) -> Result<TrialResults, BenchError> {
    let kvm = Kvm::new().map_err(|error| BenchError::host("open /dev/kvm")(error.into()))?;
    let guest = |turn| TinyGuest::new(&kvm, turn).map_err(failed);
    // Nobody reads it: a write to it costs the same, however often it was written.
    let kick = EventFd::new(EFD_NONBLOCK).map_err(BenchError::host("make an eventfd"))?;
    let (nothing, cpuid, kicks) = (guest(Turn::Nothing)?, guest(Turn::Cpuid)?, guest(Turn::Port)?);
    kicks
        .vm()
        .register_ioevent(&kick, &IoEventAddress::Pio(PORT.into()), NoDatamatch)
        .map_err(|error| BenchError::host("have KVM take kicks")(error.into()))?;
    let (port, mmio) = (guest(Turn::Port)?, guest(Turn::Mmio)?);
    let trial = |what: &'static str, guest: TinyGuest| Trial {
        what: what.into(),
        operations: TURNS,
        ways: vec![Way::new("kvm", run(guest))],
    };
    let trials = vec![
        trial("a turn without an exit", nothing),
        trial("CPUID, which KVM answers", cpuid),
        trial("a kick through an ioeventfd", kicks),
        trial("a byte to a port of the VMM", port),
        trial("a word to MMIO of the VMM", mmio),
    ];
    run_trials(trials, rounds, progress)
}

fn run(mut guest: TinyGuest) -> impl FnMut(u64) -> Result<Duration, BenchError> {
    move |turns| guest.run(u32::try_from(turns).unwrap_or(u32::MAX)).map_err(failed)
}

fn failed(error: TinyGuestError) -> BenchError {
    BenchError::host("run a guest of a few instructions")(io::Error::other(error))
}
