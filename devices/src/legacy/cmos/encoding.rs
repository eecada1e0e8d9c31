//! How the clock's registers hold the time: BCD or binary, 24 or 12 hours.

use super::calendar::DateTime;

/// Status B: numbers are binary, not BCD.
const BINARY: u8 = 4;
/// Status B: hours count to 24, not twice to 12.
const HOURS_24: u8 = 2;
/// In 12-hour mode: afternoon.
const AFTERNOON: u8 = 0x80;

/// Indices of the registers of the time: second, minute, hour, weekday, day, month, year, century.
pub(super) const TIME_REGISTERS: [u8; 8] = [0x00, 0x02, 0x04, 0x06, 0x07, 0x08, 0x09, 0x32];

/// How numbers and hours are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Encoding {
    binary: bool,
    hours_24: bool,
}

/// The registers of the time as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct TimeRegisters([u8; TIME_REGISTERS.len()]);

impl TimeRegisters {
    /// A register by its index; zero if it is not one of the time.
    pub(super) fn get(self, index: u8) -> u8 {
        TIME_REGISTERS.iter().position(|time| *time == index).map_or(0, |at| self.0[at])
    }

    /// Sets a register by its index.
    pub(super) fn set(&mut self, index: u8, value: u8) {
        if let Some(at) = TIME_REGISTERS.iter().position(|time| *time == index) {
            self.0[at] = value;
        }
    }
}

impl Encoding {
    /// Status B after power on: BCD, 24 hours.
    pub(super) const DEFAULT_STATUS_B: u8 = HOURS_24;

    pub(super) fn from_status_b(status: u8) -> Encoding {
        Encoding { binary: status & BINARY != 0, hours_24: status & HOURS_24 != 0 }
    }

    /// Years beyond 9999 show their last four digits.
    pub(super) fn encode(self, time: DateTime) -> TimeRegisters {
        let year = time.year.rem_euclid(10_000);
        let (hour, half) = if self.hours_24 {
            (time.hour, 0)
        } else {
            ((time.hour + 11) % 12 + 1, if time.hour >= 12 { AFTERNOON } else { 0 })
        };
        TimeRegisters([
            self.number(time.second),
            self.number(time.minute),
            self.number(hour) | half,
            self.number(time.weekday),
            self.number(time.day),
            self.number(time.month),
            self.number((year % 100) as u8),
            self.number((year / 100) as u8),
        ])
    }

    /// None when the registers hold no time.
    pub(super) fn decode(self, registers: TimeRegisters) -> Option<DateTime> {
        let [second, minute, hour, _, day, month, year, century] = registers.0;
        Some(DateTime {
            second: self.field(second, 0..=59)?,
            minute: self.field(minute, 0..=59)?,
            hour: self.hour(hour)?,
            // Follows from the date.
            weekday: 1,
            day: self.field(day, 1..=31)?,
            month: self.field(month, 1..=12)?,
            year: i64::from(self.field(century, 0..=99)?) * 100
                + i64::from(self.field(year, 0..=99)?),
        })
    }

    /// A number of a register, if it is in the range.
    pub(super) fn field(self, value: u8, range: std::ops::RangeInclusive<u8>) -> Option<u8> {
        let number = if self.binary {
            value
        } else {
            let (tens, ones) = (value >> 4, value & 0xf);
            (tens < 10 && ones < 10).then_some(tens * 10 + ones)?
        };
        range.contains(&number).then_some(number)
    }

    /// The hour of an hour register, 0 to 23.
    pub(super) fn hour(self, value: u8) -> Option<u8> {
        if self.hours_24 {
            return self.field(value, 0..=23);
        }
        let hour = self.field(value & !AFTERNOON, 1..=12)? % 12;
        Some(if value & AFTERNOON == 0 { hour } else { hour + 12 })
    }

    /// `number` is below 100.
    fn number(self, number: u8) -> u8 {
        if self.binary { number } else { ((number / 10) << 4) | (number % 10) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn noon_and_midnight_in_12_hours() {
        let encoding = Encoding::from_status_b(0);
        for (hour, register) in [(0, 0x12), (1, 0x01), (11, 0x11), (12, 0x92), (23, 0x91)] {
            let time = DateTime { hour, ..DateTime::from_unix_seconds(0) };
            assert_eq!(encoding.encode(time).get(4), register);
            assert_eq!(encoding.hour(register), Some(hour));
        }
        for register in [0, 0x13, 0x80, 0x1a] {
            assert_eq!(encoding.hour(register), None);
        }
    }

    proptest! {
        #[test]
        fn every_encoding_goes_there_and_back(seconds in 0_i64..250_000_000_000, status in 0_u8..8) {
            let encoding = Encoding::from_status_b(status);
            let time = DateTime::from_unix_seconds(seconds);
            let decoded = encoding.decode(encoding.encode(time)).unwrap();
            prop_assert_eq!(decoded.unix_seconds(), seconds);
        }

        #[test]
        fn any_registers_decode_to_a_time_or_to_none(bytes in any::<[u8; 8]>(), status in 0_u8..8) {
            let encoding = Encoding::from_status_b(status);
            if let Some(time) = encoding.decode(TimeRegisters(bytes)) {
                prop_assert!(time.hour < 24 && time.minute < 60 && time.second < 60);
                prop_assert!((0..=9999).contains(&time.year));
            }
        }
    }
}
