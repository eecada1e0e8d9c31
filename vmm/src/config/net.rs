//! One network of a machine.

use std::net::Ipv4Addr;
use std::str::FromStr;

use devices::virtio::net::{MAX_QUEUE_PAIRS, MacAddress};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{ByteCount, CpuList, DeviceId, HostForward, NetLimits, TrafficLimits, key_value};

/// A network: `--net tap=NAME|tap|fd=N|user[,mac=...][,queues=N][,mtu=N][,address=A/P][,link=down]
/// [,id=TEXT][,limit-[rx-|tx-]bytes=N][,limit-[rx-|tx-]ops=N]` or a `[[net]]` table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawNet", into = "RawNet")]
pub struct NetConfig {
    /// What it is connected to.
    pub peer: NetPeer,
    /// The guest's address; None makes a random one.
    pub mac: Option<MacAddress>,
    /// Queue pairs; None is one, or one for each descriptor.
    pub queues: Option<QueuePairs>,
    /// The largest packet; None leaves it to what the network is connected to.
    pub mtu: Option<u16>,
    /// Whether the cable is plugged in at the start.
    pub link: Link,
    /// What it is called.
    pub id: Option<DeviceId>,
    /// CPUs of the host that it is served on; None is any.
    pub cpus: Option<CpuList>,
    /// What it may do each second.
    pub limits: NetLimits,
}

/// What a network is connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetPeer {
    /// A tap of the host.
    Tap {
        /// Its name; None makes one with a name of the kernel's choice.
        name: Option<String>,
        /// The host's address, if the tap is made.
        address: Option<HostAddress>,
    },
    /// Taps that whoever starts the machine has opened, one for each queue pair.
    Descriptors(Vec<i32>),
    /// The host's own network, through passt; needs no privileges.
    User {
        /// Ports of the host that lead to the guest.
        forwards: Vec<HostForward>,
    },
}

/// Whether a cable is plugged in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Link {
    /// It is.
    #[default]
    Up,
    /// It is not.
    Down,
}

/// How many queue pairs a network has: 1 to 16.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "u16")]
pub struct QueuePairs(u16);

/// An address and the length of its network's prefix: `192.168.7.1/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostAddress {
    /// The address.
    pub address: Ipv4Addr,
    /// The bits of the network.
    pub prefix: u8,
}

/// Why a value is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NetValueError {
    /// There are several peers, or none.
    #[error("a network has one of `tap`, `tap=NAME`, `fd=N` and `user`")]
    Peer,
    /// See [`QueuePairs`].
    #[error("a network has 1 to {MAX_QUEUE_PAIRS} queue pairs")]
    Queues,
    /// A key that goes with another peer only.
    #[error("`{key}` goes with `{peer}`")]
    Elsewhere {
        /// The key.
        key: &'static str,
        /// What it goes with.
        peer: &'static str,
    },
    /// See [`HostAddress`].
    #[error("an IPv4 address with its prefix is wanted, as 192.168.7.1/24")]
    Address,
    /// See [`HostForward`].
    #[error(
        "a forwarded port is written tcp:HOSTPORT-:GUESTPORT, udp:... or tcp:ADDRESS:HOSTPORT-:GUESTPORT"
    )]
    Forward,
    /// Descriptors must be different ones of this process.
    #[error("descriptors are numbers from 3 on, each once")]
    Descriptors,
}

impl NetConfig {
    /// A network at `peer` with nothing but defaults.
    pub fn new(peer: NetPeer) -> Self {
        Self {
            peer,
            mac: None,
            queues: None,
            mtu: None,
            link: Link::Up,
            id: None,
            cpus: None,
            limits: NetLimits::default(),
        }
    }
}

impl FromStr for NetConfig {
    type Err = key_value::Error;

    fn from_str(text: &str) -> Result<Self, key_value::Error> {
        key_value::from_str(text)
    }
}

/// The keys.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct RawNet {
    #[serde(skip_serializing_if = "Option::is_none")]
    tap: Option<TapKey>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fd: Option<OneOrMany>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    user: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    hostfwd: Vec<HostForward>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mac: Option<MacAddress>,
    #[serde(skip_serializing_if = "Option::is_none")]
    queues: Option<QueuePairs>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mtu: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<HostAddress>,
    #[serde(default)]
    link: Link,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<DeviceId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpus: Option<CpuList>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit_bytes: Option<ByteCount>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit_ops: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit_rx_bytes: Option<ByteCount>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit_rx_ops: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit_tx_bytes: Option<ByteCount>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit_tx_ops: Option<u64>,
}

/// `tap` or `tap=NAME`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
enum TapKey {
    Flag(bool),
    Name(String),
}

