//! What programs ask a Linux guest's file system for, after their names and attributes have run out of
//! validity.

use std::cell::RefCell;
use std::time::Instant;

use devices::virtio::fs::protocol::{EntryOut, Opcode};

use super::calls::Entries;
use super::client::{Client, PAGE, Program};
use super::tree::{self, FsTree, LARGE, PER_DIRECTORY};
use crate::{Figures, LoadError};

/// The root of the file system.
const ROOT: u64 = 1;
/// Threads in which git looks at the files of its index.
const GIT_THREADS: u32 = 20;
/// Of so many files git finds one that has changed, and reads it.
const CHANGED: u32 = 20;
/// What Linux reads ahead.
const AHEAD: u32 = 128 << 10;

/// What all programs of a run use.
pub(super) struct Run<'a> {
    pub(super) client: Client<'a>,
    pub(super) forgets: Client<'a>,
    pub(super) tree: &'a FsTree,
    pub(super) figures: RefCell<Figures>,
    /// Files to make and to remove, and the folder for them.
    pub(super) new: u32,
    pub(super) folder: String,
    /// The most bytes of a write.
    pub(super) most_written: u32,
}

impl<'a> Run<'a> {
    /// Counts one of what the program is measured by.
    fn count(&self, since: Instant) {
        self.figures.borrow_mut().count(since.elapsed());
    }

    /// The nodes of all directories; not measured.
    pub(super) async fn directories(&self) -> Result<Vec<u64>, LoadError> {
        let mut nodes = Vec::new();
        for directory in 0..self.tree.directories() {
            nodes.push(self.client.find(ROOT, &tree::directory_name(directory)).await?.node);
        }
        Ok(nodes)
    }

