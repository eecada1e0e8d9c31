//! Requests that make, move and remove names.
//!
//! A predecessor may have died with one of these under way. Whether it had made its change then is
//! not known, so what says that it was made is taken for success: a name that is there, or gone.

use std::ffi::CString;

use fileserver::{
    Caller, Creation, Entry, Errno, Exchange, FileType, InodeId, Name, OpenMode, Result, Special,
};

use super::answer;
use super::fids::{Fid, Place, State};
use super::session::Session;
use crate::wire::{Qid, Reply};

/// `AT_REMOVEDIR` of the protocol.
const REMOVE_DIRECTORY: u32 = 0x200;

/// How far a request has come before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attempt {
    /// Nobody has begun it.
    First,
    /// A predecessor died with it.
    Repeated,
}

/// What is made for whom. The client has applied its umask.
fn creation(fid: Fid, mode: u32, gid: u32) -> Creation {
    Creation { mode, umask: 0, caller: Caller { uid: fid.uid, gid } }
}

impl Session {
    /// What was made, as the answer has it.
    fn made(
        &mut self,
        parent: InodeId,
        name: &Name,
        made: Result<Entry>,
        attempt: Attempt,
    ) -> Result<Qid> {
        let entry = match made {
            Err(Errno::EXIST) if attempt == Attempt::Repeated => self.tree.look_up(parent, name)?,
            made => made?,
        };
        // The client walks there when it wants a fid.
        self.tree.forget(entry.inode, 1);
        Ok(answer::qid(&entry.attributes))
    }

    pub(super) fn make_directory(
        &mut self,
        (number, name): (u32, &[u8]),
        mode: u32,
        gid: u32,
        attempt: Attempt,
    ) -> Result<()> {
        let (fid, name) = (self.fids.get(number)?, Name::new(name)?);
        let creation = creation(fid, mode, gid);
        let result = self.tree.make_directory(fid.inode, &name, &creation);
        let qid = self.made(fid.inode, &name, result, attempt)?;
        self.reply(&Reply::Mkdir { qid });
        Ok(())
    }

    pub(super) fn make_link(
        &mut self,
        (number, name): (u32, &[u8]),
        target: &[u8],
        gid: u32,
        attempt: Attempt,
    ) -> Result<()> {
        let (fid, name) = (self.fids.get(number)?, Name::new(name)?);
        let target = CString::new(target).map_err(|_| Errno::INVAL)?;
        let creation = creation(fid, 0o777, gid);
        let made = self.tree.make_link(fid.inode, &name, &target, &creation);
        let qid = self.made(fid.inode, &name, made, attempt)?;
        self.reply(&Reply::Symlink { qid });
        Ok(())
    }

    pub(super) fn make_special(
        &mut self,
        (number, name): (u32, &[u8]),
        mode: u32,
        gid: u32,
        attempt: Attempt,
    ) -> Result<()> {
        let (fid, name) = (self.fids.get(number)?, Name::new(name)?);
        // Without a type it is a file (mknod(2)).
        let typed =
            if mode & libc::S_IFMT == 0 { FileType::RegularFile.as_raw_mode() } else { mode };
        let special = Special::from_mode(typed)?;
        let creation = creation(fid, mode, gid);
        let result = self.tree.make_special(fid.inode, &name, special, &creation);
        let qid = self.made(fid.inode, &name, result, attempt)?;
        self.reply(&Reply::Mknod { qid });
        Ok(())
    }

    /// Makes a file; the fid of the directory is the file's from then on.
    pub(super) fn create(
        &mut self,
        (number, name): (u32, &[u8]),
        flags: u32,
        mode: u32,
        gid: u32,
        attempt: Attempt,
    ) -> Result<()> {
        let (fid, name) = (self.fids.get(number)?, Name::new(name)?);
        let again = attempt == Attempt::Repeated;
        let qid = match fid.state {
            // The answer was all that was missing.
            State::Open(handle) if again => {
                answer::qid(&self.tree.attributes(fid.inode, Some(handle))?)
            }
            State::Idle => {
                let flags = if again { flags & !(libc::O_EXCL as u32) } else { flags };
                let creation = creation(fid, mode, gid);
                let open = OpenMode::from_bits(flags);
                let (entry, handle) = self.tree.create(fid.inode, &name, open, &creation)?;
                let place = Place::new(fid.inode, &name);
                let state = State::Open(handle);
                let new = Fid { inode: entry.inode, state, uid: fid.uid, place };
                self.fids.set(self.tree.ledger(), number, new)?;
                self.tree.forget(fid.inode, 1);
                answer::qid(&entry.attributes)
            }
            State::Open(_) | State::Value | State::Lost => return Err(Errno::BADF),
        };
        self.reply(&Reply::Lcreate { qid, iounit: 0 });
        Ok(())
    }

