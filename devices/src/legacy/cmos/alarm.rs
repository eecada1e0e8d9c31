//! The alarm: a time of day of which each part may be "any".

use super::encoding::Encoding;

/// A part with both of these bits set matches always (MC146818A data sheet, "alarm registers").
const ANY: u8 = 0xc0;

const MINUTE: i64 = 60;
const HOUR: i64 = 3600;
const DAY: i64 = 86_400;

/// When the alarm goes off, every day. None in a part matches always.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Alarm {
    hour: Option<u8>,
    minute: Option<u8>,
    second: Option<u8>,
}

impl Alarm {
    /// From the alarm registers; none when they can never match.
    pub(super) fn decode(encoding: Encoding, second: u8, minute: u8, hour: u8) -> Option<Alarm> {
        let part = |register: u8, decoded: Option<u8>| {
            if register & ANY == ANY { Some(None) } else { decoded.map(Some) }
        };
        Some(Alarm {
            second: part(second, encoding.field(second, 0..=59))?,
            minute: part(minute, encoding.field(minute, 0..=59))?,
            hour: part(hour, encoding.hour(hour))?,
        })
    }

    /// The first matching second after `second`, both since the Unix epoch.
    pub(super) fn next_after(self, second: i64) -> Option<i64> {
        let mut at = second.checked_add(1)?;
        // Each step enters another hour, minute or second, so a day has at most 24 + 60 + 60 of
        // them until the time matches.
        for _ in 0..=24 + 60 + 60 {
            let of_day = at.rem_euclid(DAY);
            let matches =
                |part: Option<u8>, value: i64| part.is_none_or(|wanted| i64::from(wanted) == value);
            let unit = if !matches(self.hour, of_day / HOUR) {
                HOUR
            } else if !matches(self.minute, of_day / MINUTE % 60) {
                MINUTE
            } else if !matches(self.second, of_day % 60) {
                1
            } else {
                return Some(at);
            };
            at = at.checked_add(unit - at.rem_euclid(unit))?;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BINARY_24: u8 = 6;

    fn alarm(hour: u8, minute: u8, second: u8) -> Option<Alarm> {
        Alarm::decode(Encoding::from_status_b(BINARY_24), second, minute, hour)
    }

    #[test]
    fn parts_that_are_any_match_often() {
        assert_eq!(alarm(0xff, 0xff, 0xff).unwrap().next_after(100), Some(101));
        assert_eq!(alarm(0xff, 0xff, 0).unwrap().next_after(100), Some(120));
        assert_eq!(alarm(0xff, 0, 0).unwrap().next_after(100), Some(3600));
        assert_eq!(alarm(0, 0, 0).unwrap().next_after(100), Some(86_400));
        assert_eq!(alarm(0, 0, 0).unwrap().next_after(86_399), Some(86_400));
        assert_eq!(alarm(0, 0, 0).unwrap().next_after(86_400), Some(2 * 86_400));
    }

    #[test]
    fn what_no_time_has_never_matches() {
        assert_eq!((alarm(24, 0, 0), alarm(0, 60, 0), alarm(0, 0, 60)), (None, None, None));
    }

    proptest! {
        #[test]
        fn the_next_match_is_the_first(start in -200_000_i64..200_000, parts in any::<[(bool, u8); 3]>()) {
            let value = |(any, value): (bool, u8), limit: u8| if any { 0xff } else { value % limit };
            let [hour, minute, second] = [value(parts[0], 24), value(parts[1], 60), value(parts[2], 60)];
            let next = alarm(hour, minute, second).unwrap().next_after(start).unwrap();
            let matches = |at: i64| {
                let of_day = at.rem_euclid(DAY);
                [(hour, of_day / HOUR), (minute, of_day / MINUTE % 60), (second, of_day % 60)]
                    .iter()
                    .all(|(wanted, value)| *wanted == 0xff || i64::from(*wanted) == *value)
            };
            prop_assert!(matches(next));
            prop_assert!(!(start + 1..next).any(matches));
        }
    }
}
