//! A number of bytes each second, as limits have it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A number of bytes, written as `1000000` (bytes), `64K`, `10M` or `1G`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "u64")]
pub struct ByteCount(u64);

/// It is no number of bytes.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("a number of bytes like 1000000, 64K, 10M or 1G is wanted")]
pub struct ByteCountError;

impl ByteCount {
    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl From<ByteCount> for u64 {
    fn from(count: ByteCount) -> Self {
        count.0
    }
}

impl FromStr for ByteCount {
    type Err = ByteCountError;

    fn from_str(text: &str) -> Result<Self, ByteCountError> {
        let digits = text.trim_end_matches(|letter: char| !letter.is_ascii_digit());
        let shift = match &text[digits.len()..] {
            "" | "B" => 0,
            "K" | "k" => 10,
            "M" | "m" => 20,
            "G" | "g" => 30,
            _ => return Err(ByteCountError),
        };
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(ByteCountError);
        }
        let count: u64 = digits.parse().map_err(|_| ByteCountError)?;
        count.checked_mul(1 << shift).map(Self).ok_or(ByteCountError)
    }
}

/// A number, or a text with a unit.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Number(u64),
    Text(String),
}

impl TryFrom<Written> for ByteCount {
    type Error = ByteCountError;

    fn try_from(written: Written) -> Result<Self, ByteCountError> {
        match written {
            Written::Number(count) => Ok(Self(count)),
            Written::Text(text) => text.parse(),
        }
    }
}

impl fmt::Display for ByteCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_powers_of_1024_and_plain_numbers_are_bytes() {
        let table = [("0", 0), ("1000", 1000), ("4B", 4), ("64K", 64 << 10), ("10M", 10 << 20)];
        for (text, bytes) in table {
            assert_eq!(text.parse::<ByteCount>().map(ByteCount::get), Ok(bytes), "{text}");
        }
        for text in ["", "K", "-1", "1X", "1.5M", "99999999999G", "1 M", "+1"] {
            assert_eq!(text.parse::<ByteCount>(), Err(ByteCountError), "{text}");
        }
    }
}
