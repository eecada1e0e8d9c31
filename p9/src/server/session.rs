//! One client: what it calls files by, and what becomes of each of its requests.

use executor::Fd;
use fileserver::{Entry, Errno, FileType, InodeId, Name, OpenMode, Past, Result, Tree};
use serde::{Deserialize, Serialize};

use super::answer;
use super::fids::{Fid, Fids, Place, State};
use super::names::Attempt;
use super::values::Values;
use super::{LEAST_MSIZE, MOST_MSIZE};
use crate::wire::{NO_FID, NO_UID, Names, Qids, Reply, Request, Text, UNKNOWN_VERSION, VERSION};

/// A word of the ledger: the length of messages that was agreed to, or 0 without a session.
const MSIZE: usize = 0;

/// Whether a client gets at access control lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Acl {
    /// There are none, as far as it can see.
    #[default]
    Off,
    /// As they are, with owners by the host's numbers.
    On,
}

/// What a server does for its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionOptions {
    /// The longest message that is agreed to, at most [`MOST_MSIZE`].
    pub msize: u32,
    /// Whether a client gets at access control lists.
    pub acl: Acl,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self { msize: MOST_MSIZE, acl: Acl::Off }
    }
}

/// What becomes of a request.
#[derive(Debug)]
pub enum Outcome {
    /// It is done. What the answer has behind its header is in [`Session::answer`].
    Done(Result<()>),
    /// Data is to be read from a file.
    Read {
        /// The file.
        file: Fd,
        /// From where.
        offset: u64,
        /// How many bytes at most.
        count: u32,
    },
    /// The request's data is to be written to a file.
    Write {
        /// The file.
        file: Fd,
        /// Where to.
        offset: u64,
        /// How many bytes.
        count: u32,
        /// Whether it waits for the disk.
        durable: bool,
    },
    /// The request's data is for [`Session::take_value`]: 64 KiB at most.
    Value {
        /// Of which fid.
        fid: u32,
        /// How many bytes.
        count: u32,
    },
    /// A file is to be made durable.
    Sync {
        /// The file.
        file: Fd,
        /// How much of it.
        how: Durability,
    },
    /// To be answered when the request with that tag was.
    Flush {
        /// The tag.
        tag: u16,
    },
}

/// How much of a file becomes durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// What was written, and what it takes to find that.
    Data,
    /// Its attributes as well.
    All,
}

/// The tree of one client.
#[derive(Debug)]
pub struct Session {
    pub(super) tree: Tree,
    pub(super) options: SessionOptions,
    pub(super) fids: Fids,
    pub(super) values: Values,
    pub(super) answer: Vec<u8>,
}

impl Session {
    /// Goes on where the ledger of the tree says, which has the shape of [`super::shape`].
    pub fn new(tree: Tree, options: SessionOptions) -> Self {
        let fids = Fids::restore(tree.ledger());
        Self { tree, options, fids, values: Values::default(), answer: Vec::new() }
    }

    /// The client is gone, or begins anew.
    pub fn end(&mut self) {
        self.values.clear();
        self.fids.clear(self.tree.ledger());
        self.tree.forget_all();
        self.tree.ledger().clear_journals();
        self.tree.ledger().set_protocol_word(MSIZE, 0);
    }

    /// The longest message that was agreed to; [`MOST_MSIZE`] before that.
    pub fn msize(&self) -> u32 {
        match self.tree.ledger().protocol_word(MSIZE) {
            0 => MOST_MSIZE,
            msize => (msize as u32).clamp(LEAST_MSIZE, MOST_MSIZE),
        }
    }

    fn is_ready(&self) -> bool {
        self.tree.ledger().protocol_word(MSIZE) != 0
    }

    /// What the answer to the last request has behind its header.
    pub fn answer(&self) -> &[u8] {
        &self.answer
    }

    /// Sets that answer: the one that a predecessor had ready, or the one to data that was moved.
    pub fn set_answer(&mut self, bytes: &[u8]) {
        self.answer.clear();
        self.answer.extend_from_slice(bytes);
    }

    pub(super) fn reply(&mut self, reply: &Reply<'_>) {
        reply.write(&mut self.answer);
    }

    /// The answer to data that was written.
    pub fn written(&mut self, count: u32) {
        self.answer.clear();
        self.reply(&Reply::Write { count });
    }

    /// The tree.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Whether doing a request twice is not the same as doing it once.
    pub fn is_noted(request: &Request<'_>) -> bool {
        !matches!(
            request,
            Request::Statfs { .. }
                | Request::Readlink { .. }
                | Request::Getattr { .. }
                | Request::Setattr { .. }
                | Request::Readdir { .. }
                | Request::Fsync { .. }
                | Request::Lock { .. }
                | Request::Getlock { .. }
                | Request::Version { .. }
                | Request::Auth { .. }
                | Request::Flush { .. }
                | Request::Read { .. }
                | Request::Write { .. }
        )
    }

