//! A tree over a folder of its own, with a folder beside it that nobody shared.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use executor::{Config, Executor};
use tempfile::TempDir;

use crate::*;

/// Runs on a thread whose umask and working directory are its own, under an executor.
pub(super) fn on_thread(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(move || {
        // SAFETY: the thread gets its own umask and working directory, nothing else changes.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::FS) }.unwrap();
        Executor::new(&Config::default()).unwrap().block_on(async { test() });
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

pub(super) const fn shape(places: usize) -> Shape {
    Shape { places, fids: 4 }
}

pub(super) struct World {
    folder: TempDir,
    pub(super) memory: OwnedFd,
    pub(super) tree: Tree,
}

pub(super) const ROOT: InodeId = InodeId::ROOT;

pub(super) fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

pub(super) const fn creation(mode: u32) -> Creation {
    Creation { mode, umask: 0o022, caller: Caller { uid: 0, gid: 0 } }
}

pub(super) fn open_folder(path: impl AsRef<std::path::Path>, access: Access) -> Grant {
    Grant { directory: fs::File::open(path).unwrap().into(), access }
}

impl World {
    pub(super) fn new(access: Access) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for part in ["shared", "outside"] {
            fs::create_dir(folder.path().join(part)).unwrap();
        }
        fs::write(folder.path().join("outside/secret"), "secret").unwrap();
        let memory = Ledger::create(shape(8)).unwrap();
        let ledger = Ledger::attach(&memory, shape(8)).unwrap();
        let root = open_folder(folder.path().join("shared"), access);
        let tree = Tree::of_directory(root, Ids::Squashed, ledger).unwrap();
        Self { folder, memory, tree }
    }

    /// The server died; another goes on.
    pub(super) fn succeed(&mut self) {
        let ledger = Ledger::attach(&self.memory, shape(8)).unwrap();
        let root = open_folder(self.shared(""), Access::ReadWrite);
        self.tree = Tree::of_directory(root, Ids::Squashed, ledger).unwrap();
    }

    pub(super) fn shared(&self, path: &str) -> PathBuf {
        self.folder.path().join("shared").join(path)
    }

    pub(super) fn outside(&self, path: &str) -> PathBuf {
        self.folder.path().join("outside").join(path)
    }

    pub(super) fn look_up(&mut self, path: &str) -> Result<InodeId> {
        let mut inode = ROOT;
        for part in path.split('/') {
            inode = self.tree.look_up(inode, &Name::new(part.as_bytes())?)?.inode;
        }
        Ok(inode)
    }

    pub(super) fn open(&mut self, path: &str, flags: i32) -> Result<HandleId> {
        let inode = self.look_up(path)?;
        Ok(self.tree.open(inode, OpenMode::from_bits(flags as u32))?.handle)
    }

    pub(super) fn create(&mut self, path: &str) -> (InodeId, HandleId) {
        let mode = OpenMode::from_bits((libc::O_RDWR | libc::O_EXCL) as u32);
        let (entry, handle) = self.tree.create(ROOT, &name(path), mode, &creation(0o644)).unwrap();
        (entry.inode, handle)
    }

    pub(super) fn read(&mut self, handle: HandleId) -> Result<String> {
        let mut bytes = [0; 100];
        let file = self.tree.file(handle)?;
        let length = rustix::io::pread(&file, &mut bytes, 0)?;
        Ok(String::from_utf8(bytes[..length].to_vec()).unwrap())
    }

    pub(super) fn list(&mut self, inode: InodeId) -> Vec<String> {
        let handle = self.tree.open_directory(inode).unwrap();
        let mut names = Names { list: Vec::new(), most: usize::MAX, last: 0 };
        self.tree.read_directory(inode, handle, 0, &mut names).unwrap();
        self.tree.close(handle).unwrap();
        names.list.sort_unstable();
        names.list
    }
}

/// Names, at most so many.
pub(super) struct Names {
    pub(super) list: Vec<String>,
    pub(super) most: usize,
    pub(super) last: u64,
}

impl Sink for Names {
    fn wants(&self, _: usize) -> bool {
        self.list.len() < self.most
    }

    fn take(&mut self, entry: &DirectoryEntry<'_>) {
        self.list.push(String::from_utf8(entry.name.to_vec()).unwrap());
        self.last = entry.next;
    }

    fn looks_up(&self) -> bool {
        false
    }

    fn room(&self) -> usize {
        self.most.saturating_mul(30)
    }
}
