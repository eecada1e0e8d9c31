//! Making files of all kinds, and names for them.

use std::os::fd::AsFd;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::handles::HandleId;
use crate::identity;
use crate::inodes::InodeId;
use crate::name::Name;
use crate::open::OpenMode;
use crate::reach::Spot;
use crate::tree::{Entry, Tree};
use crate::{Ids, Result, beneath};

/// On whose behalf something is made: numbers of the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Caller {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// What is made, and for whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Creation {
    /// Permissions.
    pub mode: u32,
    /// Permissions that are not given, unless the directory has a default ACL.
    pub umask: u32,
    /// Whose it is.
    pub caller: Caller,
}

/// Files that are made without being opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Special {
    /// A regular file.
    File,
    /// A pipe with a name; it belongs to the client's kernel.
    Fifo,
    /// A socket's place; it belongs to the client's kernel.
    Socket,
}

impl Special {
    /// From the type in a mode. Device files are refused: `EPERM`.
    pub fn from_mode(mode: u32) -> Result<Self> {
        match FileType::from_raw_mode(mode) {
            FileType::RegularFile => Ok(Self::File),
            FileType::Fifo => Ok(Self::Fifo),
            FileType::Socket => Ok(Self::Socket),
            FileType::CharacterDevice | FileType::BlockDevice => Err(Errno::PERM),
            _ => Err(Errno::INVAL),
        }
    }
}

impl Tree {
    /// Makes a directory.
    pub fn make_directory(
        &mut self,
        parent: InodeId,
        name: &Name,
        creation: &Creation,
    ) -> Result<Entry> {
        self.make(parent, name, creation, |at, mode| rustix::fs::mkdirat(at, name.as_c_str(), mode))
    }

    /// Makes a file of another kind.
    pub fn make_special(
        &mut self,
        parent: InodeId,
        name: &Name,
        special: Special,
        creation: &Creation,
    ) -> Result<Entry> {
        let kind = match special {
            Special::File => FileType::RegularFile,
            Special::Fifo => FileType::Fifo,
            Special::Socket => FileType::Socket,
        };
        self.make(parent, name, creation, |at, mode| {
            rustix::fs::mknodat(at, name.as_c_str(), kind, mode, 0)
        })
    }

    /// Makes a symbolic link. Its text means nothing to the server.
    pub fn make_link(
        &mut self,
        parent: InodeId,
        name: &Name,
        text: &std::ffi::CStr,
        creation: &Creation,
    ) -> Result<Entry> {
        self.make(parent, name, creation, |at, _| rustix::fs::symlinkat(text, at, name.as_c_str()))
    }

