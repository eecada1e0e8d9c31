//! What is shared: directories that somebody opened for the server.

use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::FileType;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::identity::{self, Identity};
use crate::name::Name;

/// What a client may do below a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Access {
    /// Everything.
    ReadWrite,
    /// Nothing that changes anything: `EROFS`.
    ReadOnly,
}

/// A directory to share.
#[derive(Debug)]
pub struct Grant {
    /// The directory; `O_PATH` will do.
    pub directory: OwnedFd,
    /// What a client may do.
    pub access: Access,
}

/// Names a grant as long as the tree lives; numbers are not used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GrantId(pub(crate) u32);

/// `ST_NODEV` of linux/statfs.h
const NO_DEVICES: u64 = 0x4;
/// `ST_NOSYMFOLLOW` of linux/statfs.h
const NO_LINKS: u64 = 0x2000;

/// A grant in its tree.
#[derive(Debug)]
pub(crate) struct Granted {
    pub(crate) directory: Rc<OwnedFd>,
    pub(crate) access: Access,
    pub(crate) identity: Identity,
    pub(crate) mount: u64,
    /// Whether the kernel itself follows no link below it (`MOUNT_ATTR_NOSYMFOLLOW`).
    pub(crate) without_links: bool,
    /// Whether the kernel itself opens no device below it (`MOUNT_ATTR_NODEV`).
    pub(crate) without_devices: bool,
    /// None for a tree's only grant, which is its root.
    pub(crate) name: Option<Name>,
}

impl Granted {
    /// Whether it is the same directory in the same way.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        (self.identity, self.mount, self.access) == (other.identity, other.mount, other.access)
    }

    pub(crate) fn new(grant: Grant, name: Option<&Name>) -> Result<Self> {
        let look = identity::look_at(grant.directory.as_fd())?;
        if look.attributes.kind() != FileType::Directory {
            return Err(Errno::NOTDIR);
        }
        let flags = rustix::fs::fstatfs(&grant.directory)?.f_flags as u64;
        Ok(Self {
            directory: Rc::new(grant.directory),
            access: grant.access,
            identity: look.identity,
            mount: look.mount,
            without_links: flags & NO_LINKS != 0,
            without_devices: flags & NO_DEVICES != 0,
            name: name.copied(),
        })
    }
}
