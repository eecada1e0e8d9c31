//! How fast this KVM runs kernel code.

use std::time::Duration;

use kvm_ioctls::Kvm;

use crate::kvm::tiny::{TinyGuest, TinyGuestError, Turn};

/// About 20 ms in an emulator; too few to say more of a processor than that it is none.
const FIRST_TURNS: u32 = 10_000;

/// About 1 ms on a processor, which drowns the cost of entering and leaving the guest.
const FURTHER_TURNS: u32 = 2_000_000;

/// A first run that takes longer than this is a measurement already.
const LONG_ENOUGH: Duration = Duration::from_millis(2);

/// The first guest of a fresh host pays for what the host sets up once; the best of these counts.
const ATTEMPTS: usize = 3;

/// A processor; no emulator comes near.
const SURELY_NATIVE_MIPS: f64 = 200.0;

/// Runs a loop and gives millions of instructions per second.
pub(super) fn measure(kvm: &Kvm) -> Result<f64, TinyGuestError> {
    let mut best = measure_once(kvm)?;
    for _ in 1..ATTEMPTS {
        if best >= SURELY_NATIVE_MIPS {
            break;
        }
        best = best.max(measure_once(kvm)?);
    }
    Ok(best)
}

fn measure_once(kvm: &Kvm) -> Result<f64, TinyGuestError> {
    let mut guest = TinyGuest::new(kvm, Turn::Nothing)?;
    let first = guest.run(FIRST_TURNS)?;
    if first > LONG_ENOUGH {
        return Ok(mips(FIRST_TURNS, first));
    }
    Ok(mips(FURTHER_TURNS, guest.run(FURTHER_TURNS)?))
}

fn mips(turns: u32, elapsed: Duration) -> f64 {
    let instructions = f64::from(turns) * f64::from(Turn::Nothing.instructions());
    instructions / elapsed.as_secs_f64().max(1e-9) / 1e6
}
