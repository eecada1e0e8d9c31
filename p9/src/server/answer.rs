//! Files as clients see them: qids, attributes, entries of directories.

use std::cell::Cell;

use fileserver::{Attributes, DirectoryEntry, FileType, Sink, StatVfs, Time};

use crate::wire::{Qid, QidKind, Reply};

/// `V9FS_MAGIC` of linux/magic.h: what the file system is for whoever mounts it.
const FILE_SYSTEM: u32 = 0x0102_1997;
/// Attributes that an answer has: all of `stat` (`P9_STATS_BASIC`) and the time of birth.
const VALID: u64 = 0x7ff | 0x800;
/// What lies before the name of an entry: qid, offset, type, length of the name.
const ENTRY_BYTES: usize = 13 + 8 + 1 + 2;

fn kind(kind: FileType) -> QidKind {
    match kind {
        FileType::Directory => QidKind::DIRECTORY,
        FileType::Symlink => QidKind::LINK,
        _ => QidKind::FILE,
    }
}

pub(super) fn qid(attributes: &Attributes) -> Qid {
    let Attributes { modified, changed, size, inode, .. } = attributes;
    // Any other number when something has changed; never zero, by which Linux knows files that it
    // must not cache.
    let times = modified.seconds ^ i64::from(modified.nanoseconds) << 13 ^ changed.seconds << 7;
    let mixed = (times as u64 ^ u64::from(changed.nanoseconds) ^ size << 17)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let version = (mixed >> 32) as u32 | 1;
    Qid { kind: kind(attributes.kind()), version, path: *inode }
}

pub(super) fn attributes(attributes: &Attributes) -> Reply<'static> {
    let time = |time: &Time| (time.seconds as u64, u64::from(time.nanoseconds));
    let (atime, atime_nsec) = time(&attributes.accessed);
    let (mtime, mtime_nsec) = time(&attributes.modified);
    let (ctime, ctime_nsec) = time(&attributes.changed);
    let (btime, btime_nsec) = time(&attributes.born);
    let (major, minor) = (attributes.device_major, attributes.device_minor);
    Reply::Getattr {
        valid: VALID,
        qid: qid(attributes),
        mode: attributes.mode,
        uid: attributes.uid,
        gid: attributes.gid,
        links: attributes.links.into(),
        // Linux' own way to pack them (`new_encode_dev`).
        device: u64::from(minor & 0xff | major << 8 | (minor & !0xff) << 12),
        size: attributes.size,
        block_size: attributes.block_size.into(),
        blocks: attributes.blocks,
        atime,
        atime_nsec,
        mtime,
        mtime_nsec,
        ctime,
        ctime_nsec,
        btime,
        btime_nsec,
        generation: 0,
        data_version: 0,
    }
}

pub(super) fn statistics(status: &StatVfs) -> Reply<'static> {
    Reply::Statfs {
        kind: FILE_SYSTEM,
        // What the numbers of blocks are counted in.
        block_size: status.f_frsize as u32,
        blocks: status.f_blocks,
        free: status.f_bfree,
        available: status.f_bavail,
        files: status.f_files,
        free_files: status.f_ffree,
        id: status.f_fsid,
        name_length: status.f_namemax as u32,
    }
}

/// Entries of a directory, up to a number of bytes.
pub(super) struct Entries<'a> {
    pub(super) bytes: &'a mut Vec<u8>,
    /// How long `bytes` may become.
    pub(super) most: usize,
    /// Whether there was one that had no room.
    pub(super) refused: Cell<bool>,
}

impl Sink for Entries<'_> {
    fn wants(&self, name: usize) -> bool {
        let fits = self.bytes.len() + ENTRY_BYTES + name <= self.most;
        if !fits {
            self.refused.set(true);
        }
        fits
    }

    fn take(&mut self, entry: &DirectoryEntry<'_>) {
        self.bytes.push(kind(entry.kind).0);
        self.bytes.extend(0_u32.to_le_bytes());
        self.bytes.extend(entry.inode.to_le_bytes());
        self.bytes.extend(entry.next.to_le_bytes());
        self.bytes.push(type_number(entry.kind));
        self.bytes.extend((entry.name.len() as u16).to_le_bytes());
        self.bytes.extend(entry.name);
    }

    fn looks_up(&self) -> bool {
        false
    }

    fn room(&self) -> usize {
        // An entry of the host has 24 bytes and its name, of some 16 bytes, in whole words.
        self.most.saturating_sub(self.bytes.len()) / (ENTRY_BYTES + 16) * 48
    }
}

/// As `d_type`.
fn type_number(kind: FileType) -> u8 {
    if kind == FileType::Unknown { 0 } else { (kind.as_raw_mode() >> 12) as u8 }
}
