//! CMOS memory and the real-time clock (MC146818), ports 0x70 and 0x71.
//!
//! ```text
//!   00 02 04 06 07 08 09 32   the time, read from the injected clock plus what the guest has set
//!   01 03 05                  the alarm
//!   0a 0b 0c 0d               status registers
//!   15.. 30.. 34.. 5b..       memory sizes
//!   rest                      bytes
//! ```
//!
//! Nothing runs here. [`Cmos::next_alarm`] says when the next interrupt is due and
//! [`Cmos::run_timer`] raises it; whoever owns timers connects the two and is told by
//! [`CmosParts::alarm_changed`] to ask again. An update takes no time, so the guest never sees one in
//! progress and never has to wait for its end.

mod alarm;
mod calendar;
mod encoding;

use std::sync::Arc;
use std::time::Duration;

use super::Clock;
use crate::bus::BusDevice;
use crate::interrupt::IrqLine;
use crate::sync::Lock;

use alarm::Alarm;
pub use calendar::DateTime;
use encoding::{Encoding, TIME_REGISTERS, TimeRegisters};

/// Number of ports.
pub const PORTS: u64 = 2;

const BYTES: usize = 128;
/// The other bit of the index port masks the NMI, which nobody sends.
const INDEX_MASK: u8 = 0x7f;

// Registers that are not bytes of memory.
const ALARM_SECONDS: u8 = 1;
const ALARM_MINUTES: u8 = 3;
const ALARM_HOURS: u8 = 5;
const STATUS_A: u8 = 0x0a;
const STATUS_B: u8 = 0x0b;
const STATUS_C: u8 = 0x0c;
const STATUS_D: u8 = 0x0d;

/// Status A after power on: the divider runs, the periodic rate is 1024 Hz.
const STATUS_A_DEFAULT: u8 = 0x26;
/// Status A: update in progress; never.
const STATUS_A_UPDATING: u8 = 0x80;
const STATUS_A_RATE: u8 = 0x0f;

/// Status B: the time stands still so that it can be set.
const STATUS_B_SET: u8 = 0x80;

bitflags::bitflags! {
    /// Interrupts, with the same bits in status B (enabled) and status C (happened).
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    struct Interrupts: u8 {
        const UPDATE = 0x10;
        const ALARM = 0x20;
        const PERIODIC = 0x40;
    }
}

/// Status C: an enabled interrupt has happened.
const STATUS_C_REQUEST: u8 = 0x80;
/// Status D: the battery is good.
const STATUS_D_VALID: u8 = 0x80;

/// The oscillator of the periodic interrupt.
const OSCILLATOR_HZ: u64 = 32_768;
const NANOSECONDS: u64 = 1_000_000_000;

/// Sizes of memory that a firmware would leave here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemorySizes {
    /// Bytes of RAM below 4 GiB.
    pub below_4g: u64,
    /// Bytes of RAM from 4 GiB on.
    pub above_4g: u64,
}

/// What the device is made of.
pub struct CmosParts {
    /// The interrupt line.
    pub irq: Arc<dyn IrqLine>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Memory sizes.
    pub memory: MemorySizes,
    /// Called when [`Cmos::next_alarm`] has a new answer. Runs on a vCPU thread and must not block.
    pub alarm_changed: Box<dyn Fn() + Send + Sync>,
}

/// CMOS memory and the real-time clock.
pub struct Cmos {
    parts: CmosParts,
    state: Lock<State>,
}

#[derive(Debug)]
struct State {
    index: u8,
    memory: [u8; BYTES],
    /// Seconds that the guest's clock is ahead of ours.
    offset: i64,
    /// The time registers while status B holds them.
    held: Option<TimeRegisters>,
    happened: Interrupts,
    /// Up to when it is known what has happened, since the Unix epoch by our clock.
    looked: Duration,
}

impl std::fmt::Debug for Cmos {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.state.lock().fmt(formatter)
    }
}

impl Cmos {
    /// A device that shows the clock's time as UTC.
    pub fn new(parts: CmosParts) -> Cmos {
        let mut memory = [0; BYTES];
        memory[usize::from(STATUS_A)] = STATUS_A_DEFAULT;
        memory[usize::from(STATUS_B)] = Encoding::DEFAULT_STATUS_B;
        store_memory_sizes(&mut memory, parts.memory);
        let state = State {
            index: 0,
            memory,
            offset: 0,
            held: None,
            happened: Interrupts::empty(),
            looked: parts.clock.wall(),
        };
        Cmos { parts, state: Lock::new(state) }
    }

