//! Which processors of the host the virtual CPUs of a machine run on.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{CpuCount, CpuList};

/// `0-3`: all virtual CPUs run on these. `0=4,1=5,2-3=6-7`: each on its own ones; those that are not named
/// run anywhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "String")]
pub enum CpuAffinity {
    /// The same for all.
    All(CpuList),
    /// For these virtual CPUs, these.
    Each(Vec<(CpuList, CpuList)>),
}

/// A text that says nothing of the kind.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "CPUs of this host for all virtual ones, as 0-3, or for each, as 0=4,1=5 or 0-1=4-7, are wanted"
)]
pub struct CpuAffinityError;

impl CpuAffinity {
    /// Where a virtual CPU runs, if that is said.
    pub fn of(&self, vcpu: u8) -> Option<&CpuList> {
        match self {
            Self::All(cpus) => Some(cpus),
            Self::Each(each) => {
                let mut each = each.iter();
                let found = each.find(|(vcpus, _)| vcpus.numbers().contains(&vcpu.into()));
                found.map(|(_, cpus)| cpus)
            }
        }
    }

    /// All processors of the host that are named.
    pub(super) fn host_cpus(&self) -> impl Iterator<Item = &CpuList> {
        let (all, each) = match self {
            Self::All(cpus) => (Some(cpus), &[][..]),
            Self::Each(each) => (None, &each[..]),
        };
        all.into_iter().chain(each.iter().map(|(_, cpus)| cpus))
    }

    /// A virtual CPU that is named and that such a machine has not.
    pub(super) fn stranger(&self, count: CpuCount) -> Option<u16> {
        let Self::Each(each) = self else { return None };
        let mut named = each.iter().flat_map(|(vcpus, _)| vcpus.numbers());
        named.find(|vcpu| **vcpu >= count.get().into()).copied()
    }
}

impl FromStr for CpuAffinity {
    type Err = CpuAffinityError;

    fn from_str(text: &str) -> Result<Self, CpuAffinityError> {
        let list = |text: &str| text.parse::<CpuList>().map_err(|_| CpuAffinityError);
        if !text.contains('=') {
            return list(text).map(Self::All);
        }
        // A part without `=` belongs to the part before it: 0=4,6,1=5.
        let mut each: Vec<(&str, String)> = Vec::new();
        for part in text.split(',') {
            match (part.split_once('='), each.last_mut()) {
                (Some((vcpus, cpus)), _) => each.push((vcpus, cpus.to_owned())),
                (None, Some((_, cpus))) => {
                    cpus.push(',');
                    cpus.push_str(part);
                }
                (None, None) => return Err(CpuAffinityError),
            }
        }
        let each = each.into_iter().map(|(vcpus, cpus)| Ok((list(vcpus)?, list(&cpus)?)));
        let each = each.collect::<Result<Vec<_>, CpuAffinityError>>()?;
        let mut named = each.iter().flat_map(|(vcpus, _)| vcpus.numbers()).collect::<Vec<_>>();
        let count = named.len();
        named.sort_unstable();
        named.dedup();
        // A virtual CPU cannot be in two places.
        if named.len() == count { Ok(Self::Each(each)) } else { Err(CpuAffinityError) }
    }
}

impl fmt::Display for CpuAffinity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All(cpus) => cpus.fmt(f),
            Self::Each(each) => {
                for (index, (vcpus, cpus)) in each.iter().enumerate() {
                    write!(f, "{}{vcpus}={cpus}", if index == 0 { "" } else { "," })?;
                }
                Ok(())
            }
        }
    }
}

/// As it may stand in a file.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    List(CpuList),
    Text(String),
}

impl TryFrom<Written> for CpuAffinity {
    type Error = CpuAffinityError;

    fn try_from(written: Written) -> Result<Self, CpuAffinityError> {
        match written {
            Written::List(cpus) => Ok(Self::All(cpus)),
            Written::Text(text) => text.parse(),
        }
    }
}

impl From<CpuAffinity> for String {
    fn from(affinity: CpuAffinity) -> Self {
        affinity.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> CpuList {
        text.parse().expect(text)
    }

    #[test]
    fn all_share_or_each_has_its_own() {
        let all: CpuAffinity = "0-3,6".parse().expect("a list");
        assert_eq!(all, CpuAffinity::All(list("0-3,6")));
        assert_eq!(all.of(63), Some(&list("0-3,6")));
        let each: CpuAffinity = "0=4,6,1=5,2-3=6-7".parse().expect("assignments");
        assert_eq!(each.of(0), Some(&list("4,6")));
        assert_eq!(each.of(3), Some(&list("6-7")));
        assert_eq!(each.of(4), None);
        assert_eq!(each.to_string(), "0=4,6,1=5,2-3=6-7");
        assert_eq!(each.to_string().parse(), Ok(each.clone()));
        assert_eq!(each.host_cpus().count(), 3);
        assert_eq!(each.stranger(4.try_into().expect("a count")), None);
        assert_eq!(each.stranger(2.try_into().expect("a count")), Some(2));
        for text in ["", "x", "0=", "=0", "1,0=2", "0=1,0=2", "0=1=2", "0-1=2,1=3", "0=1,"] {
            assert_eq!(text.parse::<CpuAffinity>(), Err(CpuAffinityError), "{text}");
        }
    }
}