    /// Carries a request out as far as that needs no data. `past` is what a predecessor did for it;
    /// `room` is how long an answer may be, with its header.
    pub fn execute(&mut self, request: &Request<'_>, past: &Past, room: usize) -> Outcome {
        self.answer.clear();
        let room = room.min(self.msize() as usize);
        let attempt = match past {
            Past::Nothing => Attempt::First,
            Past::Begun | Past::Done(_) => Attempt::Repeated,
        };
        let outcome = match *request {
            Request::Version { msize, version } => self.version(msize, version.0),
            Request::Flush { tag } => return Outcome::Flush { tag },
            _ if !self.is_ready() => Err(Errno::PROTO),
            Request::Read { fid, offset, count } => match self.read(fid, offset, count, room) {
                Ok(Some(outcome)) => return outcome,
                result => result.map(drop),
            },
            Request::Write { fid, offset, count } => match self.write(fid, offset, count) {
                Ok(outcome) => return outcome,
                Err(errno) => Err(errno),
            },
            Request::Fsync { fid, datasync } => match self.file(fid) {
                Ok(file) => {
                    let how = if datasync == 0 { Durability::All } else { Durability::Data };
                    return Outcome::Sync { file, how };
                }
                Err(errno) => Err(errno),
            },
            _ => self.names(request, attempt, room),
        };
        if outcome.is_err() {
            self.answer.clear();
        }
        Outcome::Done(outcome)
    }

    /// Requests that make, move and remove names; all others go on.
    fn names(&mut self, request: &Request<'_>, attempt: Attempt, room: usize) -> Result<()> {
        match *request {
            Request::Lcreate { fid, name, flags, mode, gid } => {
                self.create((fid, name.0), flags, mode, gid, attempt)
            }
            Request::Symlink { fid, name, target, gid } => {
                self.make_link((fid, name.0), target.0, gid, attempt)
            }
            Request::Mknod { fid, name, mode, gid, .. } => {
                self.make_special((fid, name.0), mode, gid, attempt)
            }
            Request::Mkdir { fid, name, mode, gid } => {
                self.make_directory((fid, name.0), mode, gid, attempt)
            }
            Request::Link { directory, fid, name } => self.link((directory, name.0), fid, attempt),
            Request::Unlinkat { fid, name, flags } => self.unlink((fid, name.0), flags, attempt),
            Request::Remove { fid } => self.remove(fid, attempt),
            Request::Rename { fid, directory, name } => {
                self.rename(fid, (directory, name.0), attempt)
            }
            Request::Renameat { from, old, to, new } => {
                self.rename_at((from, old.0), (to, new.0), attempt)
            }
            Request::Attach { fid, afid, tree, uid, .. } => {
                self.attach(fid, afid, tree.0, uid, attempt)
            }
            Request::Walk { fid, newfid, names } => self.walk(fid, newfid, &names, attempt),
            Request::Lopen { fid, flags } => self.open(fid, flags, attempt),
            Request::Clunk { fid } => self.clunk(fid, attempt),
            Request::Xattrwalk { fid, newfid, name } => {
                self.make_way(newfid, attempt);
                self.xattr_walk(fid, newfid, name.0)
            }
            Request::Xattrcreate { fid, name, size, flags } => {
                self.xattr_create(fid, name.0, size, flags)
            }
            _ => self.others(request, room),
        }
    }

    fn version(&mut self, msize: u32, version: &[u8]) -> Result<()> {
        self.end();
        if msize < LEAST_MSIZE {
            return Err(Errno::INVAL);
        }
        let msize = msize.min(self.options.msize).clamp(LEAST_MSIZE, MOST_MSIZE);
        let spoken = if version == VERSION {
            self.tree.ledger().set_protocol_word(MSIZE, msize.into());
            VERSION
        } else {
            UNKNOWN_VERSION
        };
        self.reply(&Reply::Version { msize, version: Text(spoken) });
        Ok(())
    }

    /// A repeated request finds the fid that it was to make, and makes it anew.
    fn make_way(&mut self, new: u32, attempt: Attempt) {
        if attempt == Attempt::Repeated && self.fids.is_taken(new) {
            let _ = self.clunk(new, Attempt::First);
        }
    }