    /// When the next interrupt is due, by the clock's wall time; none if none is.
    pub fn next_alarm(&self) -> Option<Duration> {
        self.state.lock().next_interrupt()
    }

    /// Raises the interrupts that are due by now. Harmless at any time.
    pub fn run_timer(&self) {
        let now = self.parts.clock.wall();
        if self.state.lock().advance(now) {
            self.parts.irq.trigger();
        }
    }

    fn read_data(&self) -> u8 {
        let now = self.parts.clock.wall();
        let mut state = self.state.lock();
        let next = state.next_interrupt();
        let interrupt = state.advance(now);
        let value = state.read(now);
        let changed = state.next_interrupt() != next;
        drop(state);
        // An interrupt that reading status C has taken at the same time is still an edge.
        self.apply(interrupt, changed);
        value
    }

    fn write_data(&self, value: u8) {
        let now = self.parts.clock.wall();
        let mut state = self.state.lock();
        let next = state.next_interrupt();
        let interrupt = state.advance(now);
        state.write(value, now);
        // Enabling what has happened already interrupts at once.
        let interrupt = state.request() || interrupt;
        let changed = state.next_interrupt() != next;
        drop(state);
        self.apply(interrupt, changed);
    }

    fn apply(&self, interrupt: bool, changed: bool) {
        if interrupt {
            self.parts.irq.trigger();
        }
        if changed {
            (self.parts.alarm_changed)();
        }
    }
}

impl BusDevice for Cmos {
    fn read(&self, offset: u64, data: &mut [u8]) {
        for (port, byte) in (offset..PORTS).zip(data) {
            // The index port cannot be read.
            *byte = if port == 0 { 0xff } else { self.read_data() };
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        for (port, byte) in (offset..PORTS).zip(data) {
            if port == 0 {
                self.state.lock().index = byte & INDEX_MASK;
            } else {
                self.write_data(*byte);
            }
        }
    }
}

impl State {
    fn read(&mut self, now: Duration) -> u8 {
        match self.index {
            index if TIME_REGISTERS.contains(&index) => self.time_registers(now).get(index),
            STATUS_A => self.memory[usize::from(STATUS_A)] & !STATUS_A_UPDATING,
            STATUS_C => {
                let happened = std::mem::take(&mut self.happened);
                let request =
                    if (happened & self.enabled()).is_empty() { 0 } else { STATUS_C_REQUEST };
                happened.bits() | request
            }
            STATUS_D => STATUS_D_VALID,
            index => self.memory[usize::from(index)],
        }
    }

    fn write(&mut self, value: u8, now: Duration) {
        match self.index {
            index if TIME_REGISTERS.contains(&index) => {
                let mut registers = self.time_registers(now);
                registers.set(index, value);
                if self.held.is_some() {
                    self.held = Some(registers);
                } else {
                    self.set_time(registers, now);
                }
            }
            STATUS_B => self.write_status_b(value, now),
            STATUS_C | STATUS_D => {}
            index => self.memory[usize::from(index)] = value,
        }
    }

    fn write_status_b(&mut self, value: u8, now: Duration) {
        let registers = self.time_registers(now);
        // Held registers are read by the encoding that is set when they are released.
        self.memory[usize::from(STATUS_B)] = value;
        if value & STATUS_B_SET == 0 {
            if self.held.take().is_some() {
                self.set_time(registers, now);
            }
        } else if self.held.is_none() {
            self.held = Some(registers);
        }
    }

    fn encoding(&self) -> Encoding {
        Encoding::from_status_b(self.memory[usize::from(STATUS_B)])
    }

    fn enabled(&self) -> Interrupts {
        Interrupts::from_bits_truncate(self.memory[usize::from(STATUS_B)])
    }

    /// The guest's time in seconds since the Unix epoch.
    fn seconds(&self, now: Duration) -> i64 {
        (now.as_secs() as i64).wrapping_add(self.offset)
    }

    fn time_registers(&self, now: Duration) -> TimeRegisters {
        self.held.unwrap_or_else(|| {
            self.encoding().encode(DateTime::from_unix_seconds(self.seconds(now)))
        })
    }

