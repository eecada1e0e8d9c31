//! The files that programs of the guest work on, made on the host.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::client::PAGE;

/// Files of a directory.
pub(super) const PER_DIRECTORY: u32 = 50;
/// Pages of a file: it has one to so many.
const MOST_PAGES: u32 = 4;
/// The large file.
pub(super) const LARGE: &str = "large";
/// What folders begin with in which files are made.
const NEW: &str = "new";
/// Says what is in the folder, so that nothing else is written to.
const MARK: &str = "made-for-vmm-bench";

/// A folder with many small files in it, and a large one. Each page of a file begins with a number.
#[derive(Debug, Clone)]
pub struct FsTree {
    /// Where it is.
    pub path: PathBuf,
    /// Small files, a multiple of 50.
    pub files: u32,
    /// Bytes of the large one, a multiple of 1 MiB.
    pub large: u64,
}

impl FsTree {
    /// Makes what is not there yet. A folder that is there has to be one that was made so.
    pub fn prepare(&self) -> io::Result<()> {
        let mark = self.path.join(MARK);
        let shape = format!("{} files, {} bytes\n", self.files, self.large);
        match fs::read_to_string(&mark) {
            Ok(found) if found == shape => return Ok(()),
            Ok(found) => {
                let text = format!("it has been made for {}", found.trim_end());
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
            }
            Err(_) => fs::create_dir(&self.path)?,
        }
        for directory in 0..self.directories() {
            fs::create_dir(self.path.join(directory_name(directory)))?;
        }
        for file in 0..self.files {
            let path = self.path.join(directory_name(file / PER_DIRECTORY)).join(file_name(file));
            pages(&path, first_page(file), u64::from(pages_of(file)))?;
        }
        pages(&self.path.join(LARGE), 0, self.large / u64::from(PAGE))?;
        // File systems of the ext family then put its folders far from each other.
        let _ = File::open(&self.path).and_then(|folder| {
            let flags = rustix::fs::ioctl_getflags(&folder)? | rustix::fs::IFlags::TOPDIR;
            Ok(rustix::fs::ioctl_setflags(&folder, flags)?)
        });
        fs::write(mark, shape)
    }

    /// Reads all files once: whoever is measured first would otherwise wait for what others need not wait for.
    pub fn warm(&self) -> io::Result<()> {
        for directory in 0..self.directories() {
            for entry in fs::read_dir(self.path.join(directory_name(directory)))? {
                io::copy(&mut File::open(entry?.path())?, &mut io::sink())?;
            }
        }
        io::copy(&mut File::open(self.path.join(LARGE))?, &mut io::sink()).map(drop)
    }

    /// Makes an empty folder for new files. One that nobody used: ext4 looks past all inodes that were freed
    /// in the last minutes, which takes much longer than to make a file.
    pub(super) fn prepare_new(&self) -> io::Result<String> {
        for number in 0.. {
            let name = format!("{NEW}-{number}");
            match fs::create_dir(self.path.join(&name)) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                result => return result.map(|()| name),
            }
        }
        Err(io::ErrorKind::StorageFull.into())
    }

    pub(super) fn directories(&self) -> u32 {
        self.files / PER_DIRECTORY
    }

    /// How many files are where they are made.
    pub(super) fn made(&self, folder: &str) -> io::Result<usize> {
        Ok(fs::read_dir(self.path.join(folder))?.count())
    }

    /// The number of a page of the large file.
    pub(super) fn page(&self, page: u64) -> io::Result<u64> {
        let mut bytes = [0; 8];
        let file = File::open(self.path.join(LARGE))?;
        file.read_exact_at(&mut bytes, page * u64::from(PAGE))?;
        Ok(u64::from_ne_bytes(bytes))
    }
}

pub(super) fn directory_name(directory: u32) -> String {
    format!("directory-{directory:04}")
}

pub(super) fn file_name(file: u32) -> String {
    format!("source-{file:06}.c")
}

pub(super) fn pages_of(file: u32) -> u32 {
    file % MOST_PAGES + 1
}

/// The number that its first page begins with.
pub(super) fn first_page(file: u32) -> u64 {
    u64::from(file) << 8
}

fn pages(path: &Path, first: u64, count: u64) -> io::Result<()> {
    let mut file = BufWriter::with_capacity(1 << 20, File::create_new(path)?);
    let mut page = [0x20; PAGE as usize];
    for number in 0..count {
        page[..8].copy_from_slice(&(first + number).to_ne_bytes());
        file.write_all(&page)?;
    }
    file.flush()
}
