//! The entropy source of a machine.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The suffixes, largest first, and how many bits each shifts.
const UNITS: [(char, u32); 3] = [('G', 30), ('M', 20), ('K', 10)];

/// A source of entropy: `true`, `false`, or the most bytes per second, as `65536`, `64K` or `1M`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "String")]
pub enum RngConfig {
    /// There is none.
    #[default]
    Absent,
    /// There is one.
    Unlimited,
    /// There is one that gives so many bytes per second.
    Limited(u64),
}

/// Why a text is no entropy source.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("an entropy source is `true`, `false` or its bytes per second, as 65536, 64K or 1M")]
pub struct RngError;

impl FromStr for RngConfig {
    type Err = RngError;

    fn from_str(text: &str) -> Result<Self, RngError> {
        match text {
            "true" => return Ok(Self::Unlimited),
            "false" => return Ok(Self::Absent),
            _ => {}
        }
        let unit =
            UNITS.iter().find(|(unit, _)| text.ends_with([*unit, unit.to_ascii_lowercase()]));
        let (digits, shift) = match unit {
            Some((_, shift)) => (&text[..text.len() - 1], *shift),
            None => (text, 0),
        };
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(RngError);
        }
        let count: u64 = digits.parse().map_err(|_| RngError)?;
        match count.checked_mul(1 << shift) {
            // A guest that gets nothing hangs where it asks; without the device it knows.
            None | Some(0) => Err(RngError),
            Some(bytes) => Ok(Self::Limited(bytes)),
        }
    }
}

impl fmt::Display for RngConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("false"),
            Self::Unlimited => f.write_str("true"),
            Self::Limited(bytes) => write!(f, "{bytes}"),
        }
    }
}

/// As it may stand in a file.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Switch(bool),
    Number(u64),
    Word(String),
}

impl TryFrom<Written> for RngConfig {
    type Error = RngError;

    fn try_from(written: Written) -> Result<Self, RngError> {
        match written {
            Written::Switch(true) => Ok(Self::Unlimited),
            Written::Switch(false) => Ok(Self::Absent),
            Written::Number(bytes) => bytes.to_string().parse(),
            Written::Word(word) => word.parse(),
        }
    }
}

impl From<RngConfig> for String {
    fn from(rng: RngConfig) -> Self {
        rng.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_and_shown() {
        let table = [
            ("true", RngConfig::Unlimited, "true"),
            ("false", RngConfig::Absent, "false"),
            ("1", RngConfig::Limited(1), "1"),
            ("64K", RngConfig::Limited(65536), "65536"),
            ("2m", RngConfig::Limited(2 << 20), "2097152"),
        ];
        for (text, expected, shown) in table {
            assert_eq!(text.parse(), Ok(expected), "{text}");
            assert_eq!(expected.to_string(), shown);
        }
        for text in [
            "",
            "0",
            "0K",
            "K",
            "-1",
            "+1",
            "1KB",
            "1.5M",
            "on",
            "99999999999999999999",
            "99999999999G",
        ] {
            assert_eq!(text.parse::<RngConfig>(), Err(RngError), "{text}");
        }
    }
}