    /// Sets the guest's time. What is no time at all is ignored.
    fn set_time(&mut self, registers: TimeRegisters, now: Duration) {
        if let Some(time) = self.encoding().decode(registers) {
            self.offset = time.unix_seconds() - now.as_secs() as i64;
        }
    }

    fn alarm(&self) -> Option<Alarm> {
        let register = |index: u8| self.memory[usize::from(index)];
        let (seconds, minutes) = (register(ALARM_SECONDS), register(ALARM_MINUTES));
        Alarm::decode(self.encoding(), seconds, minutes, register(ALARM_HOURS))
    }

    /// Length of the periodic interrupt's period in nanoseconds.
    fn period(&self) -> Option<u64> {
        let rate = self.memory[usize::from(STATUS_A)] & STATUS_A_RATE;
        let ticks = match rate {
            0 => return None,
            // The two shortest rates stand for longer ones (MC146818A data sheet, table 5).
            1 | 2 => 1_u64 << (rate + 6),
            _ => 1 << (rate - 1),
        };
        Some(ticks * NANOSECONDS / OSCILLATOR_HZ)
    }

    /// Notes what has happened up to `now`. Returns whether an interrupt is due.
    fn advance(&mut self, now: Duration) -> bool {
        let before = self.looked;
        self.looked = now;
        if now <= before {
            // The clock has been set back; nothing has happened in that time.
            return false;
        }
        let requested = self.is_requested();
        if let Some(period) = self.period() {
            let count = |time: Duration| time.as_nanos() / u128::from(period);
            self.happened.set(
                Interrupts::PERIODIC,
                self.happened.contains(Interrupts::PERIODIC) || count(now) > count(before),
            );
        }
        let (from, to) = (self.seconds(before), self.seconds(now));
        if to > from && self.held.is_none() {
            self.happened |= Interrupts::UPDATE;
            if self.alarm().and_then(|alarm| alarm.next_after(from)).is_some_and(|at| at <= to) {
                self.happened |= Interrupts::ALARM;
            }
        }
        !requested && self.is_requested()
    }

    fn is_requested(&self) -> bool {
        self.happened.intersects(self.enabled())
    }

    /// Whether a write has just enabled an interrupt that has happened before.
    fn request(&self) -> bool {
        self.index == STATUS_B && self.is_requested()
    }

    /// When the next enabled interrupt comes. While one is requested and not acknowledged, the line
    /// has no further edge, so there is none: this bounds what a guest can ask of a timer.
    fn next_interrupt(&self) -> Option<Duration> {
        if self.is_requested() {
            return None;
        }
        let enabled = self.enabled();
        let periodic =
            enabled.contains(Interrupts::PERIODIC).then(|| self.period()).flatten().map(|period| {
                let next = self.looked.as_nanos() / u128::from(period) + 1;
                Duration::from_nanos(u64::try_from(next * u128::from(period)).unwrap_or(u64::MAX))
            });
        let running = self.held.is_none();
        let second = self.seconds(self.looked);
        let update = (running && enabled.contains(Interrupts::UPDATE)).then_some(second + 1);
        let alarm = (running && enabled.contains(Interrupts::ALARM))
            .then(|| self.alarm()?.next_after(second))
            .flatten();
        let by_seconds = update.into_iter().chain(alarm).min().and_then(|second| {
            u64::try_from(second.wrapping_sub(self.offset)).ok().map(Duration::from_secs)
        });
        periodic.into_iter().chain(by_seconds).min()
    }
}

/// Memory sizes as a PC firmware leaves them.
fn store_memory_sizes(memory: &mut [u8; BYTES], sizes: MemorySizes) {
    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;
    let mut put = |at: usize, value: u64, width: usize| {
        let limit = (1 << (8 * width)) - 1;
        memory[at..at + width].copy_from_slice(&value.min(limit).to_le_bytes()[..width]);
    };
    // Conventional memory, in KiB.
    put(0x15, sizes.below_4g.min(640 * KIB) / KIB, 2);
    // From 1 MiB on, in KiB, twice.
    let extended = sizes.below_4g.saturating_sub(MIB) / KIB;
    put(0x17, extended, 2);
    put(0x30, extended, 2);
    // From 16 MiB to 4 GiB, and from 4 GiB on, in units of 64 KiB.
    put(0x34, sizes.below_4g.saturating_sub(16 * MIB) / (64 * KIB), 2);
    put(0x5b, sizes.above_4g / (64 * KIB), 3);
}

#[cfg(test)]
mod tests;
