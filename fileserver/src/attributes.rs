//! Attributes: to see and to change.

use std::os::fd::AsFd;

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, Uid};
use rustix::io::Errno;

use crate::Result;
use crate::handles::HandleId;
use crate::identity::{self, Attributes, Time};
use crate::inodes::InodeId;
use crate::reach::Spot;
use crate::tree::Tree;

/// A new size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Bytes.
    pub bytes: u64,
    /// A handle to cut the file by, which may be written to though the file may not.
    pub handle: Option<HandleId>,
    /// What becomes of bits that let others act as the file's owner or group.
    pub set_ids: SetIds,
}

/// What becomes of bits that let others act as a file's owner or group when it is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SetIds {
    /// They stay: whoever changes it has the privilege.
    #[default]
    Keep,
    /// They go.
    Kill,
}

/// What becomes of a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stamp {
    /// It stays.
    #[default]
    Keep,
    /// Now, by this host's clock.
    Now,
    /// This time.
    At(Time),
}

/// What to change; what is not named stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Changes {
    /// Permissions.
    pub mode: Option<u32>,
    /// Owner, of the client's numbers.
    pub uid: Option<u32>,
    /// Group, of the client's numbers.
    pub gid: Option<u32>,
    /// Size.
    pub size: Option<Size>,
    /// Time of the last read.
    pub accessed: Stamp,
    /// Time of the last write.
    pub modified: Stamp,
}

impl Stamp {
    fn timespec(self) -> Timespec {
        match self {
            Self::Keep => Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
            Self::Now => Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
            Self::At(time) => Timespec {
                tv_sec: time.seconds,
                tv_nsec: i64::from(time.nanoseconds % 1_000_000_000),
            },
        }
    }
}

impl Tree {
    /// What a file looks like; by the handle if that is given and still open.
    pub fn attributes(&mut self, inode: InodeId, handle: Option<HandleId>) -> Result<Attributes> {
        if self.is_hub(inode)? {
            return Ok(Self::hub_attributes());
        }
        self.check(inode)?;
        let open = handle.and_then(|handle| self.handles.get(handle).ok());
        let file = open.filter(|open| open.inode == inode).and_then(|open| open.file.clone());
        let look = match file {
            Some(file) => identity::look_at(&file)?,
            None => self.spot(inode)?.1,
        };
        Ok(self.show(&look))
    }

    /// Changes attributes; says what the file looks like then.
    pub fn change(&mut self, inode: InodeId, changes: &Changes) -> Result<Attributes> {
        self.check_writable(inode)?;
        let (spot, _) = self.spot(inode)?;
        if let Some(mode) = changes.mode {
            self.change_mode(inode, &spot, mode)?;
        }
        if changes.uid.is_some() || changes.gid.is_some() {
            self.change_owner(&spot, changes.uid, changes.gid)?;
        }
        if let Some(size) = changes.size {
            self.change_size(inode, size)?;
        }
        if (changes.accessed, changes.modified) != (Stamp::Keep, Stamp::Keep) {
            let times = Timestamps {
                last_access: changes.accessed.timespec(),
                last_modification: changes.modified.timespec(),
            };
            spot.set_times(&times)?;
        }
        let look = match &spot {
            Spot::Directory(node) => identity::look_at(node)?,
            Spot::Named(at, name) => identity::look(at, name.as_c_str())?,
            Spot::Open(file) => identity::look_at(file)?,
        };
        Ok(self.show(&look))
    }

    fn change_mode(&mut self, inode: InodeId, spot: &Spot, mode: u32) -> Result<()> {
        let mode = Mode::from_raw_mode(mode & 0o7777);
        let (at, name) = match spot {
            Spot::Directory(node) => (node, c""),
            Spot::Named(at, name) => (at, name.as_c_str()),
            Spot::Open(file) => return rustix::fs::fchmod(file, mode),
        };
        match chmod_unfollowed(at, name, mode) {
            Err(Errno::NOSYS) => {}
            result => return result,
        }
        // Linux before 6.6 knows no such call. Where no link is followed anyway, the former one will do.
        if self.check(inode)?.1.without_links {
            let name = if name.is_empty() { c"." } else { name };
            return rustix::fs::chmodat(at, name, mode, AtFlags::empty());
        }
        // Else it takes an open file.
        let read = self.open_inode(inode, OFlags::RDONLY);
        let opened = read.or_else(|errno| match errno {
            Errno::ACCESS => self.open_inode(inode, OFlags::WRONLY),
            Errno::NXIO | Errno::LOOP => Err(Errno::OPNOTSUPP),
            _ => Err(errno),
        });
        rustix::fs::fchmod(opened?.0, mode)
    }

