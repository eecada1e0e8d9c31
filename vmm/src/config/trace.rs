//! Where it is written down what a machine's actors do.

use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{MemorySize, key_value};

/// A trace: `--trace FILE[,last=SIZE]` or a `[trace]` table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct TraceConfig {
    /// The file.
    pub path: PathBuf,
    /// Only about so much of the end of it, for each actor; all of it if this is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<MemorySize>,
}

impl FromStr for TraceConfig {
    type Err = key_value::Error;

    fn from_str(text: &str) -> Result<Self, key_value::Error> {
        // The file alone is enough to say.
        match text.split(',').next() {
            Some(first) if !first.is_empty() && !first.contains('=') => {
                key_value::from_str(&format!("path={text}"))
            }
            _ => key_value::from_str(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read() {
        let trace: TraceConfig = "a.trace".parse().unwrap();
        assert_eq!(trace, TraceConfig { path: "a.trace".into(), last: None });
        for text in ["a.trace,last=64M", "path=a.trace,last=64M"] {
            let trace: TraceConfig = text.parse().unwrap();
            assert_eq!(trace.last, Some(MemorySize::from_mib(64)));
        }
        for text in ["", "last=1M", "a,last=x", "a,b"] {
            assert!(text.parse::<TraceConfig>().is_err(), "{text}");
        }
    }
}
