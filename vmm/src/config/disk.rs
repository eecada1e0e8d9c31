//! One disk of a machine.

use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::count::{Count, Counted};
use super::{ByteCount, CpuList, DeviceId, key_value};

/// A disk: `--disk path=...,ro,direct,sqpoll,iopoll,queues=N,threads=N,block-size=N,id=S,cpus=L` or a `[[disk]]` table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a flag of its own that a user gives or not"
)]
pub struct DiskConfig {
    /// The image file or block device.
    pub path: PathBuf,
    /// The guest cannot write.
    #[serde(default, rename = "ro")]
    pub read_only: bool,
    /// Past the host's page cache (`O_DIRECT`).
    #[serde(default)]
    pub direct: bool,
    /// A thread of the kernel looks for requests (`IORING_SETUP_SQPOLL`).
    #[serde(default)]
    pub sqpoll: bool,
    /// The processor that it runs on; it is there then without `sqpoll`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sqpoll_cpu: Option<u32>,
    /// Direct I/O is polled for (`IORING_SETUP_IOPOLL`).
    #[serde(default)]
    pub iopoll: bool,
    /// Request queues; None is one for each CPU, as far as they go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queues: Option<QueueCount>,
    /// Threads that serve the queues.
    #[serde(default, skip_serializing_if = "ThreadCount::is_one")]
    pub threads: ThreadCount,
    /// The logical block size.
    #[serde(default)]
    pub block_size: BlockSize,
    /// What it is called, and what the guest sees as the serial number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<DeviceId>,
    /// CPUs of the host that it is served on; None is any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<CpuList>,
    /// Bytes that it moves each second at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_bytes: Option<ByteCount>,
    /// Requests that it begins each second at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_ops: Option<u64>,
}

impl DiskConfig {
    /// A writable disk with nothing but defaults.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            read_only: false,
            direct: false,
            sqpoll: false,
            sqpoll_cpu: None,
            iopoll: false,
            queues: None,
            threads: ThreadCount::default(),
            block_size: BlockSize::default(),
            id: None,
            cpus: None,
            limit_bytes: None,
            limit_ops: None,
        }
    }
}

impl DiskConfig {
    /// How many queues it has in a machine with so many CPUs.
    pub fn queues_for(&self, cpus: super::CpuCount) -> QueueCount {
        self.queues.unwrap_or_else(|| QueueCount::for_cpus(cpus))
    }
}

impl FromStr for DiskConfig {
    type Err = key_value::Error;

    fn from_str(text: &str) -> Result<Self, key_value::Error> {
        key_value::from_str(text)
    }
}

/// How many request queues a disk has: 1 to 16.
pub type QueueCount = Count<DiskQueues>;

/// How many threads serve the queues of a disk: 1 to 16.
pub type ThreadCount = Count<DiskThreads>;

/// More than there are virtual CPUs bring nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskQueues {}

/// One for each queue at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskThreads {}

impl Counted for DiskQueues {
    const MOST: u16 = 16;
    type Error = DiskValueError;
    const REFUSED: DiskValueError = DiskValueError::Queues;
}

impl Counted for DiskThreads {
    const MOST: u16 = DiskQueues::MOST;
    type Error = DiskValueError;
    const REFUSED: DiskValueError = DiskValueError::Threads;
}

/// The bytes of a logical block: 512 or 4096.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "u32")]
pub struct BlockSize(u32);

/// Why a value is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DiskValueError {
    /// See [`QueueCount`].
    #[error("a disk has 1 to {} queues", DiskQueues::MOST)]
    Queues,
    /// See [`ThreadCount`].
    #[error("a disk has 1 to {} threads", DiskThreads::MOST)]
    Threads,
    /// See [`BlockSize`].
    #[error("a block has 512 or 4096 bytes")]
    BlockSize,
}

impl QueueCount {
    /// One queue for each CPU, up to the most there can be.
    pub fn for_cpus(cpus: super::CpuCount) -> Self {
        Self::up_to_most(cpus.get().into())
    }
}

impl BlockSize {
    /// The size in bytes.
    pub const fn bytes(self) -> u32 {
        self.0
    }
}

impl Default for BlockSize {
    fn default() -> Self {
        Self(512)
    }
}

impl TryFrom<i64> for BlockSize {
    type Error = DiskValueError;

    fn try_from(bytes: i64) -> Result<Self, DiskValueError> {
        match bytes {
            512 | 4096 => Ok(Self(bytes as u32)),
            _ => Err(DiskValueError::BlockSize),
        }
    }
}

impl From<BlockSize> for u32 {
    fn from(size: BlockSize) -> Self {
        size.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_read() {
        let disk: DiskConfig =
            "path=a.img,ro,direct,sqpoll,sqpoll-cpu=1,iopoll,queues=16,threads=4,\
                              block-size=4096,id=root disk,limit-bytes=10M,limit-ops=500"
                .parse()
                .expect("all keys");
        assert_eq!(disk.path, PathBuf::from("a.img"));
        assert!(disk.read_only && disk.direct && disk.sqpoll && disk.iopoll);
        assert_eq!(disk.sqpoll_cpu, Some(1));
        assert_eq!(disk.queues.map(QueueCount::get), Some(16));
        assert_eq!(disk.threads.get(), 4);
        assert_eq!(disk.block_size.bytes(), 4096);
        assert_eq!(disk.limit_bytes.map(ByteCount::get), Some(10 << 20));
        assert_eq!(disk.limit_ops, Some(500));
        assert_eq!(disk.id.as_ref().map(DeviceId::as_str), Some("root disk"));
        assert_eq!("path=a.img".parse(), Ok(DiskConfig::new("a.img")));
    }

    #[test]
    fn values_out_of_range_are_refused() {
        let table = [
            ("queues=0", "`0` is no value for `queues`: a disk has 1 to 16 queues"),
            ("queues=17", "`17` is no value for `queues`: a disk has 1 to 16 queues"),
            ("threads=0", "`0` is no value for `threads`: a disk has 1 to 16 threads"),
            ("threads=17", "`17` is no value for `threads`: a disk has 1 to 16 threads"),
            (
                "block-size=1024",
                "`1024` is no value for `block-size`: a block has 512 or 4096 bytes",
            ),
            (
                "limit-bytes=much",
                "`much` is no value for `limit-bytes`: \
                 a number of bytes like 1000000, 64K, 10M or 1G is wanted",
            ),
            ("id=", "`` is no value for `id`: an id has 1 to 20 printable ASCII characters"),
            (
                "id=123456789012345678901",
                "`123456789012345678901` is no value for `id`: \
                 an id has 1 to 20 printable ASCII characters",
            ),
            (
                "rw",
                "unknown key `rw` (did you mean `ro`?); the keys are path, ro, direct, sqpoll, \
                 sqpoll-cpu, iopoll, queues, threads, block-size, id, cpus, limit-bytes and limit-ops",
            ),
            ("ro", "the key `path` is missing"),
            ("path=a,path=b", "the key `path` is repeated"),
        ];
        for (text, expected) in table {
            let error = text.parse::<DiskConfig>().expect_err(text);
            assert_eq!(error.to_string(), expected, "{text}");
        }
    }
}