    /// `git status`: looks at all files from several threads, then for files that git does not know.
    pub(super) fn status(&'a self, directories: &'a [u64]) -> Vec<Program<'a>> {
        self.look_at_all(directories, None)
    }

    /// The same, with what is read of files that have changed.
    pub(super) fn diff(&'a self, directories: &'a [u64]) -> Vec<Program<'a>> {
        self.look_at_all(directories, Some(CHANGED))
    }

    fn look_at_all(&'a self, directories: &'a [u64], changed: Option<u32>) -> Vec<Program<'a>> {
        let share = self.tree.files.div_ceil(GIT_THREADS);
        let thread = |number| -> Program<'a> {
            let files = number * share..self.tree.files.min((number + 1) * share);
            Box::pin(async move {
                for file in files {
                    let begin = Instant::now();
                    let entry = self.find_file(directories, file).await?;
                    if changed.is_some_and(|changed| file.is_multiple_of(changed)) {
                        self.read_file(entry.node, file).await?;
                    }
                    self.count(begin);
                }
                Ok(())
            })
        };
        (0..GIT_THREADS).map(thread).collect()
    }

    async fn find_file(&self, directories: &[u64], file: u32) -> Result<EntryOut, LoadError> {
        let directory = directories[(file / PER_DIRECTORY) as usize];
        let entry = self.client.find(directory, &tree::file_name(file)).await?;
        let size = u64::from(tree::pages_of(file) * PAGE);
        match entry.attr.size {
            found if found == size => Ok(entry),
            found => Err(LoadError::Wrong(format!("file {file} has {found} bytes, not {size}"))),
        }
    }

    async fn read_file(&self, node: u64, file: u32) -> Result<(), LoadError> {
        let handle = self.client.open(Opcode::Open, node, libc::O_RDONLY as u32).await?;
        let size = tree::pages_of(file) * PAGE;
        let first = tree::first_page(file);
        self.client.read((node, handle), 0, size, first, size).await?;
        self.client.close(node, handle).await
    }

    /// The second half of `git status`: the names of all directories, in each of which it looks for rules of
    /// what to ignore.
    pub(super) async fn untracked(&'a self, directories: &'a [u64]) -> Result<(), LoadError> {
        for directory in directories {
            if self.client.look_up(*directory, ".gitignore").await?.is_some() {
                return Err(LoadError::Wrong("a file is there that is not".into()));
            }
            let mut names = 0;
            self.list(*directory, Entries::Names, |name, _| {
                names += u32::from(!name.starts_with('.'));
            })
            .await?;
            if names != PER_DIRECTORY {
                return Err(LoadError::Wrong(format!("a directory has {names} files")));
            }
        }
        Ok(())
    }

    /// Reads a directory: first with look-ups, as Linux does on trial, and later as is asked for.
    async fn list(
        &self,
        node: u64,
        how: Entries,
        mut take: impl FnMut(&str, Option<EntryOut>),
    ) -> Result<(), LoadError> {
        let handle = self.client.open(Opcode::Opendir, node, libc::O_DIRECTORY as u32).await?;
        let (mut offset, mut now) = (0, Entries::LookedUp);
        loop {
            let entries = self.client.entries((node, handle), offset, now).await?;
            let Some(last) = entries.last() else { break };
            offset = last.next;
            for found in &entries {
                take(&found.name, found.entry);
            }
            now = how;
        }
        self.client.release(Opcode::Releasedir, node, handle).await
    }

    /// `tar c`: all directories and what is in all files, one after the other.
    pub(super) async fn tar(&'a self, directories: &'a [u64]) -> Result<(), LoadError> {
        for directory in directories {
            let mut found = Vec::new();
            self.list(*directory, Entries::LookedUp, |name, entry| {
                if let (Some(number), Some(entry)) = (name.get(7..13), entry) {
                    found.push((number.parse::<u32>().unwrap_or(u32::MAX), entry.node));
                }
            })
            .await?;
            if found.len() != PER_DIRECTORY as usize {
                return Err(LoadError::Wrong(format!("a directory has {} files", found.len())));
            }
            for (file, node) in found {
                let begin = Instant::now();
                let handle = self.client.open(Opcode::Open, node, libc::O_RDONLY as u32).await?;
                let size = tree::pages_of(file) * PAGE;
                let first = tree::first_page(file);
                self.client.read((node, handle), 0, size, first, size).await?;
                // It looks whether the file has changed meanwhile.
                self.client.getattr(node).await?;
                self.client.close(node, handle).await?;
                self.count(begin);
            }
        }
        Ok(())
    }

    /// Opens the large file; not measured.
    pub(super) async fn large(&self) -> Result<(u64, u64), LoadError> {
        let node = self.client.find(ROOT, LARGE).await?.node;
        let handle = self.client.open(Opcode::Open, node, libc::O_RDWR as u32).await?;
        Ok((node, handle))
    }

    /// `cat`: what is read ahead is two requests.
    pub(super) fn read_all(&'a self, file: (u64, u64)) -> Vec<Program<'a>> {
        let reader = |which: u64| -> Program<'a> {
            Box::pin(async move {
                let step = u64::from(AHEAD);
                for offset in (which * step..self.tree.large).step_by(2 * AHEAD as usize) {
                    let begin = Instant::now();
                    let first = offset / u64::from(PAGE);
                    self.client.read(file, offset, AHEAD, first, AHEAD).await?;
                    self.count(begin);
                }
                Ok(())
            })
        };
        vec![reader(0), reader(1)]
    }

    /// `dd bs=1M`: each piece is written before the next.
    pub(super) async fn write_all(&'a self, file: (u64, u64)) -> Result<(), LoadError> {
        let size = self.most_written;
        for offset in (0..self.tree.large).step_by(size as usize) {
            let begin = Instant::now();
            self.client.write(file, offset, size, offset / u64::from(PAGE)).await?;
            self.count(begin);
        }
        Ok(())
    }

    /// Reads or writes of a page anywhere, several at a time.
    pub(super) fn random(
        &'a self,
        file: (u64, u64),
        count: u32,
        depth: u32,
        write: super::Direction,
    ) -> Vec<Program<'a>> {
        let pages = self.tree.large / u64::from(PAGE);
        let one = |number: u32| -> Program<'a> {
            let mut random = fastrand::Rng::with_seed(number.into());
            Box::pin(async move {
                for _ in 0..count / depth {
                    let page = random.u64(0..pages);
                    let offset = page * u64::from(PAGE);
                    let begin = Instant::now();
                    match write {
                        super::Direction::Read => {
                            self.client.read(file, offset, PAGE, page, PAGE).await?;
                        }
                        super::Direction::Write => {
                            self.client.write(file, offset, PAGE, page).await?;
                        }
                    }
                    self.count(begin);
                }
                Ok(())
            })
        };
        (0..depth).map(one).collect()
    }

    /// `touch`, for many files that are not there.
    pub(super) async fn create(&'a self, nodes: &'a RefCell<Vec<u64>>) -> Result<(), LoadError> {
        let directory = self.client.find(ROOT, &self.folder).await?.node;
        for file in 0..self.new {
            let name = tree::file_name(file);
            let begin = Instant::now();
            if self.client.look_up(directory, &name).await?.is_some() {
                return Err(LoadError::Wrong(format!("{name} is there already")));
            }
            let (node, handle) = self.client.create(directory, &name).await?;
            self.client.close(node, handle).await?;
            nodes.borrow_mut().push(node);
            self.count(begin);
        }
        Ok(())
    }

    /// `rm` of all of them: what has no name is forgotten.
    pub(super) async fn remove(&'a self, nodes: &'a RefCell<Vec<u64>>) -> Result<(), LoadError> {
        let directory = self.client.find(ROOT, &self.folder).await?.node;
        let nodes = nodes.take();
        for (file, node) in nodes.iter().enumerate() {
            let begin = Instant::now();
            self.client.unlink(directory, &tree::file_name(file as u32)).await?;
            self.forgets.forget(*node)?;
            self.count(begin);
        }
        Ok(())
    }
}
