//! Requests about files: their data, attributes, entries and locks.

use std::cell::Cell;

use executor::Fd;
use fileserver::{
    Changes, Errno, FileType, HandleId, Lock, LockKind, Result, SetIds, Size, Stamp, Time,
};

use super::answer::{self, Entries};
use super::fids::{Fid, State};
use super::session::{Outcome, Session};
use crate::wire::{HEADER_BYTES, READ_HEADER_BYTES, Reply, Request, Text};

/// `P9_SETATTR_*`: which fields of a `Tsetattr` count.
mod set {
    pub(super) const MODE: u32 = 1 << 0;
    pub(super) const UID: u32 = 1 << 1;
    pub(super) const GID: u32 = 1 << 2;
    pub(super) const SIZE: u32 = 1 << 3;
    pub(super) const ATIME: u32 = 1 << 4;
    pub(super) const MTIME: u32 = 1 << 5;
    pub(super) const ATIME_GIVEN: u32 = 1 << 7;
    pub(super) const MTIME_GIVEN: u32 = 1 << 8;
}

/// `P9_LOCK_TYPE_*`
mod lock {
    pub(super) const SHARED: u8 = 0;
    pub(super) const EXCLUSIVE: u8 = 1;
    pub(super) const NONE: u8 = 2;
    /// `P9_LOCK_SUCCESS`
    pub(super) const DONE: u8 = 0;
    /// `P9_LOCK_BLOCKED`
    pub(super) const BLOCKED: u8 = 1;
}

impl Session {
    /// Requests that change no name and no fid.
    pub(super) fn others(&mut self, request: &Request<'_>, room: usize) -> Result<()> {
        match *request {
            Request::Statfs { fid } => {
                let inode = self.fids.get(fid)?.inode;
                let status = self.tree.statistics(inode)?;
                self.reply(&answer::statistics(&status));
                Ok(())
            }
            Request::Readlink { fid } => {
                let inode = self.fids.get(fid)?.inode;
                let target = self.tree.read_link(inode)?;
                self.reply(&Reply::Readlink { target: Text(&target) });
                Ok(())
            }
            Request::Getattr { fid, .. } => {
                let fid = self.fids.get(fid)?;
                let attributes = self.tree.attributes(fid.inode, fid.handle().ok())?;
                self.reply(&answer::attributes(&attributes));
                Ok(())
            }
            Request::Setattr { .. } => self.change(request),
            Request::Readdir { fid, offset, count } => {
                self.read_directory(fid, offset, room.min(count as usize + READ_HEADER_BYTES))
            }
            Request::Lock { fid, kind, start, length, .. } => {
                let handle = self.fids.get(fid)?.handle()?;
                let lock = Lock { kind: lock_kind(kind)?, start, length };
                let status = match self.tree.lock(handle, lock) {
                    Ok(()) => lock::DONE,
                    Err(Errno::AGAIN | Errno::ACCESS) => lock::BLOCKED,
                    Err(errno) => return Err(errno),
                };
                self.reply(&Reply::Lock { status });
                Ok(())
            }
            Request::Getlock { fid, kind, start, length, process, client } => {
                let handle = self.fids.get(fid)?.handle()?;
                let wanted = Lock { kind: lock_kind(kind)?, start, length };
                let Lock { kind, start, length } = self.tree.lock_in_the_way(handle, wanted)?;
                let kind = match kind {
                    LockKind::Shared => lock::SHARED,
                    LockKind::Exclusive => lock::EXCLUSIVE,
                    LockKind::None => lock::NONE,
                };
                self.reply(&Reply::Getlock { kind, start, length, process, client });
                Ok(())
            }
            _ => Err(Errno::OPNOTSUPP),
        }
    }

    pub(super) fn file(&mut self, number: u32) -> Result<Fd> {
        let handle = self.fids.get(number)?.handle()?;
        self.tree.file(handle)
    }

    /// What is to be read; none if the answer is ready.
    pub(super) fn read(
        &mut self,
        number: u32,
        offset: u64,
        count: u32,
        room: usize,
    ) -> Result<Option<Outcome>> {
        let most = room.saturating_sub(READ_HEADER_BYTES).min(count as usize);
        let fid = self.fids.get(number)?;
        if fid.state == State::Value {
            let part = self.values.part(number, offset, most)?;
            let head = Reply::Read { count: part.len() as u32 };
            head.write(&mut self.answer);
            self.answer.extend_from_slice(part);
            return Ok(None);
        }
        let handle = self.of_a_file(fid)?;
        let count = most as u32;
        check_range(offset, count)?;
        Ok(Some(Outcome::Read { file: self.tree.file(handle)?, offset, count }))
    }

