//! A device that another program serves over vhost-user.

use std::path::PathBuf;
use std::str::FromStr;

use devices::virtio::net::MacAddress;
use devices::virtio::vhost_user::remote::RemoteKind;
use serde::{Deserialize, Serialize};

use super::{QueueCount, ShareTag, key_value};

/// A device of another program: `--vhost-user type=blk|net|fs|vsock|rng|console,socket=SOCKET[,queues=N][,tag=TAG][,mac=M]`
/// or a `[[vhost-user]]` table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct VhostUserConfig {
    /// What it is.
    #[serde(rename = "type")]
    pub kind: RemoteKind,
    /// Where the program listens.
    pub socket: PathBuf,
    /// Queues for requests of a disk or a file system; one for each CPU without a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queues: Option<QueueCount>,
    /// What a file system is mounted by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<ShareTag>,
    /// The address of a network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddress>,
}

impl VhostUserConfig {
    /// A key that makes no sense for its kind.
    pub(super) fn stray_key(&self) -> Option<&'static str> {
        let several = matches!(self.kind, RemoteKind::Blk | RemoteKind::Fs);
        match self.kind {
            _ if self.queues.is_some() && !several => Some("queues"),
            RemoteKind::Fs => self.mac.map(|_| "mac"),
            RemoteKind::Net => self.tag.as_ref().map(|_| "tag"),
            _ => self.tag.as_ref().map(|_| "tag").or(self.mac.map(|_| "mac")),
        }
    }
}

impl FromStr for VhostUserConfig {
    type Err = key_value::Error;

    fn from_str(text: &str) -> Result<Self, key_value::Error> {
        key_value::from_str(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_read_and_others_are_not() {
        let disk: VhostUserConfig = "type=blk,socket=/run/d,queues=4".parse().expect("a disk");
        assert_eq!((disk.kind, disk.socket.to_str()), (RemoteKind::Blk, Some("/run/d")));
        assert_eq!(disk.queues.map(QueueCount::get), Some(4));
        let files: VhostUserConfig = "type=fs,socket=s,tag=src".parse().expect("files");
        assert_eq!(files.tag.as_ref().map(ShareTag::as_str), Some("src"));
        let net: VhostUserConfig =
            "type=net,socket=s,mac=02:00:00:00:00:01".parse().expect("a net");
        assert!(net.mac.is_some());
        let console: VhostUserConfig = "type=console,socket=s".parse().expect("a console");
        assert_eq!(console.kind, RemoteKind::Console);
        for text in ["socket=s", "type=blk", "type=gpu,socket=s", "type=blk,socket=s,ro"] {
            assert!(text.parse::<VhostUserConfig>().is_err(), "{text}");
        }
    }

    #[test]
    fn keys_of_other_kinds_are_noticed() {
        let stray = |text: &str| text.parse::<VhostUserConfig>().expect("it is read").stray_key();
        assert_eq!(stray("type=net,socket=s,queues=2"), Some("queues"));
        assert_eq!(stray("type=blk,socket=s,tag=a"), Some("tag"));
        assert_eq!(stray("type=console,socket=s,queues=2"), Some("queues"));
        assert_eq!(stray("type=fs,socket=s,mac=02:00:00:00:00:01"), Some("mac"));
        assert_eq!(stray("type=fs,socket=s,tag=a,queues=2"), None);
    }
}