/// `fd=3` or `fd=[3,4]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(i32),
    Many(Vec<i32>),
}

impl RawNet {
    fn limits(&self) -> NetLimits {
        NetLimits {
            each: TrafficLimits { bytes: self.limit_bytes, ops: self.limit_ops },
            receive: TrafficLimits { bytes: self.limit_rx_bytes, ops: self.limit_rx_ops },
            transmit: TrafficLimits { bytes: self.limit_tx_bytes, ops: self.limit_tx_ops },
        }
    }
}

impl TryFrom<RawNet> for NetConfig {
    type Error = NetValueError;

    fn try_from(raw: RawNet) -> Result<Self, NetValueError> {
        let limits = raw.limits();
        let RawNet { tap, fd, user, hostfwd, mac, queues, mtu, address, link, id, cpus, .. } = raw;
        let elsewhere = |key, peer| Err(NetValueError::Elsewhere { key, peer });
        if !hostfwd.is_empty() && !user {
            return elsewhere("hostfwd", "user");
        }
        let tap = tap.filter(|tap| *tap != TapKey::Flag(false));
        if address.is_some() && tap.is_none() {
            return elsewhere("address", "tap");
        }
        if queues.is_some() && tap.is_none() {
            return elsewhere("queues", "tap");
        }
        let peer = match (tap, fd, user) {
            (Some(TapKey::Flag(_)), None, false) => NetPeer::Tap { name: None, address },
            (Some(TapKey::Name(name)), None, false) => NetPeer::Tap { name: Some(name), address },
            (None, Some(fd), false) => NetPeer::Descriptors(descriptors(fd)?),
            (None, None, true) => NetPeer::User { forwards: hostfwd },
            _ => return Err(NetValueError::Peer),
        };
        Ok(Self { peer, mac, queues, mtu, link, id, cpus, limits })
    }
}

fn descriptors(fd: OneOrMany) -> Result<Vec<i32>, NetValueError> {
    let descriptors = match fd {
        OneOrMany::One(fd) => vec![fd],
        OneOrMany::Many(many) => many,
    };
    let mut sorted = descriptors.clone();
    sorted.sort_unstable();
    sorted.dedup();
    let plausible = sorted.first().is_some_and(|first| *first > 2);
    if sorted.len() == descriptors.len() && plausible {
        Ok(descriptors)
    } else {
        Err(NetValueError::Descriptors)
    }
}

impl From<NetConfig> for RawNet {
    fn from(net: NetConfig) -> Self {
        let NetConfig { peer, mac, queues, mtu, link, id, cpus, limits } = net;
        let NetLimits { each, receive, transmit } = limits;
        let raw = Self {
            mac,
            queues,
            mtu,
            link,
            id,
            cpus,
            limit_bytes: each.bytes,
            limit_ops: each.ops,
            limit_rx_bytes: receive.bytes,
            limit_rx_ops: receive.ops,
            limit_tx_bytes: transmit.bytes,
            limit_tx_ops: transmit.ops,
            ..Self::default()
        };
        match peer {
            NetPeer::Tap { name, address } => {
                let tap = name.map_or(TapKey::Flag(true), TapKey::Name);
                Self { tap: Some(tap), address, ..raw }
            }
            NetPeer::Descriptors(fds) => Self { fd: Some(OneOrMany::Many(fds)), ..raw },
            NetPeer::User { forwards } => Self { user: true, hostfwd: forwards, ..raw },
        }
    }
}

impl QueuePairs {
    /// The number.
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl TryFrom<i64> for QueuePairs {
    type Error = NetValueError;

    fn try_from(count: i64) -> Result<Self, NetValueError> {
        match u16::try_from(count) {
            Ok(count @ 1..=MAX_QUEUE_PAIRS) => Ok(Self(count)),
            _ => Err(NetValueError::Queues),
        }
    }
}

impl From<QueuePairs> for u16 {
    fn from(count: QueuePairs) -> Self {
        count.0
    }
}

impl TryFrom<String> for HostAddress {
    type Error = NetValueError;

