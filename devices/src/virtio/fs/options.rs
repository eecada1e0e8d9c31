//! What can be said about a shared directory.

use fileserver::Ids;
use serde::{Deserialize, Serialize};

use super::protocol::InitFlags;

/// For how long a driver believes what it knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cache {
    /// Not at all: it asks each time, and data goes past its page cache. For files that others change
    /// at the same time.
    Never,
    /// Names and attributes for a second, data until the file is opened again or looks different.
    #[default]
    Auto,
    /// For ever: only the driver changes anything.
    Always,
}

/// Whether a driver may keep back what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Writeback {
    /// No: a write is one of the server's file before it returns.
    #[default]
    Off,
    /// Yes, until it is synced or memory runs short.
    On,
}

/// Whether a driver goes by access control lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Acl {
    /// By modes alone.
    #[default]
    Off,
    /// By POSIX lists, which it has to ask for.
    On,
}

/// What is shared how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FsOptions {
    /// What a driver mounts it by: 1 to 36 bytes.
    pub tag: String,
    /// Queues for requests, beside the one for urgent ones.
    pub queues: u16,
    /// For how long a driver believes what it knows.
    pub cache: Cache,
    /// Whether a driver may keep back what was written.
    pub writeback: Writeback,
    /// Whether a driver goes by access control lists.
    pub acl: Acl,
    /// Whose files are whose.
    pub ids: Ids,
    /// Nothing can be changed.
    pub read_only: bool,
}

impl FsOptions {
    /// The most queues for requests.
    pub const MAX_QUEUES: u16 = 16;
    /// The longest tag (virtio 1.3 section 5.11.4).
    pub const MAX_TAG: usize = 36;

    /// One queue and the defaults.
    pub fn new(tag: impl Into<String>) -> Self {
        Self {
            tag: tag.into(),
            queues: 1,
            cache: Cache::default(),
            writeback: Writeback::default(),
            acl: Acl::default(),
            ids: Ids::default(),
            read_only: false,
        }
    }

    /// What a driver may agree to.
    pub(super) fn offered(&self) -> InitFlags {
        let mut offered = InitFlags::ASYNC_READ
            | InitFlags::ATOMIC_O_TRUNC
            | InitFlags::BIG_WRITES
            | InitFlags::DONT_MASK
            | InitFlags::DO_READDIRPLUS
            | InitFlags::READDIRPLUS_AUTO
            | InitFlags::ASYNC_DIO
            | InitFlags::PARALLEL_DIROPS
            | InitFlags::MAX_PAGES
            | InitFlags::HANDLE_KILLPRIV_V2
            | InitFlags::INIT_EXT
            | InitFlags::DIRECT_IO_ALLOW_MMAP;
        match self.cache {
            Cache::Always => offered |= InitFlags::CACHE_SYMLINKS,
            Cache::Auto | Cache::Never => offered |= InitFlags::AUTO_INVAL_DATA,
        }
        if self.writeback == Writeback::On {
            offered |= InitFlags::WRITEBACK_CACHE;
        }
        if self.acl == Acl::On {
            offered |= InitFlags::POSIX_ACL;
        }
        offered
    }
}
