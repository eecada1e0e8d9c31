//! The sockets between a machine and its host.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use devices::virtio::vsock::{
    DEFAULT_CONNECTIONS, FIRST_GUEST_CID, LAST_GUEST_CID, MAX_CONNECTIONS,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{CpuList, key_value};

/// Sockets: `--vsock path=SOCKET[,cid=N][,connections=N]` or a `[vsock]` table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct VsockConfig {
    /// The Unix socket for programs of the host, and the beginning of the names of those that the
    /// guest connects to.
    pub path: PathBuf,
    /// The guest's context.
    #[serde(default)]
    pub cid: GuestCid,
    /// The most connections at a time.
    #[serde(default)]
    pub connections: ConnectionLimit,
    /// CPUs of the host that it is served on; None is any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<CpuList>,
}

impl VsockConfig {
    /// Where programs of the host connect to for messages.
    pub fn seqpacket_path(&self) -> PathBuf {
        with_suffix(&self.path, ".seqpacket")
    }

    /// Where a program of the host listens for guests.
    pub fn port_path(&self, port: u32) -> PathBuf {
        with_suffix(&self.path, &format!("_{port}"))
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

impl FromStr for VsockConfig {
    type Err = key_value::Error;

    fn from_str(text: &str) -> Result<Self, key_value::Error> {
        key_value::from_str(text)
    }
}

/// What the guest is called: 3 to 4294967294.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "u64")]
pub struct GuestCid(u64);

/// How many connections there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "u16")]
pub struct ConnectionLimit(u16);

/// Why a value is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum VsockValueError {
    /// See [`GuestCid`].
    #[error("a guest's context is {FIRST_GUEST_CID} to {LAST_GUEST_CID}")]
    Cid,
    /// See [`ConnectionLimit`].
    #[error("there are 1 to {MAX_CONNECTIONS} connections at a time")]
    Connections,
}

impl GuestCid {
    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl Default for GuestCid {
    /// The first that a guest can have: each machine has sockets of its own, so there is no other.
    fn default() -> Self {
        Self(FIRST_GUEST_CID)
    }
}

impl TryFrom<i64> for GuestCid {
    type Error = VsockValueError;

    fn try_from(cid: i64) -> Result<Self, VsockValueError> {
        match u64::try_from(cid) {
            Ok(cid @ FIRST_GUEST_CID..=LAST_GUEST_CID) => Ok(Self(cid)),
            _ => Err(VsockValueError::Cid),
        }
    }
}

impl From<GuestCid> for u64 {
    fn from(cid: GuestCid) -> Self {
        cid.0
    }
}

impl ConnectionLimit {
    /// The number.
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl Default for ConnectionLimit {
    fn default() -> Self {
        Self(DEFAULT_CONNECTIONS)
    }
}

impl TryFrom<i64> for ConnectionLimit {
    type Error = VsockValueError;

    fn try_from(count: i64) -> Result<Self, VsockValueError> {
        match u16::try_from(count) {
            Ok(count @ 1..=MAX_CONNECTIONS) => Ok(Self(count)),
            _ => Err(VsockValueError::Connections),
        }
    }
}

impl From<ConnectionLimit> for u16 {
    fn from(limit: ConnectionLimit) -> Self {
        limit.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_read() {
        let vsock: VsockConfig = "path=v.sock,cid=42,connections=100".parse().expect("all keys");
        assert_eq!((vsock.cid.get(), vsock.connections.get()), (42, 100));
        assert_eq!(vsock.path, PathBuf::from("v.sock"));
        assert_eq!(vsock.port_path(1024), PathBuf::from("v.sock_1024"));
        assert_eq!(vsock.seqpacket_path(), PathBuf::from("v.sock.seqpacket"));
        let vsock: VsockConfig = "path=v.sock".parse().expect("the rest has defaults");
        assert_eq!((vsock.cid.get(), vsock.connections.get()), (3, 2048));
    }

    #[test]
    fn values_out_of_range_are_refused() {
        let table = [
            ("path=a,cid=2", "`2` is no value for `cid`: a guest's context is 3 to 4294967294"),
            (
                "path=a,connections=0",
                "`0` is no value for `connections`: there are 1 to 16384 connections at a time",
            ),
            ("cid=3", "the key `path` is missing"),
        ];
        for (text, expected) in table {
            let error = text.parse::<VsockConfig>().expect_err(text);
            assert_eq!(error.to_string(), expected, "{text}");
        }
    }
}
