//! ACPI power management registers: PM1 event and control block, and the PM timer (ACPI 6.5 section
//! 4.8.3).
//!
//! ```text
//!   +0 PM1 status   +2 PM1 enable   +4 PM1 control   +8 PM timer
//! ```
//!
//! The machine is always in ACPI mode: there is no SMI command port to switch it. The SCI is edge
//! triggered, which the MADT must say.

use std::sync::Arc;

use super::{Clock, MachineEvent, MachineEvents};
use crate::bus::BusDevice;
use crate::interrupt::IrqLine;
use crate::log_limit::LogLimit;
use crate::sync::Lock;

/// Number of ports.
pub const PORTS: u64 = 12;
/// Frequency of the PM timer.
pub const PM_TIMER_HZ: u32 = 3_579_545;

/// PM1 status and enable: the power button.
const POWER_BUTTON: u16 = 1 << 8;
/// PM1 enable bits that exist: timer, global lock, power button, sleep button, RTC.
const ENABLE_WRITABLE: u16 = 1 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 10;
/// PM1 control: ACPI mode, always on.
const SCI_ENABLED: u16 = 1;
/// PM1 control bits that read back: bus master reload and the sleep type.
const CONTROL_WRITABLE: u16 = 1 << 1 | SLEEP_TYPE;
const SLEEP_TYPE: u16 = 0b111 << 10;
const SLEEP_TYPE_SHIFT: u32 = 10;
/// PM1 control: go to sleep now. Reads as zero.
const SLEEP_ENABLE: u16 = 1 << 13;

/// What the registers are made of.
pub struct AcpiPmParts {
    /// The SCI.
    pub sci: Arc<dyn IrqLine>,
    /// Who is told that the guest powers off.
    pub events: Arc<dyn MachineEvents>,
    /// For the PM timer.
    pub clock: Arc<dyn Clock>,
    /// The sleep type that the DSDT gives for S5.
    pub power_off_sleep_type: u8,
}

/// The power management registers.
pub struct AcpiPm {
    parts: AcpiPmParts,
    registers: Lock<Registers>,
    log: LogLimit,
}

#[derive(Debug, Default)]
struct Registers {
    status: u16,
    enable: u16,
    control: u16,
    /// Events for which an edge was sent.
    signalled: u16,
}

impl std::fmt::Debug for AcpiPm {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.registers.lock().fmt(formatter)
    }
}

/// Whether the guest listens to its power button.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PowerButton {
    /// It was told.
    Delivered,
    /// It has not enabled the event; it will see it if it ever does.
    NotListening,
}

impl AcpiPm {
    /// Registers as after power on.
    pub fn new(parts: AcpiPmParts) -> AcpiPm {
        AcpiPm { parts, registers: Lock::default(), log: LogLimit::new() }
    }

    /// Presses the power button, shortly.
    pub fn press_power_button(&self) -> PowerButton {
        let mut registers = self.registers.lock();
        registers.status |= POWER_BUTTON;
        // Pressed again while the guest is still busy with it: say it again.
        registers.signalled &= !POWER_BUTTON;
        let listens = registers.enable & POWER_BUTTON != 0;
        self.signal(&mut registers);
        if listens { PowerButton::Delivered } else { PowerButton::NotListening }
    }

    fn signal(&self, registers: &mut Registers) {
        let pending = registers.status & registers.enable;
        if pending & !registers.signalled != 0 {
            self.parts.sci.trigger();
        }
        registers.signalled = pending;
    }

    fn timer(&self) -> u32 {
        let nanoseconds = self.parts.clock.monotonic().as_nanos();
        (nanoseconds * u128::from(PM_TIMER_HZ) / 1_000_000_000) as u32
    }

    fn image(&self) -> [u8; PORTS as usize] {
        let registers = self.registers.lock();
        let mut image = [0; PORTS as usize];
        image[0..2].copy_from_slice(&registers.status.to_le_bytes());
        image[2..4].copy_from_slice(&registers.enable.to_le_bytes());
        image[4..6].copy_from_slice(&(registers.control | SCI_ENABLED).to_le_bytes());
        image[8..12].copy_from_slice(&self.timer().to_le_bytes());
        image
    }

    fn write_control(&self, registers: &mut Registers, value: u16, written: u16) {
        let mask = CONTROL_WRITABLE & written;
        registers.control = registers.control & !mask | value & mask;
        if value & SLEEP_ENABLE == 0 {
            return;
        }
        let kind = (registers.control & SLEEP_TYPE) >> SLEEP_TYPE_SHIFT;
        if kind == u16::from(self.parts.power_off_sleep_type) {
            self.parts.events.report(MachineEvent::Shutdown);
        } else {
            self.log.warn(format_args!("ACPI: the guest asked for unknown sleep type {kind}"));
        }
    }
}

