//! What is done to the data of open files beside reading and writing.

use rustix::fs::{SeekFrom, StatVfs};
use rustix::io::Errno;

use crate::Result;
use crate::handles::HandleId;
use crate::inodes::InodeId;
use crate::reach::Spot;
use crate::tree::Tree;

/// The most bytes that one request copies: a fraction of a second on a slow disk, and a client asks
/// again for the rest.
const MOST_COPIED: usize = 16 << 20;

/// What to look for from a place on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whence {
    /// Data.
    Data,
    /// A hole.
    Hole,
}

impl Whence {
    /// From `lseek`'s word.
    pub fn from_raw(whence: u32) -> Result<Self> {
        match whence as i32 {
            libc::SEEK_DATA => Ok(Self::Data),
            libc::SEEK_HOLE => Ok(Self::Hole),
            _ => Err(Errno::INVAL),
        }
    }
}

impl Tree {
    /// Where the next data or hole starts.
    pub fn seek(&mut self, handle: HandleId, offset: u64, whence: Whence) -> Result<u64> {
        if i64::try_from(offset).is_err() {
            return Err(Errno::NXIO);
        }
        let file = self.file(handle)?;
        rustix::fs::seek(
            file,
            match whence {
                Whence::Data => SeekFrom::Data(offset),
                Whence::Hole => SeekFrom::Hole(offset),
            },
        )
    }

    /// Copies from one open file to another; says how many bytes, which may be fewer.
    pub fn copy(
        &mut self,
        from: (HandleId, u64),
        to: (HandleId, u64),
        length: u64,
    ) -> Result<usize> {
        let (source, target) = (self.file(from.0)?, self.file_to_write(to.0)?);
        let length = usize::try_from(length).unwrap_or(usize::MAX).min(MOST_COPIED);
        let (mut at, mut put) = (from.1, to.1);
        if i64::try_from(at).is_err() || i64::try_from(put).is_err() {
            return Err(Errno::INVAL);
        }
        rustix::fs::copy_file_range(source, Some(&mut at), target, Some(&mut put), length)
    }

    /// What the file system of an inode has room for.
    pub fn statistics(&mut self, inode: InodeId) -> Result<StatVfs> {
        if self.is_hub(inode)? {
            return Err(Errno::NOSYS);
        }
        let granted = self.check(inode)?.1.directory.clone();
        match self.inodes.get(inode)?.kind {
            rustix::fs::FileType::Directory => match self.spot(inode)?.0 {
                Spot::Directory(node) => rustix::fs::fstatvfs(node),
                _ => rustix::fs::fstatvfs(granted),
            },
            _ => rustix::fs::fstatvfs(granted),
        }
    }
}
