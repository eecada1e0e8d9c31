//! Writes initramfs archives (cpio in the "newc" format), every file owned by root whoever
//! builds it, so that an ordinary user can make one and the same tree gives the same bytes.

use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

const FILE: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;
const SYMLINK: u32 = 0o120_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

/// An archive under construction.
pub(crate) struct Archive<W: Write> {
    out: W,
    inode: u32,
}

impl<W: Write> Archive<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { out, inode: 1 }
    }

    /// Adds a file with the given permission bits.
    pub(crate) fn file(&mut self, name: &str, permissions: u32, data: &[u8]) -> io::Result<()> {
        self.entry(name.as_bytes(), FILE | permissions, (0, 0), data)
    }

    /// Adds a character device.
    pub(crate) fn device(&mut self, name: &str, number: (u32, u32)) -> io::Result<()> {
        self.entry(name.as_bytes(), CHARACTER_DEVICE | 0o600, number, b"")
    }

    /// Adds everything in a folder of this machine, under `prefix`.
    pub(crate) fn tree(&mut self, folder: &Path, prefix: &str) -> io::Result<()> {
        let mut entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            let metadata = fs::symlink_metadata(&path)?;
            let name = match prefix {
                "" => entry.file_name().to_string_lossy().into_owned(),
                _ => format!("{prefix}/{}", entry.file_name().to_string_lossy()),
            };
            let permissions = metadata.permissions().mode() & 0o7777;
            if metadata.is_dir() {
                self.entry(name.as_bytes(), DIRECTORY | permissions, (0, 0), b"")?;
                self.tree(&path, &name)?;
            } else if metadata.is_symlink() {
                let target = fs::read_link(&path)?;
                self.entry(
                    name.as_bytes(),
                    SYMLINK | 0o777,
                    (0, 0),
                    target.as_os_str().as_bytes(),
                )?;
            } else if metadata.is_file() {
                self.entry(name.as_bytes(), FILE | permissions, (0, 0), &fs::read(&path)?)?;
            } else {
                let mode = metadata.mode();
                let text = format!("{} has the unexpected mode {mode:o}", path.display());
                return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
            }
        }
        Ok(())
    }

    /// Writes the end mark and gives the output back.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.entry(b"TRAILER!!!", 0, (0, 0), b"")?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn entry(&mut self, name: &[u8], mode: u32, device: (u32, u32), data: &[u8]) -> io::Result<()> {
        let links = if mode & DIRECTORY == DIRECTORY { 2 } else { 1 };
        let fields = [
            self.inode,
            mode,
            0, // owner
            0, // group
            links,
            0, // modification time
            data.len() as u32,
            0, // device of the file system
            0,
            device.0,
            device.1,
            name.len() as u32 + 1,
            0, // checksum
        ];
        self.inode += 1;
        let mut header = b"070701".to_vec();
        for field in fields {
            write!(header, "{field:08x}")?;
        }
        header.extend_from_slice(name);
        header.push(0);
        self.put(&header)?;
        self.put(data)
    }

    /// Writes bytes and the padding to the next multiple of four.
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        let padding = bytes.len().next_multiple_of(4) - bytes.len();
        self.out.write_all(&[0; 3][..padding])?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_aligned_and_end_with_the_trailer() {
        let mut archive = Archive::new(Vec::new());
        archive.file("a", 0o644, b"xyz").unwrap();
        let bytes = archive.finish().unwrap();
        assert_eq!(bytes.len() % 4, 0);
        assert!(bytes.starts_with(b"070701"));
        assert!(bytes.windows(11).any(|window| window == b"TRAILER!!!\0"));
    }
}
