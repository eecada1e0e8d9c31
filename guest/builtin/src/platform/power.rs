//! The ends of a run, each of which the monitor turns into an exit status of its own.

use core::{
    arch::asm,
    sync::atomic::{AtomicU32, Ordering},
};

use super::{exceptions::IDT, ports, services, time};

const PVPANIC: u16 = 0x505;
const PVPANIC_PANICKED: u8 = 1;
const I8042_COMMAND: u16 = 0x64;
const I8042_PULSE_RESET: u8 = 0xfe;
/// `PM1a` control where no FADT says otherwise.
const PM1A_CONTROL: u16 = 0x604;
const SLEEP_ENABLE: u16 = 1 << 13;
/// `SLP_TYP` of S5 where the DSDT has no `_S5_`.
const SLEEP_TYPE_S5: u16 = 5;
/// How long the monitor may take to act on a report of panic.
const PANIC_PATIENCE_SECONDS: u64 = 2;

/// `PM1a` control and `SLP_TYP` of S5, in one word: known once the ACPI tables are read.
static SOFT_OFF: AtomicU32 = AtomicU32::new((SLEEP_TYPE_S5 as u32) << 16 | PM1A_CONTROL as u32);

/// Remembers how ACPI says the machine is switched off.
pub(crate) fn set_soft_off(pm1a_control: u16, sleep_type: Option<u8>) {
    let sleep_type = sleep_type.map_or(SLEEP_TYPE_S5, u16::from);
    SOFT_OFF.store(u32::from(sleep_type) << 16 | u32::from(pm1a_control), Ordering::Relaxed);
}

/// Powers the machine off: the run succeeded.
pub(crate) fn off() -> ! {
    let soft_off = SOFT_OFF.load(Ordering::Relaxed);
    let (port, sleep_type) = (soft_off as u16, (soft_off >> 16) as u16);
    ports::write_u16(port, sleep_type << 10 | SLEEP_ENABLE);
    services::park()
}

/// Reports a panic: the run failed. Where nothing takes the report, ends the machine another way.
pub(crate) fn fail() -> ! {
    ports::write_u8(PVPANIC, PVPANIC_PANICKED);
    time::spin_roughly(PANIC_PATIENCE_SECONDS);
    triple_fault()
}

/// Resets the machine through the keyboard controller.
pub(crate) fn reset() -> ! {
    ports::write_u8(I8042_COMMAND, I8042_PULSE_RESET);
    services::park()
}

/// Shuts the processor down: an exception without a handler for it, nor for the double fault.
pub(crate) fn triple_fault() -> ! {
    IDT.clear();
    // SAFETY: ends the machine.
    unsafe { asm!("ud2", options(noreturn)) };
}
