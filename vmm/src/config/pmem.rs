//! One file of persistent memory.

use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{MemorySize, key_value};

/// Persistent memory: `--pmem path=FILE,ro,size=SIZE,root` or a `[[pmem]]` table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct PmemConfig {
    /// The file.
    pub path: PathBuf,
    /// The guest cannot write.
    #[serde(default, rename = "ro")]
    pub read_only: bool,
    /// How long the file is made, if it is shorter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<MemorySize>,
    /// The guest's root file system is there.
    #[serde(default)]
    pub root: bool,
}

impl FromStr for PmemConfig {
    type Err = key_value::Error;

    fn from_str(text: &str) -> Result<Self, key_value::Error> {
        key_value::from_str(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read() {
        let pmem: PmemConfig = "path=a.img,ro,root".parse().unwrap();
        assert!(pmem.read_only && pmem.root && pmem.size.is_none());
        let pmem: PmemConfig = "path=a.img,size=64M".parse().unwrap();
        assert_eq!(pmem.size, Some(MemorySize::from_mib(64)));
        for text in ["ro", "path=a,size=x", "path=a,direct", "path=a,path=b"] {
            assert!(text.parse::<PmemConfig>().is_err(), "{text}");
        }
    }
}
