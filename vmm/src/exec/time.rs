//! Lengths of time as users write them.

use std::str::FromStr;
use std::time::Duration;

/// A length of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time(pub Duration);

/// Not a length of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a time is a number with ms, s, m or h after it; without, it is seconds")]
pub struct TimeError;

impl FromStr for Time {
    type Err = TimeError;

    fn from_str(text: &str) -> Result<Self, TimeError> {
        let end = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let number: u64 = number.parse().map_err(|_| TimeError)?;
        let millis = match unit {
            "ms" => 1,
            "" | "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(TimeError),
        };
        number.checked_mul(millis).map(Duration::from_millis).map(Time).ok_or(TimeError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        let table = [("2", 2000), ("500ms", 500), ("3s", 3000), ("2m", 120_000), ("1h", 3_600_000)];
        for (text, millis) in table {
            assert_eq!(text.parse(), Ok(Time(Duration::from_millis(millis))), "{text}");
        }
        for text in
            ["", "s", "-1", "1.5", "1 s", "1d", "99999999999999999999", "9999999999999999999h"]
        {
            assert_eq!(text.parse::<Time>(), Err(TimeError), "{text}");
        }
    }
}
