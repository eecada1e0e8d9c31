//! Processors of the host.

use std::fmt;
use std::str::FromStr;

use executor::MAX_PROCESSORS;
use serde::de::{Deserialize, Deserializer, SeqAccess, Visitor};
use serde::{Serialize, Serializer};
use thiserror::Error;

/// Processors of the host by their numbers, in order: `2`, `0-3`, `0-1,6`; in lists of options `cpus=[0-1,6]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CpuList(Vec<u16>);

/// A text that names no processors.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("numbers of CPUs of this host, as 2, 0-3 or 0-1,6, below {MAX_PROCESSORS} are wanted")]
pub struct CpuListError;

impl CpuList {
    /// Their numbers, of which there is at least one.
    pub fn numbers(&self) -> &[u16] {
        &self.0
    }

    /// These, in any order and perhaps several times. None if there is none.
    pub fn of(numbers: impl IntoIterator<Item = u16>) -> Option<Self> {
        let mut numbers = numbers.into_iter().collect::<Vec<_>>();
        numbers.sort_unstable();
        numbers.dedup();
        (!numbers.is_empty()).then_some(Self(numbers))
    }

    /// The word before them in a sentence.
    pub fn noun(&self) -> &'static str {
        if self.0.len() == 1 { "CPU" } else { "CPUs" }
    }
}

impl FromStr for CpuList {
    type Err = CpuListError;

    fn from_str(text: &str) -> Result<Self, CpuListError> {
        let number = |text: &str| {
            let digits = text.bytes().all(|byte| byte.is_ascii_digit());
            let number = text.parse::<u16>().ok().filter(|_| digits);
            number.filter(|number| usize::from(*number) < MAX_PROCESSORS).ok_or(CpuListError)
        };
        let mut numbers = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return Err(CpuListError);
            }
            numbers.extend(first..=last);
        }
        Self::of(numbers).ok_or(CpuListError)
    }
}

impl fmt::Display for CpuList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let runs = self.0.chunk_by(|one, next| one + 1 == *next);
        for (index, run) in runs.enumerate() {
            let comma = if index == 0 { "" } else { "," };
            match run {
                [only] => write!(f, "{comma}{only}")?,
                [first, .., last] => write!(f, "{comma}{first}-{last}")?,
                [] => {}
            }
        }
        Ok(())
    }
}

impl Serialize for CpuList {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for CpuList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

/// Takes a number, a text, or a list of these.
struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = CpuList;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&CpuListError, f)
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<CpuList, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<CpuList, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<CpuList, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<CpuList, A::Error> {
        let mut numbers = Vec::new();
        while let Some(CpuList(part)) = parts.next_element()? {
            numbers.extend(part);
        }
        CpuList::of(numbers).ok_or_else(|| serde::de::Error::custom(CpuListError))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::DiskConfig;

    #[test]
    fn lists_are_read_and_shown() {
        let table = [
            ("0", &[0][..], "0"),
            ("0-3", &[0, 1, 2, 3], "0-3"),
            ("6,0-1", &[0, 1, 6], "0-1,6"),
            ("2,1,2", &[1, 2], "1-2"),
            ("1023", &[1023], "1023"),
        ];
        for (text, numbers, shown) in table {
            let list: CpuList = text.parse().expect(text);
            assert_eq!((list.numbers(), list.to_string().as_str()), (numbers, shown));
        }
        for text in ["", "-1", "1-", "3-1", "1,", "a", "+1", "1024", "0-70000", "0 1"] {
            assert_eq!(text.parse::<CpuList>(), Err(CpuListError), "{text}");
        }
    }

    #[test]
    fn options_and_files_hold_numbers_texts_and_lists() {
        let of = |text: &str| text.parse::<DiskConfig>().map(|disk| disk.cpus);
        let list = |text: &str| Ok(Some(text.parse().expect(text)));
        assert_eq!(of("path=a,cpus=2"), list("2"));
        assert_eq!(of("path=a,cpus=0-1,ro"), list("0-1"));
        assert_eq!(of("path=a,cpus=[0-1,6]"), list("0-1,6"));
        assert_eq!(of("path=a"), Ok(None));
        assert_eq!(
            of("path=a,cpus=x").expect_err("no list").to_string(),
            "`x` is no value for `cpus`: \
             numbers of CPUs of this host, as 2, 0-3 or 0-1,6, below 1024 are wanted"
        );
        assert!(of("path=a,cpus").is_err() && of("path=a,cpus=[]").is_err());
        let table = [("2", "2"), ("\"0-1,6\"", "0-1,6"), ("[0, \"4-5\"]", "0,4-5")];
        for (text, expected) in table {
            let disk: DiskConfig =
                toml::from_str(&format!("path = \"a\"\ncpus = {text}")).expect(text);
            assert_eq!(disk.cpus, Some(expected.parse().expect(expected)));
            let again = toml::from_str(&toml::to_string(&disk).expect("text"));
            assert_eq!(again, Ok(disk));
        }
        assert!(toml::from_str::<DiskConfig>("path = \"a\"\ncpus = -1").is_err());
    }
}
