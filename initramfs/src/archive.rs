//! Archives as the kernel unpacks them into its first root: "newc" cpio
//! (Documentation/driver-api/early-userspace/buffer-format.rst).
//!
//! Everything is owned by root, whoever writes the archive, and has no time, so that the same contents
//! give the same bytes.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Component, Path};

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const LINK: u32 = 0o120_000;
const CHARACTERS: u32 = 0o020_000;

/// An archive that is being written. Folders are made as they are needed; of two entries with one name
/// the first stays. A slash at the beginning of a name means nothing.
#[derive(Debug)]
pub struct Archive<W: Write> {
    out: W,
    inode: u32,
    present: BTreeSet<String>,
}

impl<W: Write> Archive<W> {
    /// An empty one.
    pub fn new(out: W) -> Self {
        Self { out, inode: 1, present: BTreeSet::new() }
    }

    /// A folder, with those that it is in.
    pub fn folder(&mut self, path: &str, permissions: u32) -> io::Result<()> {
        self.parents(path)?;
        self.entry(path, DIRECTORY | permissions, (0, 0), &[])
    }

    /// A file with the given permission bits.
    pub fn file(&mut self, path: &str, permissions: u32, data: &[u8]) -> io::Result<()> {
        self.parents(path)?;
        self.entry(path, REGULAR | permissions, (0, 0), data)
    }

    /// A symbolic link.
    pub fn link(&mut self, path: &str, target: &str) -> io::Result<()> {
        self.parents(path)?;
        self.entry(path, LINK | 0o777, (0, 0), target.as_bytes())
    }

    /// A character device, by major and minor number.
    pub fn device(&mut self, path: &str, number: (u32, u32)) -> io::Result<()> {
        self.parents(path)?;
        self.entry(path, CHARACTERS | 0o600, number, &[])
    }

    /// Everything in a folder of this machine, under `prefix`.
    pub fn tree(&mut self, folder: &Path, prefix: &str) -> io::Result<()> {
        let mut entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            let metadata = fs::symlink_metadata(&path)?;
            let name = format!("{prefix}/{}", entry.file_name().to_string_lossy());
            let permissions = metadata.permissions().mode() & 0o7777;
            if metadata.is_dir() {
                self.folder(&name, permissions)?;
                self.tree(&path, &name)?;
            } else if metadata.is_symlink() {
                self.parents(&name)?;
                let target = fs::read_link(&path)?;
                self.entry(&name, LINK | 0o777, (0, 0), target.as_os_str().as_bytes())?;
            } else if metadata.is_file() {
                self.file(&name, permissions, &fs::read(&path)?)?;
            } else {
                let text =
                    format!("{} has the unexpected mode {:o}", path.display(), metadata.mode());
                return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
            }
        }
        Ok(())
    }

    /// Whether there is something of this name.
    pub fn contains(&self, path: &str) -> bool {
        self.present.contains(path.trim_start_matches('/'))
    }

    /// Writes the end mark and gives the output back, flushed.
    pub fn finish(mut self) -> io::Result<W> {
        self.entry("TRAILER!!!", 0, (0, 0), &[])?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn parents(&mut self, path: &str) -> io::Result<()> {
        let Some(parent) = Path::new(path.trim_start_matches('/')).parent() else {
            return Ok(());
        };
        let mut folder = String::new();
        for part in parent.components() {
            let Component::Normal(name) = part else {
                return Err(io::ErrorKind::InvalidInput.into());
            };
            if !folder.is_empty() {
                folder.push('/');
            }
            folder.push_str(name.to_str().ok_or(io::ErrorKind::InvalidInput)?);
            self.entry(&folder, DIRECTORY | 0o755, (0, 0), &[])?;
        }
        Ok(())
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), data: &[u8]) -> io::Result<()> {
        let name = path.trim_start_matches('/');
        if !self.present.insert(name.to_owned()) {
            return Ok(());
        }
        let length = u32::try_from(data.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let fields = [
            self.inode,
            mode,
            0, // owner
            0, // group
            if mode & DIRECTORY == DIRECTORY { 2 } else { 1 },
            0, // modification time
            length,
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
        header.extend_from_slice(name.as_bytes());
        header.push(0);
        self.put(&header)?;
        self.put(data)
    }

    /// Writes bytes and the padding to the next multiple of four.
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        let padding = bytes.len().next_multiple_of(4) - bytes.len();
        self.out.write_all(&[0; 3][..padding])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(bytes: &[u8]) -> Vec<String> {
        assert_eq!(bytes.len() % 4, 0);
        bytes
            .windows(6)
            .enumerate()
            .filter(|(_, window)| *window == b"070701")
            .map(|(at, _)| bytes[at + 110..].split(|&byte| byte == 0).next().unwrap())
            .map(|name| String::from_utf8_lossy(name).into_owned())
            .collect()
    }

    #[test]
    fn folders_come_before_what_is_in_them() {
        let mut archive = Archive::new(Vec::new());
        archive.file("/a/b/c", 0o644, b"xyz").unwrap();
        archive.file("/a/b/c", 0o644, b"second").unwrap();
        archive.folder("/a", 0o700).unwrap();
        assert!(archive.contains("/a/b") && !archive.contains("/b"));
        let bytes = archive.finish().unwrap();
        assert_eq!(names(&bytes), ["a", "a/b", "a/b/c", "TRAILER!!!"]);
        assert!(!bytes.windows(6).any(|window| window == b"second"));
    }

    #[test]
    fn trees_are_packed_in_order() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("b")).unwrap();
        fs::write(folder.path().join("b/file"), "text").unwrap();
        std::os::unix::fs::symlink("b/file", folder.path().join("a")).unwrap();
        let packed = |prefix| {
            let mut archive = Archive::new(Vec::new());
            archive.tree(folder.path(), prefix).unwrap();
            archive.finish().unwrap()
        };
        assert_eq!(names(&packed("")), ["a", "b", "b/file", "TRAILER!!!"]);
        let under = packed("usr/lib");
        let expected = ["usr", "usr/lib", "usr/lib/a", "usr/lib/b", "usr/lib/b/file", "TRAILER!!!"];
        assert_eq!(names(&under), expected);
        assert_eq!(under, packed("usr/lib"));
    }

    #[test]
    fn names_do_not_lead_out() {
        let mut archive = Archive::new(Vec::new());
        assert!(archive.file("a/../b", 0o644, b"").is_err());
    }
}