    fn change_owner(&mut self, spot: &Spot, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
        if self.ids == crate::Ids::Squashed {
            // All belongs to the client's root, and can only be given to it.
            let root = uid.unwrap_or(0) == 0 && gid.unwrap_or(0) == 0;
            return if root { Ok(()) } else { Err(Errno::PERM) };
        }
        let known = |id: Option<u32>, host: Option<u32>| match (id, host) {
            (None, _) => Ok(None),
            (Some(_), Some(host)) => Ok(Some(host)),
            (Some(_), None) => Err(Errno::PERM),
        };
        let uid = known(uid, uid.and_then(|uid| self.ids.user(uid)))?;
        let gid = known(gid, gid.and_then(|gid| self.ids.group(gid)))?;
        spot.set_owner(uid, gid)
    }

    fn change_size(&mut self, inode: InodeId, size: Size) -> Result<()> {
        let handle = size
            .handle
            .filter(|handle| self.handles.get(*handle).is_ok_and(|open| open.inode == inode));
        if let Some(handle) = handle {
            let file = self.file(handle)?;
            rustix::fs::ftruncate(&file, size.bytes)?;
            return self.after_change(&file, size.set_ids);
        }
        match self.inodes.get(inode)?.kind {
            rustix::fs::FileType::Directory => return Err(Errno::ISDIR),
            rustix::fs::FileType::RegularFile => {}
            _ => return Err(Errno::INVAL),
        }
        let (file, _) = self.open_inode(inode, OFlags::WRONLY)?;
        rustix::fs::ftruncate(&file, size.bytes)?;
        self.after_change(&file, size.set_ids)
    }

    fn after_change(&mut self, file: impl AsFd, set_ids: SetIds) -> Result<()> {
        match set_ids {
            SetIds::Keep => Ok(()),
            SetIds::Kill => self.kill_set_ids(file),
        }
    }

    /// Takes from a file what lets others act as its owner or group, as Linux does when somebody writes
    /// to it who has no privilege. A server with one has to do it itself.
    pub fn kill_set_ids(&mut self, file: impl AsFd) -> Result<()> {
        if self.ids == crate::Ids::Squashed {
            return Ok(());
        }
        let mode = identity::look_at(&file)?.attributes.mode;
        let group = libc::S_ISGID | libc::S_IXGRP;
        let mut killed = mode & libc::S_ISUID;
        if mode & group == group {
            killed |= libc::S_ISGID;
        }
        if killed == 0 {
            return Ok(());
        }
        rustix::fs::fchmod(file, Mode::from_raw_mode(mode & 0o7777 & !killed))
    }

    /// The text of a symbolic link.
    pub fn read_link(&mut self, inode: InodeId) -> Result<Vec<u8>> {
        match self.spot(inode)? {
            (Spot::Named(at, name), _) => {
                let text = rustix::fs::readlinkat(at, name.as_c_str(), Vec::new())?;
                Ok(text.into_bytes())
            }
            (Spot::Directory(_) | Spot::Open(_), _) => Err(Errno::INVAL),
        }
    }
}

impl Spot {
    fn set_times(&self, times: &Timestamps) -> Result<()> {
        match self {
            // Of an O_PATH descriptor there is no other way than by a name; this is one.
            Self::Directory(node) => {
                rustix::fs::utimensat(node, c".", times, AtFlags::SYMLINK_NOFOLLOW)
            }
            Self::Named(at, name) => {
                rustix::fs::utimensat(at, name.as_c_str(), times, AtFlags::SYMLINK_NOFOLLOW)
            }
            Self::Open(file) => rustix::fs::futimens(file, times),
        }
    }

    /// Owners of this host; none stay.
    pub(crate) fn set_owner(&self, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
        let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
        match self {
            Self::Directory(node) => rustix::fs::chownat(node, c"", uid, gid, AtFlags::EMPTY_PATH),
            Self::Named(at, name) => {
                rustix::fs::chownat(at, name.as_c_str(), uid, gid, AtFlags::SYMLINK_NOFOLLOW)
            }
            Self::Open(file) => rustix::fs::fchown(file, uid, gid),
        }
    }
}

/// `fchmodat2` (Linux 6.6): a name that is not followed, or none for the directory itself.
fn chmod_unfollowed(at: impl AsFd, name: &std::ffi::CStr, mode: Mode) -> Result<()> {
    /// The number is the same on all architectures.
    const FCHMODAT2: libc::c_long = 452;
    use std::os::fd::AsRawFd;
    let flags = libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH;
    let at = at.as_fd().as_raw_fd();
    // SAFETY: the name ends with a zero and lives during the call.
    let result = unsafe { libc::syscall(FCHMODAT2, at, name.as_ptr(), mode.as_raw_mode(), flags) };
    if result == 0 {
        return Ok(());
    }
    let error = std::io::Error::last_os_error();
    Err(Errno::from_io_error(&error).unwrap_or(Errno::IO))
}
