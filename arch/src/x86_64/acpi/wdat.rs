//! The Watchdog Action Table (Hardware Watchdog Timers Design Specification 1.01): what to do with which
//! register to make the watchdog do what.

use acpi_tables::sdt::Sdt;

use super::Watchdog;
use crate::x86_64::layout::ports;

/// No PCI function.
const NO_PCI: [u8; 8] = [0xff, 0, 0xff, 0xff, 0xff, 0, 0, 0];
/// Length of what is between the table's header and its entries.
const BODY_LENGTH: u32 = 32;
/// Flags: the timer is enabled. That it stops in sleep states says nothing, as there are none.
const ENABLED: u8 = 1;
const SYSTEM_IO: u8 = 1;
const DOUBLE_WORD: u8 = 3;

/// Registers.
const CONTROL: u16 = 0;
const TIMEOUT: u16 = 4;
const COUNTDOWN: u16 = 8;
const STATUS: u16 = 12;

/// Instructions: compare with the value, read, write the value, write the parameter.
const READ_VALUE: u8 = 0;
const READ_COUNTDOWN: u8 = 1;
const WRITE_VALUE: u8 = 2;
const WRITE_COUNTDOWN: u8 = 3;

/// Action, instruction, register, value, mask.
type Entry = (u8, u8, u16, u32, u32);

const ENTRIES: [Entry; 10] = [
    // Start again, the time that is left, the timeout.
    (0x01, WRITE_VALUE, COUNTDOWN, 1, 1),
    (0x04, READ_COUNTDOWN, COUNTDOWN, 0, u32::MAX),
    (0x05, READ_COUNTDOWN, TIMEOUT, 0, u32::MAX),
    (0x06, WRITE_COUNTDOWN, TIMEOUT, 0, u32::MAX),
    // Does it run? Run. Does it stand still? Stand still.
    (0x08, READ_VALUE, CONTROL, 1, 1),
    (0x09, WRITE_VALUE, CONTROL, 1, 1),
    (0x0a, READ_VALUE, CONTROL, 0, 1),
    (0x0b, WRITE_VALUE, CONTROL, 0, 1),
    // Did it fire? It did not.
    (0x20, READ_VALUE, STATUS, 1, 1),
    (0x21, WRITE_VALUE, STATUS, 1, 1),
];

pub(super) fn build(watchdog: &Watchdog) -> Sdt {
    let mut body = BODY_LENGTH.to_le_bytes().to_vec();
    body.extend(NO_PCI);
    for number in [watchdog.period_ms, watchdog.max_periods, watchdog.min_periods] {
        body.extend(number.to_le_bytes());
    }
    body.extend([ENABLED, 0, 0, 0]);
    body.extend((ENTRIES.len() as u32).to_le_bytes());
    for (action, instruction, register, value, mask) in ENTRIES {
        body.extend([action, instruction, 0, 0]);
        body.extend([SYSTEM_IO, 32, 0, DOUBLE_WORD]);
        body.extend(u64::from(ports::WATCHDOG + register).to_le_bytes());
        body.extend(value.to_le_bytes());
        body.extend(mask.to_le_bytes());
    }
    super::table(*b"WDAT", 1, &body)
}
