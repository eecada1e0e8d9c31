//! Whose files are whose: users and groups of the host and of the client.

use serde::{Deserialize, Serialize};

/// Whom files belong to whose owner has no number on the other side (`overflowuid`).
pub const NOBODY: u32 = 65_534;

/// How owners are translated.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Ids {
    /// All files look as if they were the client's root's, and all that is made belongs to the
    /// user that the server runs as. Needs no privilege.
    #[default]
    Squashed,
    /// By these maps, on behalf of the client's users. The server needs the privileges to give
    /// files away.
    Mapped {
        /// Users.
        users: IdMap,
        /// Groups.
        groups: IdMap,
    },
}

/// Numbers that follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    /// The first on the host.
    pub host: u32,
    /// The first at the client.
    pub client: u32,
    /// How many.
    pub count: u32,
}

/// A map between numbers; the first range that has one counts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct IdMap(Vec<IdRange>);

impl IdMap {
    /// Of these ranges. Without any, nothing has a number on the other side.
    pub fn new(ranges: Vec<IdRange>) -> Self {
        Self(ranges)
    }

    /// All numbers are the same on both sides.
    pub fn identity() -> Self {
        Self(vec![IdRange { host: 0, client: 0, count: u32::MAX }])
    }

    fn to_client(&self, host: u32) -> Option<u32> {
        self.0.iter().find_map(|range| {
            let offset = host.checked_sub(range.host).filter(|offset| *offset < range.count)?;
            range.client.checked_add(offset)
        })
    }

    fn to_host(&self, client: u32) -> Option<u32> {
        self.0.iter().find_map(|range| {
            let offset = client.checked_sub(range.client).filter(|offset| *offset < range.count)?;
            range.host.checked_add(offset)
        })
    }
}

impl Ids {
    /// Owner and group as the client sees them.
    pub(crate) fn to_client(&self, uid: u32, gid: u32) -> (u32, u32) {
        match self {
            Self::Squashed => (0, 0),
            Self::Mapped { users, groups } => {
                let shown = |map: &IdMap, id| map.to_client(id).unwrap_or(NOBODY);
                (shown(users, uid), shown(groups, gid))
            }
        }
    }

    /// A client's user on the host.
    pub(crate) fn user(&self, client: u32) -> Option<u32> {
        match self {
            Self::Squashed => None,
            Self::Mapped { users, .. } => users.to_host(client),
        }
    }

    /// A client's group on the host.
    pub(crate) fn group(&self, client: u32) -> Option<u32> {
        match self {
            Self::Squashed => None,
            Self::Mapped { groups, .. } => groups.to_host(client),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_a_map_lacks_is_nobodys() {
        let map = IdMap::new(vec![
            IdRange { host: 1000, client: 0, count: 1 },
            IdRange { host: 100_000, client: 1, count: 1000 },
        ]);
        let ids = Ids::Mapped { users: map.clone(), groups: IdMap::default() };
        assert_eq!(ids.to_client(1000, 1000), (0, NOBODY));
        assert_eq!(ids.to_client(100_999, 0), (1000, NOBODY));
        assert_eq!(ids.to_client(101_000, 0), (NOBODY, NOBODY));
        assert_eq!((ids.user(0), ids.user(1), ids.user(1001)), (Some(1000), Some(100_000), None));
        assert_eq!(ids.group(0), None);
        assert_eq!(Ids::Squashed.to_client(7, 8), (0, 0));
    }

    proptest! {
        #[test]
        fn maps_round_trip(host in 0..u32::MAX / 2, client in 0..u32::MAX / 2, count: u32, id: u32) {
            let map = IdMap::new(vec![IdRange { host, client, count }]);
            if let Some(there) = map.to_host(id) {
                prop_assert_eq!(map.to_client(there), Some(id));
            }
        }
    }
}
