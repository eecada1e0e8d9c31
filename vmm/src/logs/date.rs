//! Points in time as dates of UTC.

/// A date of the Gregorian calendar and a time of day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Date {
    pub(super) year: u64,
    pub(super) month: u64,
    pub(super) day: u64,
    pub(super) hour: u64,
    pub(super) minute: u64,
    pub(super) second: u64,
    pub(super) micros: u64,
}

impl Date {
    /// The date so many nanoseconds after 1970. A count of 64 bits ends in the year 2554.
    pub(super) fn from_ns(ns: u64) -> Self {
        let seconds = ns / 1_000_000_000;
        let days = seconds / 86_400;
        // Counted from the first of March of the year 0, so that leap days come last in their years; 400 years
        // have 146,097 days.
        let shifted = days + 719_468;
        let era = shifted / 146_097;
        let day_of_era = shifted % 146_097;
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month = (5 * day_of_year + 2) / 153;
        let (month_of_year, later) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
        Self {
            year: era * 400 + year_of_era + later,
            month: month_of_year,
            day: day_of_year - (153 * month + 2) / 5 + 1,
            hour: seconds / 3600 % 24,
            minute: seconds / 60 % 60,
            second: seconds % 60,
            micros: ns / 1000 % 1_000_000,
        }
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
