//! A directory of the host that the guest sees.

use std::path::PathBuf;
use std::str::FromStr;

use devices::virtio::fs::{Cache, FsOptions};
use fileserver::Ids;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::count::{Count, Counted};
use super::{CpuList, OwnerMap, key_value};

/// A shared directory: `--share
/// path=DIR,tag=T[,type=fs|9p][,ro][,cache=..][,writeback][,acl][,queues=N][,uid-map=M,gid-map=M]` or a
/// `[[share]]` table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ShareConfig {
    /// The directory; without one, directories are shared while the machine runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// What the guest mounts it by.
    pub tag: ShareTag,
    /// What the guest speaks.
    #[serde(default, rename = "type")]
    pub protocol: ShareProtocol,
    /// The guest cannot change anything.
    #[serde(default, rename = "ro")]
    pub read_only: bool,
    /// For how long the guest believes what it knows.
    #[serde(default)]
    pub cache: Cache,
    /// The guest keeps back what it wrote.
    #[serde(default)]
    pub writeback: bool,
    /// The guest goes by access control lists.
    #[serde(default)]
    pub acl: bool,
    /// Request queues.
    #[serde(default)]
    pub queues: ShareQueues,
    /// CPUs of the host that it is served on; None is any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<CpuList>,
    /// Users of the host and of the guest; without maps all files are the guest's root's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid_map: Option<OwnerMap>,
    /// Groups of the host and of the guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid_map: Option<OwnerMap>,
}

impl ShareConfig {
    /// Whose files are whose.
    pub fn ids(&self) -> Ids {
        OwnerMap::ids(self.uid_map.as_ref(), self.gid_map.as_ref())
    }

    /// The first key that its protocol has no meaning for.
    pub fn foreign_key(&self) -> Option<&'static str> {
        let set = [
            ("cache", self.cache != Cache::default()),
            ("writeback", self.writeback),
            ("queues", self.queues != ShareQueues::default()),
        ];
        let foreign = set.into_iter().find(|(_, set)| *set).map(|(key, _)| key);
        foreign.filter(|_| self.protocol == ShareProtocol::P9)
    }

    /// A writable directory with nothing but defaults.
    pub fn new(path: impl Into<PathBuf>, tag: ShareTag) -> Self {
        Self {
            path: Some(path.into()),
            tag,
            protocol: ShareProtocol::default(),
            read_only: false,
            cache: Cache::default(),
            writeback: false,
            acl: false,
            queues: ShareQueues::default(),
            cpus: None,
            uid_map: None,
            gid_map: None,
        }
    }
}

impl FromStr for ShareConfig {
    type Err = key_value::Error;

    fn from_str(text: &str) -> Result<Self, key_value::Error> {
        key_value::from_str(text)
    }
}

/// What a guest speaks with the server of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum ShareProtocol {
    /// FUSE, by a virtio file system.
    #[default]
    #[serde(rename = "fs")]
    Fs,
    /// 9P2000.L, by a virtio 9P transport.
    #[serde(rename = "9p")]
    P9,
}

/// What a directory is mounted by: 1 to 36 printable ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ShareTag(String);

/// How many request queues a shared directory has: 1 to 16.
pub type ShareQueues = Count<DirectoryQueues>;

/// Those of a shared directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DirectoryQueues {}

impl Counted for DirectoryQueues {
    const MOST: u16 = FsOptions::MAX_QUEUES;
    type Error = ShareValueError;
    const REFUSED: ShareValueError = ShareValueError::Queues;
}

/// Why a value is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ShareValueError {
    /// See [`ShareTag`].
    #[error("a tag has 1 to {} printable ASCII characters", FsOptions::MAX_TAG)]
    Tag,
    /// See [`ShareQueues`].
    #[error("a shared directory has 1 to {} queues", FsOptions::MAX_QUEUES)]
    Queues,
}

impl ShareTag {
    /// The characters.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ShareTag {
    type Error = ShareValueError;

    fn try_from(text: String) -> Result<Self, ShareValueError> {
        let printable = text.bytes().all(|byte| byte.is_ascii_graphic());
        if printable && (1..=FsOptions::MAX_TAG).contains(&text.len()) {
            Ok(Self(text))
        } else {
            Err(ShareValueError::Tag)
        }
    }
}

impl From<ShareTag> for String {
    fn from(tag: ShareTag) -> Self {
        tag.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_read() {
        let text = "path=/srv,tag=src,ro,cache=always,writeback,acl,queues=4,uid-map=same,gid-map=7:0,type=9p";
        let share: ShareConfig = text.parse().expect("all keys");
        assert_eq!((share.protocol, share.foreign_key()), (ShareProtocol::P9, Some("cache")));
        assert_eq!((share.path, share.tag.as_str()), (Some(PathBuf::from("/srv")), "src"));
        assert!(share.read_only && share.writeback && share.acl);
        assert_eq!((share.cache, share.queues.get()), (Cache::Always, 4));
        assert_eq!((share.uid_map, share.gid_map), ("same".parse().ok(), "7:0".parse().ok()));
        let share: ShareConfig = "path=.,tag=a".parse().expect("defaults");
        assert_eq!((share.cache, share.queues.get(), share.read_only), (Cache::Auto, 1, false));
        assert_eq!((share.protocol, share.foreign_key()), (ShareProtocol::Fs, None));
    }

    #[test]
    fn values_out_of_range_are_refused() {
        let long = format!("path=.,tag={}", "x".repeat(37));
        let table = [
            "path=.",
            "path=.,tag=",
            "path=.,tag=a b",
            &long,
            "path=.,tag=a,queues=0",
            "path=.,tag=a,queues=17",
            "path=.,tag=a,cache=no",
            "path=.,tag=a,type=nfs",
            "path=.,tag=a,uid-map=1",
            "path=.,tag=a,rw",
        ];
        for text in table {
            assert!(text.parse::<ShareConfig>().is_err(), "{text}");
        }
    }
}