    pub(super) fn link(
        &mut self,
        (directory, name): (u32, &[u8]),
        number: u32,
        attempt: Attempt,
    ) -> Result<()> {
        let (parent, name) = (self.fids.get(directory)?.inode, Name::new(name)?);
        let old = self.fids.get(number)?.inode;
        let made = self.tree.link(old, parent, &name);
        self.made(parent, &name, made, attempt).map(drop)
    }

    pub(super) fn unlink(
        &mut self,
        (number, name): (u32, &[u8]),
        flags: u32,
        attempt: Attempt,
    ) -> Result<()> {
        let (parent, name) = (self.fids.get(number)?.inode, Name::new(name)?);
        let removed = match flags {
            0 => self.tree.remove(parent, &name),
            REMOVE_DIRECTORY => self.tree.remove_directory(parent, &name),
            _ => return Err(Errno::INVAL),
        };
        match removed {
            Err(Errno::NOENT) if attempt == Attempt::Repeated => Ok(()),
            result => result,
        }
    }

    /// Removes the file of a fid. The fid is gone in any case.
    pub(super) fn remove(&mut self, number: u32, attempt: Attempt) -> Result<()> {
        let fid = match self.fids.get(number) {
            Err(Errno::BADF) if attempt == Attempt::Repeated => return Ok(()),
            fid => fid?,
        };
        let removed =
            self.whereabouts(fid).and_then(|(parent, name)| match self.tree.kind(fid.inode)? {
                FileType::Directory => self.tree.remove_directory(parent, &name),
                _ => self.tree.remove(parent, &name),
            });
        self.clunk(number, attempt)?;
        match removed {
            Err(Errno::STALE | Errno::NOENT) if attempt == Attempt::Repeated => Ok(()),
            result => result,
        }
    }

    /// Moves the file of a fid.
    pub(super) fn rename(
        &mut self,
        number: u32,
        (directory, name): (u32, &[u8]),
        attempt: Attempt,
    ) -> Result<()> {
        let fid = self.fids.get(number)?;
        let (to, name) = (self.fids.get(directory)?.inode, Name::new(name)?);
        let moved = self.whereabouts(fid).and_then(|(parent, old)| {
            self.tree.rename((parent, &old), (to, &name), Exchange::Replace)
        });
        match moved {
            Err(Errno::NOENT | Errno::STALE) if attempt == Attempt::Repeated => {
                let found = self.tree.look_up(to, &name)?.inode;
                self.tree.forget(found, 1);
                if found != fid.inode {
                    return Err(Errno::STALE);
                }
            }
            moved => moved?,
        }
        let moved = Fid { place: Place::new(to, &name), ..fid };
        self.fids.set(self.tree.ledger(), number, moved)
    }

    pub(super) fn rename_at(
        &mut self,
        (from, old): (u32, &[u8]),
        (to, new): (u32, &[u8]),
        attempt: Attempt,
    ) -> Result<()> {
        let (from, old) = (self.fids.get(from)?.inode, Name::new(old)?);
        let (to, new) = (self.fids.get(to)?.inode, Name::new(new)?);
        match self.tree.rename((from, &old), (to, &new), Exchange::Replace) {
            Err(Errno::NOENT) if attempt == Attempt::Repeated => {
                let moved = self.tree.look_up(to, &new)?;
                self.tree.forget(moved.inode, 1);
                Ok(())
            }
            result => result,
        }
    }

    /// By which name a fid's file is reached. One that has several has to be where the fid found it: what
    /// another fid found it by is not what is meant.
    fn whereabouts(&mut self, fid: Fid) -> Result<(InodeId, Name)> {
        let (parent, name) = self.tree.whereabouts(fid.inode)?;
        let here = Place::new(parent, &name) == fid.place;
        if !here && self.tree.kind(fid.inode)? != FileType::Directory {
            let links = self.tree.attributes(fid.inode, None)?.links;
            if links > 1 {
                return Err(Errno::STALE);
            }
        }
        Ok((parent, name))
    }
}
