//! Answers, written as bytes for the driver.

use std::time::Duration;

use fileserver::{Attributes, DirectoryEntry, Entry, FileType, Sink, StatVfs};
use zerocopy::IntoBytes;

use super::protocol::{Attr, AttrOut, Dirent, EntryOut, StatfsOut};

/// For how long a driver may believe what it was told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Validity(pub(super) Duration);

pub(super) fn attr(attributes: &Attributes) -> Attr {
    let (major, minor) = (attributes.device_major, attributes.device_minor);
    Attr {
        inode: attributes.inode,
        size: attributes.size,
        blocks: attributes.blocks,
        atime: attributes.accessed.seconds as u64,
        mtime: attributes.modified.seconds as u64,
        ctime: attributes.changed.seconds as u64,
        atime_nsec: attributes.accessed.nanoseconds,
        mtime_nsec: attributes.modified.nanoseconds,
        ctime_nsec: attributes.changed.nanoseconds,
        mode: attributes.mode,
        links: attributes.links,
        uid: attributes.uid,
        gid: attributes.gid,
        // Linux' own way to pack them (`new_encode_dev`).
        rdev: minor & 0xff | major << 8 | (minor & !0xff) << 12,
        block_size: attributes.block_size,
        flags: 0,
    }
}

impl Validity {
    pub(super) fn entry(self, entry: &Entry) -> EntryOut {
        let (seconds, nanoseconds) = (self.0.as_secs(), self.0.subsec_nanos());
        EntryOut {
            node: entry.inode.0,
            // Numbers of nodes are not used twice.
            generation: 0,
            entry_valid: seconds,
            attr_valid: seconds,
            entry_valid_nsec: nanoseconds,
            attr_valid_nsec: nanoseconds,
            attr: attr(&entry.attributes),
        }
    }

    pub(super) fn attributes(self, attributes: &Attributes) -> AttrOut {
        AttrOut {
            attr_valid: self.0.as_secs(),
            attr_valid_nsec: self.0.subsec_nanos(),
            padding: 0,
            attr: attr(attributes),
        }
    }
}

pub(super) fn statistics(status: &StatVfs) -> StatfsOut {
    StatfsOut {
        blocks: status.f_blocks,
        free: status.f_bfree,
        available: status.f_bavail,
        files: status.f_files,
        free_files: status.f_ffree,
        block_size: status.f_bsize as u32,
        name_length: status.f_namemax as u32,
        fragment_size: status.f_frsize as u32,
        padding: 0,
        spare: [0; 6],
    }
}

/// Entries of a directory, up to a number of bytes.
pub(super) struct Entries<'a> {
    pub(super) bytes: &'a mut Vec<u8>,
    pub(super) most: usize,
    /// What an entry that was looked up is good for; none if the driver asked for names only.
    pub(super) plus: Option<Validity>,
}

impl Entries<'_> {
    fn size(&self, name: usize) -> usize {
        let head = if self.plus.is_some() { size_of::<EntryOut>() } else { 0 };
        head + (size_of::<Dirent>() + name).next_multiple_of(8)
    }
}

impl Sink for Entries<'_> {
    fn wants(&self, name: usize) -> bool {
        self.bytes.len() + self.size(name) <= self.most
    }

    fn take(&mut self, entry: &DirectoryEntry<'_>) {
        if let Some(validity) = self.plus {
            match &entry.entry {
                Some(found) => self.bytes.extend(validity.entry(found).as_bytes()),
                // The driver looks it up when somebody asks.
                None => self.bytes.extend([0; size_of::<EntryOut>()]),
            }
        }
        let head = Dirent {
            inode: entry.inode,
            next: entry.next,
            name_length: entry.name.len() as u32,
            kind: kind(entry.kind),
        };
        self.bytes.extend(head.as_bytes());
        self.bytes.extend(entry.name);
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
    }

    fn looks_up(&self) -> bool {
        self.plus.is_some()
    }

    fn room(&self) -> usize {
        let bytes = self.most.saturating_sub(self.bytes.len());
        // An entry of the host has 24 bytes and its name, of some 16 bytes, in whole words.
        bytes / self.size(16) * 48
    }
}

/// As `d_type`.
fn kind(kind: FileType) -> u32 {
    if kind == FileType::Unknown { 0 } else { kind.as_raw_mode() >> 12 }
}