impl BusDevice for AcpiPm {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let image = self.image();
        for (index, byte) in (offset..PORTS).zip(data) {
            *byte = image[index as usize];
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let mut value = [0; PORTS as usize];
        let mut mask = [0; PORTS as usize];
        for (index, byte) in (offset..PORTS).zip(data) {
            value[index as usize] = *byte;
            mask[index as usize] = 0xff;
        }
        let word = |bytes: &[u8], at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let mut registers = self.registers.lock();
        // Status bits are cleared by writing ones.
        registers.status &= !word(&value, 0);
        let enable = word(&mask, 2);
        registers.enable = registers.enable & !enable | word(&value, 2) & enable & ENABLE_WRITABLE;
        self.write_control(&mut registers, word(&value, 4), word(&mask, 4));
        self.signal(&mut registers);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::testing::{MockClock, MockEvents, MockLine};

    struct Bed {
        pm: AcpiPm,
        sci: Arc<MockLine>,
        events: Arc<MockEvents>,
        clock: Arc<MockClock>,
    }

    fn bed() -> Bed {
        let (sci, events) = (Arc::new(MockLine::default()), Arc::new(MockEvents::default()));
        let clock = Arc::new(MockClock::default());
        let parts = AcpiPmParts {
            sci: sci.clone(),
            events: events.clone(),
            clock: clock.clone(),
            power_off_sleep_type: 5,
        };
        Bed { pm: AcpiPm::new(parts), sci, events, clock }
    }

    fn read_u16(bed: &Bed, offset: u64) -> u16 {
        let mut data = [0; 2];
        bed.pm.read(offset, &mut data);
        u16::from_le_bytes(data)
    }

    #[test]
    fn the_power_button_interrupts_until_its_status_is_cleared() {
        let bed = bed();
        assert_eq!(bed.pm.press_power_button(), PowerButton::NotListening);
        assert_eq!(bed.sci.take(), 0);
        bed.pm.write(2, &POWER_BUTTON.to_le_bytes());
        assert_eq!(bed.sci.take(), 1, "it was pressed before");
        assert_eq!(read_u16(&bed, 0), POWER_BUTTON);
        bed.pm.write(0, &[0, 0]);
        assert_eq!(read_u16(&bed, 0), POWER_BUTTON, "ones clear");
        bed.pm.write(0, &POWER_BUTTON.to_le_bytes());
        assert_eq!((read_u16(&bed, 0), read_u16(&bed, 2)), (0, POWER_BUTTON));
        assert_eq!(bed.pm.press_power_button(), PowerButton::Delivered);
        assert_eq!(bed.pm.press_power_button(), PowerButton::Delivered);
        assert_eq!(bed.sci.take(), 2);
    }

    #[test]
    fn only_the_sleep_type_of_s5_powers_off() {
        let bed = bed();
        assert_eq!(read_u16(&bed, 4), SCI_ENABLED);
        bed.pm.write(4, &(5_u16 << 10).to_le_bytes());
        assert_eq!(bed.events.take(), []);
        bed.pm.write(4, &(1_u16 << 10 | SLEEP_ENABLE).to_le_bytes());
        assert_eq!(bed.events.take(), []);
        bed.pm.write(4, &(5_u16 << 10 | SLEEP_ENABLE).to_le_bytes());
        assert_eq!(bed.events.take(), [MachineEvent::Shutdown]);
        assert_eq!(read_u16(&bed, 4), 5 << 10 | SCI_ENABLED);
    }

    #[test]
    fn the_timer_runs_at_its_frequency_and_wraps() {
        let bed = bed();
        let timer = || {
            let mut data = [0; 4];
            bed.pm.read(8, &mut data);
            u32::from_le_bytes(data)
        };
        bed.clock.set(Duration::from_secs(10));
        assert_eq!(timer(), 35_795_450);
        bed.clock.set(Duration::from_mins(20));
        assert_eq!(timer(), (1200 * 3_579_545_u64) as u32);
    }

    proptest! {
        #[test]
        fn any_access_is_harmless(
            steps in proptest::collection::vec((any::<bool>(), 0_u64..14, proptest::collection::vec(any::<u8>(), 0..17)), 1..50)
        ) {
            let bed = bed();
            for (read, offset, mut data) in steps {
                if read {
                    bed.pm.read(offset, &mut data);
                } else {
                    bed.pm.write(offset, &data);
                }
            }
        }
    }
}