    fn make(
        &mut self,
        parent: InodeId,
        name: &Name,
        creation: &Creation,
        make: impl FnOnce(std::os::fd::BorrowedFd<'_>, Mode) -> Result<()>,
    ) -> Result<Entry> {
        self.check_writable(parent)?;
        let owner = self.new_owner(creation.caller)?;
        let at = self.node(parent)?;
        self.mask(creation.umask);
        make(at.as_fd(), Mode::from_raw_mode(creation.mode & 0o7777))?;
        let spot = Spot::Named(at.clone(), *name);
        self.give(parent, &spot, owner)?;
        let look = identity::look(&at, name.as_c_str())?;
        self.entry(parent, name, &look)
    }

    /// Makes a regular file, or opens it if it is there and need not be new.
    pub fn create(
        &mut self,
        parent: InodeId,
        name: &Name,
        mode: OpenMode,
        creation: &Creation,
    ) -> Result<(Entry, HandleId)> {
        self.check_writable(parent)?;
        if !self.handles.has_room() {
            return Err(Errno::MFILE);
        }
        let owner = self.new_owner(creation.caller)?;
        let at = self.node(parent)?;
        self.mask(creation.umask);
        let permissions = Mode::from_raw_mode(creation.mode & 0o7777);
        let flags = mode.passed_on();
        let new = flags | OFlags::CREATE | OFlags::EXCL;
        let opened =
            self.with_descriptors(|| beneath::open(&at, name.as_c_str(), new, permissions));
        let file = match opened {
            Err(Errno::EXIST) if !mode.0.contains(OFlags::EXCL) => {
                let entry = self.look_up(parent, name)?;
                return match self.open(entry.inode, mode) {
                    Ok(opened) => Ok((entry, opened.handle)),
                    Err(errno) => {
                        self.forget(entry.inode, 1);
                        Err(errno)
                    }
                };
            }
            file => std::fs::File::from(file?),
        };
        self.give_file(parent, &file, creation, owner)?;
        let look = identity::look_at(&file)?;
        let entry = self.entry(parent, name, &look)?;
        match self.keep(entry.inode, flags, file) {
            Ok(handle) => Ok((entry, handle)),
            Err(errno) => {
                self.forget(entry.inode, 1);
                Err(errno)
            }
        }
    }

    /// Makes a file without a name (`O_TMPFILE`).
    pub fn create_nameless(
        &mut self,
        parent: InodeId,
        mode: OpenMode,
        creation: &Creation,
    ) -> Result<(Entry, HandleId)> {
        self.check_writable(parent)?;
        if !self.handles.has_room() {
            return Err(Errno::MFILE);
        }
        let owner = self.new_owner(creation.caller)?;
        let at = self.node(parent)?;
        self.mask(creation.umask);
        let permissions = Mode::from_raw_mode(creation.mode & 0o7777);
        let flags = mode.passed_on();
        let kept = mode.0 & OFlags::EXCL;
        let file = self.with_descriptors(|| {
            beneath::open(&at, c".", flags | kept | OFlags::TMPFILE, permissions)
        })?;
        let file = std::fs::File::from(file);
        self.give_file(parent, &file, creation, owner)?;
        let look = identity::look_at(&file)?;
        let grant = self.check(parent)?.0.grant;
        let (kind, identity) = (look.attributes.kind(), look.identity);
        let found = crate::inodes::Found { parent, grant, kind, identity };
        let inode = self.inodes.found(&self.ledger, &found, None)?;
        let entry = Entry { inode, attributes: self.show(&look) };
        let handle = self.keep(inode, flags, file)?;
        Ok((entry, handle))
    }

    /// Gives a file one more name.
    pub fn link(&mut self, inode: InodeId, parent: InodeId, name: &Name) -> Result<Entry> {
        self.check_writable(inode)?;
        self.check_writable(parent)?;
        if self.inodes.get(inode)?.grant != self.inodes.get(parent)?.grant {
            return Err(Errno::XDEV);
        }
        let to = self.node(parent)?;
        let (spot, _) = self.spot(inode)?;
        match &spot {
            Spot::Directory(_) => return Err(Errno::PERM),
            Spot::Named(at, old) => {
                rustix::fs::linkat(at, old.as_c_str(), &to, name.as_c_str(), AtFlags::empty())?;
            }
            // Linux lets whoever opened it do that, from 6.10 on; before, it says ENOENT.
            Spot::Open(file) => {
                rustix::fs::linkat(file, c"", &to, name.as_c_str(), AtFlags::EMPTY_PATH)?;
            }
        }
        let look = identity::look(&to, name.as_c_str())?;
        self.entry(parent, name, &look)
    }

    /// The thread's `umask` from now on.
    fn mask(&self, umask: u32) {
        let umask = umask & 0o777;
        if self.umask.replace(Some(umask)) != Some(umask) {
            rustix::process::umask(Mode::from_raw_mode(umask));
        }
    }

    /// Gives what was made to whom it is for.
    fn give(&mut self, parent: InodeId, spot: &Spot, owner: Option<(u32, u32)>) -> Result<()> {
        let Some((uid, gid)) = owner else { return Ok(()) };
        let gid = (!self.inherits_group(parent)?).then_some(gid);
        spot.set_owner(Some(uid), gid)
    }

    /// Whom something new has to be given to, unless it is the server's already. To be asked first: what was made for
    /// somebody who has no number on the host would stay.
    fn new_owner(&self, caller: Caller) -> Result<Option<(u32, u32)>> {
        if self.ids == Ids::Squashed {
            return Ok(None);
        }
        let uid = self.ids.user(caller.uid).ok_or(Errno::OVERFLOW)?;
        let gid = self.ids.group(caller.gid).ok_or(Errno::OVERFLOW)?;
        Ok(((uid, gid) != self.own).then_some((uid, gid)))
    }

    /// Whether what is new in a directory has the directory's group.
    fn inherits_group(&mut self, parent: InodeId) -> Result<bool> {
        Ok(identity::look_at(self.node(parent)?)?.attributes.mode & libc::S_ISGID != 0)
    }

    fn give_file(
        &mut self,
        parent: InodeId,
        file: &std::fs::File,
        creation: &Creation,
        owner: Option<(u32, u32)>,
    ) -> Result<()> {
        let Some((uid, gid)) = owner else { return Ok(()) };
        let gid = (!self.inherits_group(parent)?).then(|| rustix::fs::Gid::from_raw(gid));
        rustix::fs::fchown(file, Some(rustix::fs::Uid::from_raw(uid)), gid)?;
        let special = creation.mode & 0o6000;
        if special != 0 {
            // Giving a file away takes these from it.
            let mode = identity::look_at(file)?.attributes.mode & 0o7777 | special;
            rustix::fs::fchmod(file, Mode::from_raw_mode(mode))?;
        }
        Ok(())
    }
}
