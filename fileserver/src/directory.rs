//! Reading directories.

use std::mem::MaybeUninit;
use std::ops::ControlFlow;

use rustix::fs::{FileType, RawDir, SeekFrom};
use rustix::io::Errno;

use crate::Result;
use crate::handles::HandleId;
use crate::identity;
use crate::inodes::InodeId;
use crate::name::Name;
use crate::tree::{Entry, Tree};

/// The most that is read from a directory at a time: some hundred entries.
const BUFFER_BYTES: usize = 32 << 10;
/// The least: an entry with the longest name has to fit.
const LEAST_BYTES: usize = 512;

/// An entry of a directory.
#[derive(Debug)]
pub struct DirectoryEntry<'a> {
    /// Number of the file in its file system.
    pub inode: u64,
    /// Where the entries behind this one start.
    pub next: u64,
    /// What kind of file it is.
    pub kind: FileType,
    /// Its name; may be `.` or `..`.
    pub name: &'a [u8],
    /// What a look-up of it found, if that was asked for and it is a name.
    pub entry: Option<Entry>,
}

/// What takes entries. `wants` says beforehand whether there is room for a name of so many bytes.
pub trait Sink {
    /// Whether the next entry may come.
    fn wants(&self, name: usize) -> bool;
    /// Takes it.
    fn take(&mut self, entry: &DirectoryEntry<'_>);
    /// Whether each entry is to be looked up as well.
    fn looks_up(&self) -> bool;
    /// About how many bytes of the host's entries (24, and the name) there is room for.
    fn room(&self) -> usize;
}

impl Tree {
    /// Reads entries from a place on, until there are no more or no room for the next.
    pub fn read_directory(
        &mut self,
        inode: InodeId,
        handle: HandleId,
        from: u64,
        sink: &mut impl Sink,
    ) -> Result<()> {
        if self.is_hub(inode)? {
            self.read_grants(from, sink);
            return Ok(());
        }
        if self.handles.get(handle)?.inode != inode {
            return Err(Errno::BADF);
        }
        self.check(inode)?;
        let file = self.file(handle)?;
        let own = self.inodes.get(inode)?.identity.inode;
        if self.handles.get(handle)?.position != Some(from) {
            rustix::fs::seek(&file, SeekFrom::Start(from))?;
        }
        self.handles.get_mut(handle)?.position = None;
        // Taken out while entries are looked up.
        let mut buffer = std::mem::take(&mut self.entries);
        buffer.resize(BUFFER_BYTES, MaybeUninit::uninit());
        let position = self.read_entries(inode, &file, own, from, &mut buffer, sink);
        self.entries = buffer;
        self.handles.get_mut(handle)?.position = position?;
        Ok(())
    }

    /// Reads entries until there are no more, and says where the next would start; or until there is
    /// no room, with what the buffer still has to be read again.
    fn read_entries(
        &mut self,
        inode: InodeId,
        file: &executor::Fd,
        own: u64,
        from: u64,
        buffer: &mut [MaybeUninit<u8>],
        sink: &mut impl Sink,
    ) -> Result<Option<u64>> {
        // What there is no room for would be read in vain.
        let room = sink.room().clamp(LEAST_BYTES, BUFFER_BYTES);
        let mut position = from;
        let mut entries = RawDir::new(file, &mut buffer[..room]);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let bytes = entry.file_name().to_bytes();
            if !sink.wants(bytes.len()) {
                return Ok(None);
            }
            position = entry.next_entry_cookie();
            let name = Name::new(bytes).ok();
            let found = match &name {
                Some(name) if sink.looks_up() => identity::look(file, name.as_c_str())
                    .and_then(|look| self.entry(inode, name, &look)),
                _ => Err(Errno::NOENT),
            };
            // The number of the root's parent is none of the client's business.
            let number = if name.is_none() { own } else { entry.ino() };
            sink.take(&DirectoryEntry {
                inode: number,
                next: position,
                kind: entry.file_type(),
                name: bytes,
                entry: found.ok(),
            });
        }
        Ok(Some(position))
    }

    fn read_grants(&mut self, from: u64, sink: &mut impl Sink) {
        let names: Vec<_> = self
            .grant_names()
            .map(|(index, granted, name)| (index as u64, granted.identity.inode, *name))
            .collect();
        let dots = [(0, &b"."[..]), (1, &b".."[..])].into_iter();
        for (index, name) in dots.filter(|(index, _)| *index >= from) {
            if offer(sink, 1, index + 1, name, None).is_break() {
                return;
            }
        }
        for (index, number, name) in names.into_iter().filter(|(index, ..)| index + 2 >= from) {
            if !sink.wants(name.as_bytes().len()) {
                break;
            }
            let entry =
                if sink.looks_up() { self.look_up(InodeId::ROOT, &name).ok() } else { None };
            let _ = offer(sink, number, index + 3, name.as_bytes(), entry);
        }
    }
}

fn offer(
    sink: &mut impl Sink,
    inode: u64,
    next: u64,
    name: &[u8],
    entry: Option<Entry>,
) -> ControlFlow<()> {
    if !sink.wants(name.len()) {
        return ControlFlow::Break(());
    }
    sink.take(&DirectoryEntry { inode, next, kind: FileType::Directory, name, entry });
    ControlFlow::Continue(())
}