    fn try_from(text: String) -> Result<Self, NetValueError> {
        let parts = text.split_once('/').and_then(|(address, prefix)| {
            let prefix = prefix.parse().ok().filter(|prefix| *prefix <= 32)?;
            Some(Self { address: address.parse().ok()?, prefix })
        });
        parts.ok_or(NetValueError::Address)
    }
}

impl From<HostAddress> for String {
    fn from(address: HostAddress) -> Self {
        format!("{}/{}", address.address, address.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<NetConfig, String> {
        text.parse().map_err(|error: key_value::Error| error.to_string())
    }

    #[test]
    fn every_key_is_read() {
        let net =
            parse("tap=t0,mac=52:54:00:00:00:01,queues=4,mtu=9000,address=10.0.0.1/24,link=down");
        let net = net.expect("all keys");
        let address = HostAddress { address: Ipv4Addr::new(10, 0, 0, 1), prefix: 24 };
        assert_eq!(net.peer, NetPeer::Tap { name: Some("t0".into()), address: Some(address) });
        assert_eq!(net.mac, Some(MacAddress([0x52, 0x54, 0, 0, 0, 1])));
        assert_eq!((net.queues.map(QueuePairs::get), net.mtu), (Some(4), Some(9000)));
        assert_eq!(net.link, Link::Down);
        let made = NetPeer::Tap { name: None, address: None };
        assert_eq!(parse("tap"), Ok(NetConfig::new(made)));
        assert_eq!(parse("fd=3"), Ok(NetConfig::new(NetPeer::Descriptors(vec![3]))));
        assert_eq!(parse("fd=[3,4]"), Ok(NetConfig::new(NetPeer::Descriptors(vec![3, 4]))));
    }

    #[test]
    fn a_direction_goes_by_its_own_limits_and_else_by_those_of_both() {
        let net = parse("tap,id=lan,limit-bytes=1M,limit-ops=500,limit-tx-ops=0,limit-rx-bytes=2M");
        let net = net.expect("all keys");
        assert_eq!(net.id.as_ref().map(DeviceId::as_str), Some("lan"));
        let values = |limits: TrafficLimits| (limits.bytes.map(ByteCount::get), limits.ops);
        assert_eq!(values(net.limits.receive()), (Some(2 << 20), Some(500)));
        assert_eq!(values(net.limits.transmit()), (Some(1 << 20), Some(0)));
        assert_eq!(parse("tap").expect("a tap").limits, NetLimits::default());
    }

    #[test]
    fn forwarded_ports_are_read_and_shown() {
        let net = parse("user,hostfwd=[tcp::8080-:80,udp:127.0.0.1:53-:5353]").expect("both");
        let NetPeer::User { forwards } = net.peer else { panic!("another peer") };
        let shown: Vec<_> = forwards.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["tcp::8080-:80", "udp:127.0.0.1:53-:5353"]);
        assert_eq!("tcp:8080-:80".parse(), Ok(forwards[0]));
    }

    const LIMITED: &str = "tap,id=a,limit-bytes=5,limit-ops=6,limit-rx-ops=7,limit-tx-bytes=8";

    #[test]
    fn the_same_comes_back_from_a_file() {
        for text in
            ["tap", "tap=t0,queues=2", "fd=[5,6],mtu=1400", "user,hostfwd=tcp::1-:2", LIMITED]
        {
            let net = parse(text).expect(text);
            let toml = toml::to_string(&net).expect("is written");
            assert_eq!(toml::from_str(&toml), Ok(net), "{toml}");
        }
    }

    #[test]
    fn other_values_are_refused() {
        let peers = "a network has one of `tap`, `tap=NAME`, `fd=N` and `user`";
        let forward = "a forwarded port is written tcp:HOSTPORT-:GUESTPORT, udp:... or \
                       tcp:ADDRESS:HOSTPORT-:GUESTPORT";
        let table = [
            ("mtu=1500", peers.to_owned()),
            ("tap,user", peers.to_owned()),
            ("user,queues=2", "`queues` goes with `tap`".to_owned()),
            ("tap,hostfwd=tcp::1-:1", "`hostfwd` goes with `user`".to_owned()),
            ("fd=1", "descriptors are numbers from 3 on, each once".to_owned()),
            ("fd=[4,4]", "descriptors are numbers from 3 on, each once".to_owned()),
            ("user,hostfwd=tcp:80", format!("`tcp:80` is no value for `hostfwd`: {forward}")),
            (
                "user,hostfwd=tcp::0-:80",
                format!("`tcp::0-:80` is no value for `hostfwd`: {forward}"),
            ),
            (
                "tap,queues=17",
                "`17` is no value for `queues`: a network has 1 to 16 queue pairs".to_owned(),
            ),
            (
                "tap,adress=1.2.3.4/8",
                "unknown key `adress` (did you mean `address`?); the keys are tap, fd, user, \
                 hostfwd, mac, queues, mtu, address, link, id, cpus, limit-bytes, limit-ops, \
                 limit-rx-bytes, limit-rx-ops, limit-tx-bytes and limit-tx-ops"
                    .to_owned(),
            ),
        ];
        for (text, expected) in table {
            assert_eq!(parse(text).expect_err(text), expected, "{text}");
        }
    }
}
