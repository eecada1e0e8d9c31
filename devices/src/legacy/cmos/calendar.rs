//! Dates from seconds and back, in the proleptic Gregorian calendar.

const SECONDS_PER_DAY: i64 = 86_400;
/// Days of 400 years, after which the calendar repeats.
const DAYS_PER_ERA: i64 = 146_097;
/// Days from 0000-03-01 to 1970-01-01.
const EPOCH_SHIFT: i64 = 719_468;

/// A date and a time of day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DateTime {
    /// Any year.
    pub year: i64,
    /// 1 to 12.
    pub month: u8,
    /// 1 to 31.
    pub day: u8,
    /// 1 (Sunday) to 7.
    pub weekday: u8,
    /// 0 to 23.
    pub hour: u8,
    /// 0 to 59.
    pub minute: u8,
    /// 0 to 59.
    pub second: u8,
}

impl DateTime {
    /// From seconds since 1970-01-01 00:00.
    pub fn from_unix_seconds(seconds: i64) -> DateTime {
        let days = seconds.div_euclid(SECONDS_PER_DAY);
        let second = seconds.rem_euclid(SECONDS_PER_DAY);
        // Years begin in March here, so that the leap day is the last.
        let shifted = days + EPOCH_SHIFT;
        let era = shifted.div_euclid(DAYS_PER_ERA);
        let day_of_era = shifted.rem_euclid(DAYS_PER_ERA);
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        // March is 0; each five months have 153 days.
        let month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month + 2) / 5 + 1;
        let (month, next_year) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
        DateTime {
            year: era * 400 + year_of_era + next_year,
            month: month as u8,
            day: day as u8,
            // 1970-01-01 was a Thursday.
            weekday: ((days + 4).rem_euclid(7) + 1) as u8,
            hour: (second / 3600) as u8,
            minute: (second / 60 % 60) as u8,
            second: (second % 60) as u8,
        }
    }

    /// Seconds since 1970-01-01 00:00. The day of the week does not matter.
    pub fn unix_seconds(self) -> i64 {
        let (month, day) = (i64::from(self.month), i64::from(self.day));
        let year = if month <= 2 { self.year - 1 } else { self.year };
        let era = year.div_euclid(400);
        let year_of_era = year.rem_euclid(400);
        let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        let days = era * DAYS_PER_ERA + day_of_era - EPOCH_SHIFT;
        let (hour, minute) = (i64::from(self.hour), i64::from(self.minute));
        days * SECONDS_PER_DAY + hour * 3600 + minute * 60 + i64::from(self.second)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_dates() {
        for (seconds, date, weekday, time) in [
            (0, (1970, 1, 1), 5, (0, 0, 0)),
            (-1, (1969, 12, 31), 4, (23, 59, 59)),
            (951_782_400, (2000, 2, 29), 3, (0, 0, 0)),
            (1_709_210_096, (2024, 2, 29), 5, (12, 34, 56)),
            (4_107_542_400, (2100, 3, 1), 2, (0, 0, 0)),
        ] {
            let found = DateTime::from_unix_seconds(seconds);
            assert_eq!((found.year, found.month, found.day), date);
            assert_eq!((found.hour, found.minute, found.second), time);
            assert_eq!(found.weekday, weekday, "{date:?}");
        }
    }

    proptest! {
        #[test]
        fn there_and_back(seconds in -100_000_000_000_i64..300_000_000_000) {
            let date = DateTime::from_unix_seconds(seconds);
            prop_assert_eq!(date.unix_seconds(), seconds);
            prop_assert!((1..=12).contains(&date.month) && (1..=31).contains(&date.day));
        }
    }
}
