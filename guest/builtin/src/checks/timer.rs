//! Time: the TSC goes forward, at the rate the monitor tells, and the local APIC's timer fires.

use alloc::format;

use super::Checked;
use crate::platform::{lapic::LocalApic, time};

const READS: u32 = 10_000;
/// How far told and measured frequency may differ: a loaded host blurs the measurement.
const TOLERANCE_PERCENT: u64 = 5;
const TIMER_TEST_COUNTS: u32 = 100_000;
const PATIENCE_SECONDS: u64 = 2;
const SECOND_COUNTS: u32 = 1_000_000_000;

pub(super) fn check(
    told: Option<u64>,
    measured: Option<u64>,
    lapic: Option<&LocalApic>,
) -> Checked {
    let mut last = time::now();
    for _ in 0..READS {
        let now = time::now();
        if now < last {
            return Err(format!("the TSC went back from {last} to {now}"));
        }
        last = now;
    }
    let measured = measured.ok_or("the ACPI PM timer does not count")?;
    let told = told.unwrap_or(measured);
    if told.abs_diff(measured) > told / 100 * TOLERANCE_PERCENT {
        return Err(format!("TSC of {told} Hz measures {measured} Hz"));
    }
    let lapic = lapic.ok_or("no local APIC")?;
    if !fires(lapic) {
        return Err("the local APIC's timer does not fire".into());
    }
    Ok(format!("TSC {} MHz", measured / 1_000_000))
}

/// Whether the local APIC's timer interrupts, by waiting for one; afterwards halting is safe.
pub(super) fn fires(lapic: &LocalApic) -> bool {
    lapic.arm_timer(TIMER_TEST_COUNTS);
    let fired = time::wait_for(PATIENCE_SECONDS, || lapic.timer_fired());
    if fired {
        lapic.halt(); // returns at once: the interrupt is there
    }
    fired
}

/// Halts for so many seconds. The timer is known to fire.
pub(super) fn sleep(lapic: &LocalApic, seconds: u64) {
    let end = time::now().saturating_add(time::counts(seconds));
    let second = time::counts(1).max(1);
    loop {
        let left = end.saturating_sub(time::now());
        if left == 0 {
            return;
        }
        let counts = u128::from(left) * u128::from(SECOND_COUNTS) / u128::from(second);
        lapic.arm_timer((counts as u64).clamp(1, u64::from(SECOND_COUNTS)) as u32);
        lapic.halt();
    }
}
