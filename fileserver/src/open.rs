//! Opening and closing files and directories.

use executor::Fd;
use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;

use crate::Result;
use crate::handles::HandleId;
use crate::inodes::InodeId;
use crate::tree::Tree;

/// `open` flags that a client may ask for; the others are its own business, or nobody's.
const PASSED_ON: OFlags =
    OFlags::RWMODE.union(OFlags::APPEND).union(OFlags::SYNC).union(OFlags::DSYNC);

/// How a client wants a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenMode(pub(crate) OFlags);

/// A file that was opened.
#[derive(Debug, Clone, Copy)]
pub struct Opened {
    /// Its name from now on.
    pub handle: HandleId,
    /// Whether it was empty.
    pub size: u64,
}

impl OpenMode {
    /// From `open` flags of Linux (`asm-generic/fcntl.h`).
    pub fn from_bits(bits: u32) -> Self {
        Self(OFlags::from_bits_retain(bits))
    }

    /// For a client that keeps written data back: it also has to read around it, and it alone knows
    /// where the end is.
    #[must_use]
    pub fn for_writeback(self) -> Self {
        let mut flags = self.0 - OFlags::APPEND;
        if flags & OFlags::RWMODE == OFlags::WRONLY {
            flags = (flags - OFlags::RWMODE) | OFlags::RDWR;
        }
        Self(flags)
    }

    pub(crate) fn writes(self) -> bool {
        self.0 & OFlags::RWMODE != OFlags::RDONLY || self.0.contains(OFlags::TRUNC)
    }

    pub(crate) fn passed_on(self) -> OFlags {
        self.0 & PASSED_ON
    }
}

impl Tree {
    /// Opens a regular file.
    pub fn open(&mut self, inode: InodeId, mode: OpenMode) -> Result<Opened> {
        if mode.writes() {
            self.check_writable(inode)?;
        }
        if self.inodes.get(inode)?.kind == FileType::Directory {
            return Err(Errno::ISDIR);
        }
        if !self.handles.has_room() {
            return Err(Errno::MFILE);
        }
        let flags = mode.passed_on();
        let (file, look) = self.open_inode(inode, flags)?;
        let mut size = look.attributes.size;
        if mode.0.contains(OFlags::TRUNC) {
            // Only now is it known to be the right file.
            rustix::fs::ftruncate(&file, 0)?;
            size = 0;
        }
        let handle = self.keep(inode, flags, file.into())?;
        Ok(Opened { handle, size })
    }

    /// Opens a directory to read it.
    pub fn open_directory(&mut self, inode: InodeId) -> Result<HandleId> {
        if self.is_hub(inode)? {
            // Has no file; the root is always there.
            return Ok(HandleId(u64::MAX));
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        if self.inodes.get(inode)?.kind != FileType::Directory {
            return Err(Errno::NOTDIR);
        }
        let (file, _) = self.open_inode(inode, flags)?;
        self.keep(inode, flags, file.into())
    }

    /// Makes a handle of an open file.
    pub(crate) fn keep(
        &mut self,
        inode: InodeId,
        flags: OFlags,
        file: std::fs::File,
    ) -> Result<HandleId> {
        let file = Fd::unregistered(file).map_err(|_| Errno::IO)?;
        let flags = u64::from(flags.bits());
        let handle = self.handles.insert(&self.ledger, inode, flags, file)?;
        self.inodes.get_mut(inode)?.handles.push(handle.slot() as u32);
        Ok(handle)
    }

    /// Closes a handle.
    pub fn close(&mut self, handle: HandleId) -> Result<()> {
        if handle == HandleId(u64::MAX) {
            return Ok(());
        }
        let id = self.handles.remove(&self.ledger, handle)?;
        if let Ok(inode) = self.inodes.get_mut(id) {
            inode.handles.retain(|slot| *slot as usize != handle.slot());
            self.inodes.sweep(&self.ledger, id);
        }
        Ok(())
    }

    /// The file of a handle, for reads and writes through the executor. A predecessor's is opened
    /// again; if it is gone, or its grant is, the answer is `ESTALE`.
    pub fn file(&mut self, handle: HandleId) -> Result<Fd> {
        let open = self.handles.get(handle)?;
        let (inode, flags) = (open.inode, open.flags);
        if let Some(file) = &open.file {
            return Ok(file.clone());
        }
        let flags = OFlags::from_bits_retain(flags as u32) & (PASSED_ON | OFlags::DIRECTORY);
        if flags & OFlags::RWMODE != OFlags::RDONLY {
            self.check_writable(inode)?;
        }
        let (file, _) = self.open_inode(inode, flags)?;
        let file = Fd::unregistered(file).map_err(|_| Errno::IO)?;
        let open = self.handles.get_mut(handle)?;
        open.file = Some(file.clone());
        open.position = None;
        Ok(file)
    }

    /// Whether each write by a handle waits for the disk (`O_SYNC`, `O_DSYNC`).
    pub fn is_durable(&self, handle: HandleId) -> bool {
        let flags = self.handles.get(handle).map_or(0, |open| open.flags);
        OFlags::from_bits_retain(flags as u32).intersects(OFlags::SYNC | OFlags::DSYNC)
    }

    /// The file of a handle, for something that changes it.
    pub fn file_to_write(&mut self, handle: HandleId) -> Result<Fd> {
        let inode = self.handles.get(handle)?.inode;
        self.check_writable(inode)?;
        self.file(handle)
    }
}
