//! Memory in which a guest's kernel keeps its last words.

use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{MemorySize, key_value};

/// Memory that outlasts the guest: `--pstore path=FILE,size=SIZE` or a `[pstore]` table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct PstoreConfig {
    /// The file.
    pub path: PathBuf,
    /// How large it is: a power of two.
    #[serde(default = "default_size")]
    pub size: MemorySize,
}

fn default_size() -> MemorySize {
    MemorySize::from_mib(1)
}

impl FromStr for PstoreConfig {
    type Err = key_value::Error;

    fn from_str(text: &str) -> Result<Self, key_value::Error> {
        key_value::from_str(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mebibyte_is_usual() {
        let pstore: PstoreConfig = "path=a".parse().unwrap();
        assert_eq!(pstore, PstoreConfig { path: "a".into(), size: MemorySize::from_mib(1) });
        let pstore: PstoreConfig = "path=a,size=4M".parse().unwrap();
        assert_eq!(pstore.size, MemorySize::from_mib(4));
        assert!("size=4M".parse::<PstoreConfig>().is_err());
    }
}
