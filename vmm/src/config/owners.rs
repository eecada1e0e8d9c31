//! Whose files are whose: numbers of the host and of the guest.

use std::str::FromStr;

use fileserver::{IdMap, IdRange, Ids};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The word for a map in which all have the same number on both sides.
const SAME: &str = "same";

/// A map of users or groups: `same`, or ranges `HOST:GUEST[:COUNT]` with `+` between them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct OwnerMap {
    text: String,
    map: IdMap,
}

/// A text that is no map.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{0}` is no HOST:GUEST[:COUNT]; several are joined by `+`, and `same` means all")]
pub struct OwnerMapError(String);

impl OwnerMap {
    /// The same numbers on both sides.
    pub fn same() -> Self {
        Self { text: SAME.into(), map: IdMap::identity() }
    }

    /// How owners are translated by maps of users and of groups, or without any.
    pub fn ids(users: Option<&Self>, groups: Option<&Self>) -> Ids {
        match (users, groups) {
            (None, None) => Ids::Squashed,
            (users, groups) => {
                let map =
                    |side: Option<&Self>| side.map_or_else(IdMap::default, |side| side.map.clone());
                Ids::Mapped { users: map(users), groups: map(groups) }
            }
        }
    }
}

impl FromStr for OwnerMap {
    type Err = OwnerMapError;

    fn from_str(text: &str) -> Result<Self, OwnerMapError> {
        let map = if text == SAME {
            IdMap::identity()
        } else {
            let ranges = text.split('+').map(|part| range(part).ok_or(part));
            let ranges: Result<Vec<IdRange>, &str> = ranges.collect();
            IdMap::new(ranges.map_err(|part| OwnerMapError(part.to_owned()))?)
        };
        Ok(Self { text: text.to_owned(), map })
    }
}

fn range(text: &str) -> Option<IdRange> {
    let mut numbers = text.split(':').map(|number| number.parse::<u32>().ok());
    let (host, client) = (numbers.next()??, numbers.next()??);
    let count = numbers.next().unwrap_or(Some(1))?;
    // The last number is no user (`chown(2)`).
    let fits = |first: u32| first.checked_add(count).is_some();
    let whole = numbers.next().is_none() && count > 0 && fits(host) && fits(client);
    whole.then_some(IdRange { host, client, count })
}

impl TryFrom<String> for OwnerMap {
    type Error = OwnerMapError;

    fn try_from(text: String) -> Result<Self, OwnerMapError> {
        text.parse()
    }
}

impl From<OwnerMap> for String {
    fn from(map: OwnerMap) -> Self {
        map.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_and_the_word_for_all_are_read() {
        for text in ["same", "1000:0", "1000:0:1+100000:1:65536", "0:0:4294967295"] {
            let map: OwnerMap = text.parse().expect("a map");
            assert_eq!(String::from(map), text);
        }
        let map: OwnerMap = "7:0".parse().expect("a map");
        let only = IdMap::new(vec![IdRange { host: 7, client: 0, count: 1 }]);
        assert_eq!(
            OwnerMap::ids(Some(&map), None),
            Ids::Mapped { users: only, groups: IdMap::default() }
        );
        assert_eq!(OwnerMap::ids(None, None), Ids::Squashed);
    }

    #[test]
    fn what_is_no_map_is_refused() {
        for text in
            ["", "1", "1:", "1:2:0", "1:2:3:4", "a:b", "1:2+", "4294967295:0", "9:0:4294967295"]
        {
            assert!(text.parse::<OwnerMap>().is_err(), "{text}");
        }
    }
}