    fn attach(
        &mut self,
        number: u32,
        afid: u32,
        tree: &[u8],
        uid: u32,
        attempt: Attempt,
    ) -> Result<()> {
        self.make_way(number, attempt);
        if afid != NO_FID {
            return Err(Errno::OPNOTSUPP);
        }
        if self.fids.is_taken(number) || number == NO_FID {
            return Err(Errno::BADF);
        }
        // There is one tree, and nobody gets at a part of it by its path.
        if !matches!(tree, b"" | b"/") {
            return Err(Errno::NOENT);
        }
        let inode = InodeId::ROOT;
        let attributes = self.tree.attributes(inode, None)?;
        let uid = if uid == NO_UID { 0 } else { uid };
        let fid = Fid { inode, state: State::Idle, uid, place: Place::UNKNOWN };
        self.fids.set(self.tree.ledger(), number, fid)?;
        self.reply(&Reply::Attach { qid: answer::qid(&attributes) });
        Ok(())
    }

    fn walk(&mut self, number: u32, new: u32, names: &Names<'_>, attempt: Attempt) -> Result<()> {
        if number == new {
            // Where the predecessor has come with it is not known.
            if attempt == Attempt::Repeated && !names.is_empty() {
                return Err(Errno::IO);
            }
        } else {
            self.make_way(new, attempt);
            if self.fids.is_taken(new) || new == NO_FID {
                return Err(Errno::BADF);
            }
            self.fids.check_room()?;
        }
        let fid = self.fids.get(number)?;
        if matches!(fid.state, State::Value | State::Lost)
            || (number == new && fid.handle().is_ok())
        {
            return Err(Errno::BADF);
        }
        let mut qids = Qids::new();
        let mut at = Fid { state: State::Idle, ..fid };
        self.tree.hold(at.inode)?;
        for name in names.iter() {
            let step = self.step(at.inode, name);
            let entry = match step {
                Ok((entry, place)) => {
                    self.tree.forget(at.inode, 1);
                    at = Fid { inode: entry.inode, place, ..at };
                    entry
                }
                Err(errno) => {
                    self.tree.forget(at.inode, 1);
                    if qids.as_slice().is_empty() {
                        return Err(errno);
                    }
                    // As far as it goes; there is no new fid.
                    self.reply(&Reply::Walk { qids });
                    return Ok(());
                }
            };
            qids.push(answer::qid(&entry.attributes));
        }
        self.fids.set(self.tree.ledger(), new, at)?;
        if number == new {
            self.tree.forget(fid.inode, 1);
        }
        self.reply(&Reply::Walk { qids });
        Ok(())
    }

    fn step(&mut self, from: InodeId, name: &[u8]) -> Result<(Entry, Place)> {
        if name == b".." {
            return Ok((self.tree.look_up_parent(from)?, Place::UNKNOWN));
        }
        let name = Name::new(name)?;
        Ok((self.tree.look_up(from, &name)?, Place::new(from, &name)))
    }

    fn open(&mut self, number: u32, flags: u32, attempt: Attempt) -> Result<()> {
        let fid = self.fids.get(number)?;
        let handle = match fid.state {
            // The answer was all that was missing.
            State::Open(handle) if attempt == Attempt::Repeated => handle,
            State::Idle => {
                let directory = self.tree.kind(fid.inode)? == FileType::Directory;
                let handle = if directory {
                    if flags & libc::O_ACCMODE as u32 != 0 {
                        return Err(Errno::ISDIR);
                    }
                    self.tree.open_directory(fid.inode)?
                } else {
                    if flags & libc::O_DIRECTORY as u32 != 0 {
                        return Err(Errno::NOTDIR);
                    }
                    self.tree.open(fid.inode, OpenMode::from_bits(flags))?.handle
                };
                let fid = Fid { state: State::Open(handle), ..fid };
                self.fids.set(self.tree.ledger(), number, fid)?;
                handle
            }
            State::Lost => return Err(Errno::STALE),
            State::Open(_) | State::Value => return Err(Errno::BADF),
        };
        let qid = answer::qid(&self.tree.attributes(fid.inode, Some(handle))?);
        // The client takes what fits into a message.
        self.reply(&Reply::Lopen { qid, iounit: 0 });
        Ok(())
    }

    /// Ends a fid, whatever comes of it.
    pub(super) fn clunk(&mut self, number: u32, attempt: Attempt) -> Result<()> {
        let removed = self.fids.remove(self.tree.ledger(), number);
        let fid = match removed {
            Err(Errno::BADF) if attempt == Attempt::Repeated => return Ok(()),
            removed => removed?,
        };
        let ended = match fid.state {
            State::Idle => Ok(()),
            State::Open(handle) => self.tree.close(handle),
            State::Value => self.end_value(number, fid.inode),
            State::Lost => Err(Errno::STALE),
        };
        self.tree.forget(fid.inode, 1);
        ended
    }
}
