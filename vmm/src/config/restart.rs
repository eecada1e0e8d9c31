//! How often a device's process may be started again.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// How often the process of a device may be started again: `always`, `never` or a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "String")]
pub enum RestartLimit {
    /// As often as it lives long enough in between.
    #[default]
    Always,
    /// This often in all.
    Times(NonZeroU32),
    /// Not at all.
    Never,
}

/// Why a text is no limit.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("a restart limit is `always`, `never` or a number of times")]
pub struct RestartLimitError;

impl FromStr for RestartLimit {
    type Err = RestartLimitError;

    fn from_str(text: &str) -> Result<Self, RestartLimitError> {
        match text {
            "always" => Ok(Self::Always),
            "never" => Ok(Self::Never),
            _ => text
                .parse()
                .map_err(|_| RestartLimitError)
                .map(|times| NonZeroU32::new(times).map_or(Self::Never, Self::Times)),
        }
    }
}

impl fmt::Display for RestartLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Always => f.write_str("always"),
            Self::Times(times) => write!(f, "{times}"),
            Self::Never => f.write_str("never"),
        }
    }
}

/// As it may stand in a file.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Number(u32),
    Word(String),
}

impl TryFrom<Written> for RestartLimit {
    type Error = RestartLimitError;

    fn try_from(written: Written) -> Result<Self, RestartLimitError> {
        match written {
            Written::Number(times) => Ok(NonZeroU32::new(times).map_or(Self::Never, Self::Times)),
            Written::Word(word) => word.parse(),
        }
    }
}

impl From<RestartLimit> for String {
    fn from(limit: RestartLimit) -> Self {
        limit.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_numbers_are_read() {
        let three = NonZeroU32::new(3).map(RestartLimit::Times).expect("not zero");
        let table = [
            ("always", Ok(RestartLimit::Always)),
            ("never", Ok(RestartLimit::Never)),
            ("0", Ok(RestartLimit::Never)),
            ("3", Ok(three)),
            ("-1", Err(RestartLimitError)),
            ("often", Err(RestartLimitError)),
        ];
        for (text, expected) in table {
            assert_eq!(text.parse(), expected, "{text}");
        }
        assert_eq!(three.to_string(), "3");
    }
}
