//! Points in time as dates of UTC.

use devices::legacy::cmos::DateTime;

/// A date of the Gregorian calendar and a time of day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Date {
    pub(crate) year: i64,
    pub(crate) month: u8,
    pub(crate) day: u8,
    pub(crate) hour: u8,
    pub(crate) minute: u8,
    pub(crate) second: u8,
    pub(crate) micros: u64,
}

impl Date {
    /// The date so many nanoseconds after 1970. A count of 64 bits ends in the year 2554.
    pub(crate) fn from_ns(ns: u64) -> Self {
        let seconds = (ns / 1_000_000_000).cast_signed();
        let DateTime { year, month, day, hour, minute, second, .. } =
            DateTime::from_unix_seconds(seconds);
        Self { year, month, day, hour, minute, second, micros: ns / 1000 % 1_000_000 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_calendar() {
        let of = |seconds: u64| {
            let date = Date::from_ns(seconds * 1_000_000_000);
            (date.year, date.month, date.day, date.hour, date.minute, date.second)
        };
        assert_eq!(of(0), (1970, 1, 1, 0, 0, 0));
        assert_eq!(of(951_782_399), (2000, 2, 28, 23, 59, 59));
        assert_eq!(of(951_782_400), (2000, 2, 29, 0, 0, 0));
        assert_eq!(of(4_107_542_399), (2100, 2, 28, 23, 59, 59));
        assert_eq!(of(4_107_542_400), (2100, 3, 1, 0, 0, 0));
        assert_eq!(of(1_795_273_445), (2026, 11, 21, 15, 4, 5));
        assert_eq!(Date::from_ns(1_234_567).micros, 1234);
        assert_eq!(Date::from_ns(u64::MAX).year, 2554);
    }
}
