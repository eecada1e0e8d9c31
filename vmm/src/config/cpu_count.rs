//! A number of virtual CPUs.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// How many virtual CPUs a machine has: 1 to [`CpuCount::MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "u8")]
pub struct CpuCount(u8);

/// A text or number that is no number of CPUs.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("a machine has 1 to {} CPUs", CpuCount::MAX)]
pub struct CpuCountError;

impl CpuCount {
    /// The most a machine can have; their APIC identifiers fit into eight bits with room to spare.
    pub const MAX: u8 = 64;

    /// One CPU.
    pub const ONE: Self = Self(1);

    /// The number.
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl TryFrom<i64> for CpuCount {
    type Error = CpuCountError;

    fn try_from(count: i64) -> Result<Self, CpuCountError> {
        match u8::try_from(count) {
            Ok(count @ 1..=Self::MAX) => Ok(Self(count)),
            _ => Err(CpuCountError),
        }
    }
}

impl From<CpuCount> for u8 {
    fn from(count: CpuCount) -> Self {
        count.0
    }
}

impl FromStr for CpuCount {
    type Err = CpuCountError;

    fn from_str(text: &str) -> Result<Self, CpuCountError> {
        text.parse::<i64>().map_err(|_| CpuCountError)?.try_into()
    }
}

impl fmt::Display for CpuCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_to_the_maximum_is_accepted() {
        for (text, expected) in [("1", Some(1)), ("4", Some(4)), ("64", Some(64))] {
            assert_eq!(text.parse::<CpuCount>().ok().map(CpuCount::get), expected);
        }
        for text in ["0", "65", "256", "100000", "-1", "", "four", "99999999999999999999"] {
            assert_eq!(text.parse::<CpuCount>(), Err(CpuCountError), "{text}");
        }
    }
}