    pub(super) fn write(&mut self, number: u32, offset: u64, count: u32) -> Result<Outcome> {
        let fid = self.fids.get(number)?;
        if fid.state == State::Value {
            self.values.check_part(number, offset, count)?;
            return Ok(Outcome::Value { fid: number, count });
        }
        let handle = self.of_a_file(fid)?;
        check_range(offset, count)?;
        let file = self.tree.file_to_write(handle)?;
        Ok(Outcome::Write { file, offset, count, durable: self.tree.is_durable(handle) })
    }

    fn of_a_file(&self, fid: Fid) -> Result<HandleId> {
        let handle = fid.handle()?;
        if self.tree.kind(fid.inode)? == FileType::Directory {
            return Err(Errno::ISDIR);
        }
        Ok(handle)
    }

    /// Takes the data of [`Outcome::Value`].
    pub fn take_value(&mut self, fid: u32, bytes: &[u8]) -> Result<()> {
        self.values.put(fid, bytes)?;
        self.written(bytes.len() as u32);
        Ok(())
    }

    /// `room` is how long the answer may be.
    fn read_directory(&mut self, number: u32, offset: u64, room: usize) -> Result<()> {
        let fid = self.fids.get(number)?;
        let handle = fid.handle()?;
        if self.tree.kind(fid.inode)? != FileType::Directory {
            return Err(Errno::NOTDIR);
        }
        let head = READ_HEADER_BYTES - HEADER_BYTES;
        self.answer.resize(head, 0);
        let most = room.saturating_sub(HEADER_BYTES);
        let refused = Cell::new(false);
        let mut entries = Entries { bytes: &mut self.answer, most, refused };
        self.tree.read_directory(fid.inode, handle, offset, &mut entries)?;
        let refused = entries.refused.get();
        let count = self.answer.len() - head;
        // Nothing would mean that there are no more.
        if count == 0 && refused {
            return Err(Errno::INVAL);
        }
        self.answer[..head].copy_from_slice(&(count as u32).to_le_bytes());
        Ok(())
    }

    fn change(&mut self, request: &Request<'_>) -> Result<()> {
        let Request::Setattr {
            fid,
            valid,
            mode,
            uid,
            gid,
            size,
            atime,
            atime_nsec,
            mtime,
            mtime_nsec,
        } = *request
        else {
            return Err(Errno::INVAL);
        };
        let fid = self.fids.get(fid)?;
        let has = |flag| valid & flag != 0;
        let stamp = |flag, given, seconds: u64, nanoseconds: u64| match (has(flag), has(given)) {
            (false, _) => Stamp::Keep,
            (true, false) => Stamp::Now,
            (true, true) => {
                let nanoseconds = (nanoseconds % 1_000_000_000) as u32;
                Stamp::At(Time { seconds: seconds as i64, nanoseconds })
            }
        };
        let changes = Changes {
            mode: has(set::MODE).then_some(mode),
            uid: has(set::UID).then_some(uid),
            gid: has(set::GID).then_some(gid),
            size: has(set::SIZE).then_some(Size {
                bytes: size,
                handle: fid.handle().ok(),
                set_ids: SetIds::Keep,
            }),
            accessed: stamp(set::ATIME, set::ATIME_GIVEN, atime, atime_nsec),
            modified: stamp(set::MTIME, set::MTIME_GIVEN, mtime, mtime_nsec),
        };
        self.tree.change(fid.inode, &changes).map(drop)
    }
}

fn lock_kind(kind: u8) -> Result<LockKind> {
    match kind {
        lock::SHARED => Ok(LockKind::Shared),
        lock::EXCLUSIVE => Ok(LockKind::Exclusive),
        lock::NONE => Ok(LockKind::None),
        _ => Err(Errno::INVAL),
    }
}

/// Files end where offsets do; the ring takes what is behind that for something else.
fn check_range(offset: u64, count: u32) -> Result<()> {
    let end = offset.checked_add(count.into());
    if end.is_some_and(|end| i64::try_from(end).is_ok()) { Ok(()) } else { Err(Errno::INVAL) }
}
