//! The memory balloon of a machine.

use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{MemorySize, key_value};

/// A balloon: `--balloon size=SIZE,reporting,deflate-on-oom,stats-interval=SECONDS` or a `[balloon]`
/// table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct BalloonConfig {
    /// Memory that the guest shall give up.
    #[serde(default = "nothing")]
    pub size: MemorySize,
    /// The guest says which of its memory is free.
    #[serde(default)]
    pub reporting: bool,
    /// The guest takes memory back when it runs out.
    #[serde(default)]
    pub deflate_on_oom: bool,
    /// How often the guest is asked how much it uses; None is when somebody wants to know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stats_interval: Option<StatsInterval>,
}

const fn nothing() -> MemorySize {
    MemorySize::from_bytes(0)
}

impl FromStr for BalloonConfig {
    type Err = key_value::Error;

    fn from_str(text: &str) -> Result<Self, key_value::Error> {
        key_value::from_str(text)
    }
}

/// How often a guest is asked: 1 to 3600 seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "u16")]
pub struct StatsInterval(u16);

/// Why a number is no such interval.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("an interval is 1 to {} seconds", StatsInterval::MAX_SECONDS)]
pub struct StatsIntervalError;

impl StatsInterval {
    /// An hour: whoever wants to know less often asks.
    pub const MAX_SECONDS: u16 = 3600;

    /// The time between two questions.
    pub fn duration(self) -> Duration {
        Duration::from_secs(self.0.into())
    }
}

impl TryFrom<i64> for StatsInterval {
    type Error = StatsIntervalError;

    fn try_from(seconds: i64) -> Result<Self, StatsIntervalError> {
        match u16::try_from(seconds) {
            Ok(seconds @ 1..=Self::MAX_SECONDS) => Ok(Self(seconds)),
            _ => Err(StatsIntervalError),
        }
    }
}

impl From<StatsInterval> for u16 {
    fn from(interval: StatsInterval) -> Self {
        interval.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read() {
        let balloon: BalloonConfig =
            "size=256M,reporting,deflate-on-oom,stats-interval=10".parse().unwrap();
        assert_eq!(balloon.size, MemorySize::from_mib(256));
        assert!(balloon.reporting && balloon.deflate_on_oom);
        assert_eq!(balloon.stats_interval.unwrap().duration(), Duration::from_secs(10));
        let balloon: BalloonConfig = "reporting".parse().unwrap();
        assert_eq!((balloon.size, balloon.deflate_on_oom), (nothing(), false));
        for text in [
            "path=a",
            "size=-1",
            "stats-interval=0",
            "stats-interval=3601",
            "reporting=maybe",
            "size=1,size=2",
        ] {
            assert!(text.parse::<BalloonConfig>().is_err(), "{text}");
        }
    }
}
