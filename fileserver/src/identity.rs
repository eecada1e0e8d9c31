//! Which file it is, and what it looks like: one `statx`.

use std::ffi::CStr;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, FileType, Statx, StatxFlags, makedev};

use crate::Result;

/// All that is asked for. The mount tells whether something is mounted over a name.
fn wanted() -> StatxFlags {
    StatxFlags::BASIC_STATS | StatxFlags::BTIME | StatxFlags::MNT_ID
}

/// Which file of which file system. The time of its birth tells a file from a later one that was
/// given the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    /// Nanoseconds; 0 where the file system does not know.
    pub(crate) birth: u64,
}

/// A time of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Time {
    /// Since 1970.
    pub seconds: i64,
    /// Less than a second.
    pub nanoseconds: u32,
}

/// What a file looks like. Owners are as the client sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    /// Number of the file in its file system.
    pub inode: u64,
    /// Bytes.
    pub size: u64,
    /// Blocks of 512 bytes.
    pub blocks: u64,
    /// Of the last read.
    pub accessed: Time,
    /// Of the last write.
    pub modified: Time,
    /// Of the last change of anything.
    pub changed: Time,
    /// Of its making.
    pub born: Time,
    /// Type and permissions, as `st_mode`.
    pub mode: u32,
    /// Names.
    pub links: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Of a device file.
    pub device_major: u32,
    /// Of a device file.
    pub device_minor: u32,
    /// Best size of transfers.
    pub block_size: u32,
}

impl Attributes {
    /// What kind of file it is.
    pub fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.mode)
    }
}

/// A look at a file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    pub(crate) identity: Identity,
    /// Owners as this process sees them.
    pub(crate) attributes: Attributes,
    pub(crate) mount: u64,
}

/// Looks at a name in a directory, without following it. An empty name is the descriptor's own file.
pub(crate) fn look(at: impl AsFd, name: &CStr) -> Result<Look> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH | AtFlags::NO_AUTOMOUNT;
    Ok(Look::from(&rustix::fs::statx(at, name, flags, wanted())?))
}

/// Looks at an open file.
pub(crate) fn look_at(file: impl AsFd) -> Result<Look> {
    look(file, c"")
}

impl From<&Statx> for Look {
    fn from(status: &Statx) -> Self {
        let time = |stamp: &rustix::fs::StatxTimestamp| Time {
            seconds: stamp.tv_sec,
            nanoseconds: stamp.tv_nsec,
        };
        let (born, mask) = (&status.stx_btime, StatxFlags::BTIME.bits());
        let known = status.stx_mask & mask != 0;
        let nanoseconds = born.tv_sec.wrapping_mul(1_000_000_000).wrapping_add(born.tv_nsec.into());
        let attributes = Attributes {
            inode: status.stx_ino,
            size: status.stx_size,
            blocks: status.stx_blocks,
            accessed: time(&status.stx_atime),
            modified: time(&status.stx_mtime),
            changed: time(&status.stx_ctime),
            born: if known { time(born) } else { Time::default() },
            mode: status.stx_mode.into(),
            links: status.stx_nlink,
            uid: status.stx_uid,
            gid: status.stx_gid,
            device_major: status.stx_rdev_major,
            device_minor: status.stx_rdev_minor,
            block_size: status.stx_blksize,
        };
        let identity = Identity {
            device: makedev(status.stx_dev_major, status.stx_dev_minor),
            inode: status.stx_ino,
            birth: if known { nanoseconds as u64 } else { 0 },
        };
        Self { identity, attributes, mount: status.stx_mnt_id }
    }
}
