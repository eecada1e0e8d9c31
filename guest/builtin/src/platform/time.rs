//! Time: the TSC, and what its frequency is measured by.

use core::{
    arch::x86_64::_rdtsc,
    hint::spin_loop,
    sync::atomic::{AtomicU64, Ordering},
};

use super::{ports, services};

/// Counts of the ACPI power management timer in a second.
const PM_TIMER_HZ: u64 = 3_579_545;
/// What every PM timer has; some have 32.
const PM_TIMER_MASK: u32 = 0x00ff_ffff;
/// TSC counts between two looks at the PM timer: 5 to 20 ms.
const MEASURE_COUNTS: u64 = 20_000_000;
/// A frequency for time limits before the real one is known: limits get longer, not shorter.
const FASTEST_TSC_HZ: u64 = 5_000_000_000;

const HYPERVISOR_LEAF: u32 = 0x4000_0000;
/// Where hypervisors give the frequency of the TSC in kHz, in EAX.
const HYPERVISOR_TIMING_LEAF: u32 = 0x4000_0010;

static TSC_HZ: AtomicU64 = AtomicU64::new(0);

/// The time stamp counter.
#[inline]
pub(crate) fn now() -> u64 {
    // SAFETY: the TSC can be read in ring 3: CR4.TSD is clear.
    unsafe { _rdtsc() }
}

/// TSC counts of so many seconds.
pub(crate) fn counts(seconds: u64) -> u64 {
    frequency().unwrap_or(FASTEST_TSC_HZ).saturating_mul(seconds)
}

/// TSC counts of so many milliseconds.
pub(crate) fn counts_of_milliseconds(milliseconds: u64) -> u64 {
    frequency().unwrap_or(FASTEST_TSC_HZ).saturating_mul(milliseconds) / 1000
}

/// The frequency of the TSC in Hz, once it is known.
pub(crate) fn frequency() -> Option<u64> {
    Some(TSC_HZ.load(Ordering::Relaxed)).filter(|hz| *hz != 0)
}

pub(crate) fn set_frequency(hz: u64) {
    TSC_HZ.store(hz, Ordering::Relaxed);
}

/// Spins for so many seconds, or longer where the frequency is unknown.
pub(crate) fn spin_roughly(seconds: u64) {
    let end = now().saturating_add(counts(seconds));
    while now() < end {
        spin_loop();
    }
}

/// Spins until `done` or until so many seconds are over; whether it was done.
pub(crate) fn wait_for(seconds: u64, mut done: impl FnMut() -> bool) -> bool {
    let end = now().saturating_add(counts(seconds));
    while !done() {
        if now() >= end {
            return done();
        }
        spin_loop();
    }
    true
}

/// The frequency that the monitor tells.
pub(crate) fn told_frequency() -> Option<u64> {
    let last = services::cpuid(HYPERVISOR_LEAF, 0).eax;
    let told = (HYPERVISOR_TIMING_LEAF..=HYPERVISOR_TIMING_LEAF + 0xff).contains(&last);
    let khz = if told { services::cpuid(HYPERVISOR_TIMING_LEAF, 0).eax } else { 0 };
    Some(u64::from(khz) * 1000).filter(|hz| *hz != 0)
}

/// Measures the TSC by the ACPI PM timer. `None` if that does not count.
pub(crate) fn measured_frequency(pm_timer: u16) -> Option<u64> {
    let (tsc_before, pm_before) = sample(pm_timer);
    while now() < tsc_before + MEASURE_COUNTS {
        spin_loop();
    }
    let (tsc_after, pm_after) = sample(pm_timer);
    let ticks = u64::from(pm_after.wrapping_sub(pm_before) & PM_TIMER_MASK);
    ((tsc_after - tsc_before) * PM_TIMER_HZ).checked_div(ticks)
}

/// Both counters at one moment: of a few looks the one that took the least time, because the
/// processor may be taken away in the middle of one.
fn sample(pm_timer: u16) -> (u64, u32) {
    let mut best = (u64::MAX, 0, 0);
    for _ in 0..4 {
        let before = now();
        let ticks = ports::read_u32(pm_timer);
        let took = now() - before;
        if took < best.0 {
            best = (took, before + took / 2, ticks);
        }
    }
    (best.1, best.2)
}
