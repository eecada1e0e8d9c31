//! A file that makes room for itself: `log` is the newest, `log.1` to `log.5` are older.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Older files that stay.
const KEPT: u32 = 5;

/// Bytes go in at the end, and no more than so many files of a size are there.
#[derive(Debug)]
pub struct RotatingFile {
    path: PathBuf,
    file: File,
    size: u64,
    limit: u64,
}

impl RotatingFile {
    /// Opens the newest, which is made for its owner alone, and goes on in it.
    pub fn open(path: &Path, limit: u64) -> io::Result<Self> {
        let file = open(path)?;
        let size = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, size, limit })
    }

    /// Appends all of it, in a new file if it would make this one too large.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let length = bytes.len() as u64;
        if self.size > 0 && self.size + length > self.limit {
            self.rotate()?;
        }
        self.file.write_all(bytes)?;
        self.size += length;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        for number in (1..KEPT).rev() {
            match fs::rename(self.numbered(number), self.numbered(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::rename(&self.path, self.numbered(1))?;
        self.file = open(&self.path)?;
        self.size = 0;
        Ok(())
    }

    fn numbered(&self, number: u32) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(format!(".{number}"));
        path.into()
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_older_files_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        for turn in 0..10 {
            let mut file = RotatingFile::open(&path, 10).unwrap();
            file.append(format!("line {turn}\n").as_bytes()).unwrap();
        }
        let read = |name: &str| fs::read_to_string(folder.path().join(name));
        assert_eq!(read("log").unwrap(), "line 9\n");
        assert_eq!(read("log.1").unwrap(), "line 8\n");
        assert_eq!(read("log.5").unwrap(), "line 4\n");
        assert!(read("log.6").is_err());
        // Longer than a file may be.
        let mut file = RotatingFile::open(&path, 10).unwrap();
        file.append(&[b'x'; 100]).unwrap();
        assert_eq!(read("log").unwrap().len(), 100);
    }
}
