//! Reads as copies out of the host's page cache, without a system call.
//!
//! A disk with a page cache is mapped as a whole. That takes address space and page tables, a 512th of what
//! is read; a disk that rests gives those back, so that its process stays as small as it was.
//!
//! A file in memory gets memory wherever it is read by mapping, in holes as well. So each part of such a file is
//! looked at before it is read for the first time, and what has holes is read by system calls.

use std::cell::Cell;
use std::future::poll_fn;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::Poll;
use std::time::Duration;

use executor::Fd;
use rustix::fs::SeekFrom;

use super::Storage;
use crate::memory::FileView;
use crate::virtio::worker::Changes;

/// After so long without a read a disk rests.
pub(super) const REST: Duration = Duration::from_secs(1);

/// Only so much of a disk is mapped: page tables take a 512th of what was read ever, and nothing frees them under load.
const MOST_BYTES: u64 = 128 << 30;

/// A file that is read without system calls.
#[derive(Debug)]
pub(super) struct View {
    contents: FileView,
    /// For files in memory.
    holes: Option<Holes>,
    /// Whether it was read since this was last asked.
    used: Cell<bool>,
    first_use: Changes,
}

impl View {
    /// None if the file is not for it.
    pub(super) fn of(file: BorrowedFd<'_>, size: u64) -> Option<Self> {
        if executor::driver() == Some(executor::DriverKind::Simulated) {
            return None;
        }
        let size = size.min(MOST_BYTES);
        let holes = match Storage::of(file) {
            Storage::Memory => Some(Holes::new(size)),
            Storage::PageCache => None,
            Storage::Direct | Storage::Silent => return None,
        };
        Self::map(file, size, holes)
    }

    /// Another one of the same file, for another thread. What one learns of holes the other knows.
    pub(super) fn another(&self, file: BorrowedFd<'_>, size: u64) -> Option<Self> {
        Self::map(file, size.min(MOST_BYTES), self.holes.clone())
    }

    fn map(file: BorrowedFd<'_>, size: u64, holes: Option<Holes>) -> Option<Self> {
        match FileView::new(file, size) {
            Ok(contents) => {
                let (used, first_use) = (Cell::new(false), Changes::default());
                Some(Self { contents, holes, used, first_use })
            }
            Err(error) => {
                log::debug!("the disk is read by system calls: {error}");
                None
            }
        }
    }

    /// What to copy from, if these bytes can be read so.
    #[inline]
    pub(super) fn contents(&self, file: &Fd, offset: u64, bytes: u32) -> Option<&FileView> {
        if let Some(holes) = &self.holes
            && holes.are_in(file, offset, bytes.into())
        {
            return None;
        }
        if !self.used.replace(true) {
            self.first_use.notify();
        }
        Some(&self.contents)
    }

    /// Have the beginning of what will be copied brought near.
    #[inline]
    pub(super) fn bring_near(&self, offset: u64) {
        self.contents.bring_near(offset);
    }

    /// Whether what was copied is what the file holds.
    #[inline]
    pub(super) fn is_intact(&self) -> bool {
        self.contents.is_intact()
    }

    /// A range of the file was freed.
    pub(super) fn freed(&self, offset: u64, bytes: u64) {
        if let Some(holes) = &self.holes {
            holes.forget(offset, bytes);
        }
    }

    /// Gives back what the kernel keeps for it whenever nothing was read for so long. Does not end.
    pub(super) async fn tidy(&self, rest: Duration) {
        loop {
            poll_fn(|context| {
                if self.used.get() {
                    return Poll::Ready(());
                }
                self.first_use.register(context);
                Poll::Pending
            })
            .await;
            while self.used.replace(false) {
                executor::sleep(rest).await;
            }
            self.contents.let_go();
        }
    }
}

/// Bytes of a part of which one answer is kept.
const PART: u64 = 2 << 20;

/// Nobody has looked, or not for long.
const UNKNOWN: u8 = 0;
/// There are none. All between are reads until the next look.
const NONE: u8 = u8::MAX;
/// A part with holes is not looked at for so many reads: somebody may be filling it.
const READS: u8 = NONE - 1;

/// Where a file has holes, for all threads that serve it. Whoever looks at an old answer reads a part once more by a
/// system call, or fills a hole that was made just then, which costs memory and nothing else.
#[derive(Debug, Clone)]
struct Holes {
    parts: Arc<[AtomicU8]>,
}

impl Holes {
    fn new(size: u64) -> Self {
        Self { parts: (0..size.div_ceil(PART)).map(|_| AtomicU8::new(UNKNOWN)).collect() }
    }

    /// The parts that a range touches.
    fn parts(&self, offset: u64, bytes: u64) -> impl Iterator<Item = (u64, &AtomicU8)> {
        let range = offset / PART..(offset + bytes).div_ceil(PART);
        range.filter_map(|part| Some((part, self.parts.get(usize::try_from(part).ok()?)?)))
    }

    /// Whether a range may have some.
    #[inline]
    fn are_in(&self, file: &Fd, offset: u64, bytes: u64) -> bool {
        let mut parts = self.parts(offset, bytes);
        parts.any(|(part, state)| match state.load(Ordering::Relaxed) {
            NONE => false,
            UNKNOWN => self.look(file, part),
            reads => {
                state.store(reads - 1, Ordering::Relaxed);
                true
            }
        })
    }

    /// Looks for the next hole from a part on; whether that is in this part.
    #[cold]
    fn look(&self, file: &Fd, part: u64) -> bool {
        let begin = part * PART;
        // The end of a file counts as one, and behind its end there is nothing to be found.
        let hole = rustix::fs::seek(file.as_fd(), SeekFrom::Hole(begin)).unwrap_or(begin);
        let length = rustix::fs::fstat(file.as_fd()).map_or(0, |status| status.st_size as u64);
        let dense = if hole == length { self.parts.len() as u64 } else { hole / PART };
        for (_, state) in self.parts(begin, dense.saturating_sub(part) * PART) {
            state.store(NONE, Ordering::Relaxed);
        }
        if dense > part {
            return false;
        }
        self.parts[part as usize].store(READS, Ordering::Relaxed);
        true
    }

    fn forget(&self, offset: u64, bytes: u64) {
        for (_, state) in self.parts(offset, bytes) {
            state.store(UNKNOWN, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use executor::Executor;
    use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, memfd_create};

    use super::*;

    /// In an executor, a view of a file in memory of four parts, the second of which has a hole.
    fn with_holes(then: impl AsyncFnOnce(&File, &Fd, View)) {
        let file = File::from(memfd_create("disk", MemfdFlags::CLOEXEC).unwrap());
        file.set_len(4 * PART).unwrap();
        let full = vec![7; PART as usize];
        for part in [0, 2, 3] {
            file.write_all_at(&full, part * PART).unwrap();
        }
        file.write_all_at(&full[4096..], PART).unwrap();
        crate::memory::survive_bus_errors().unwrap();
        Executor::new(&executor::Config::default()).unwrap().block_on(async {
            let fd = Fd::new(file.try_clone().unwrap()).unwrap();
            let view = View::of(file.as_fd(), 4 * PART).expect("a file in memory has a view");
            then(&file, &fd, view).await;
        });
    }

    #[test]
    fn what_has_holes_is_not_read_by_mapping_until_it_has_none() {
        with_holes(async |file, fd, view| {
            let can = |part: u64| view.contents(fd, part * PART, 4096).is_some();
            assert_eq!([can(0), can(1), can(2), can(3)], [true, false, true, true]);
            assert!(view.contents(fd, PART - 4096, 8192).is_none(), "one end in a hole");
            file.write_all_at(&[1; 4096], 2 * PART - 4096).unwrap();
            let looks = (0..=u32::from(NONE)).find(|_| can(1));
            assert!(looks.is_some_and(|reads| reads > 100), "{looks:?}: seldom, but it is seen");
            let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            fallocate(file, mode, 3 * PART + 8192, 4096).unwrap();
            view.freed(3 * PART + 8192, 4096);
            assert_eq!([can(2), can(3)], [true, false]);
        });
    }

    /// Bytes that this process has mapped of what lies at an address.
    fn resident(address: usize) -> String {
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let own = maps.split_once(&format!("{address:x}-")).expect("it is mapped").1;
        own.lines().find(|line| line.starts_with("Rss:")).unwrap().replace(' ', "")
    }

    #[test]
    fn a_disk_that_rests_keeps_nothing_mapped() {
        with_holes(async |_, fd, view| {
            let part = view.contents(fd, 0, 4096).unwrap().part(0, 4096).unwrap();
            // SAFETY: within the view.
            assert_eq!(unsafe { part.as_ptr().read_volatile() }, 7);
            let address = part.as_ptr().addr();
            assert_ne!(resident(address), "Rss:0kB");
            let emptied = async {
                while resident(address) != "Rss:0kB" {
                    executor::sleep(Duration::from_millis(1)).await;
                }
            };
            let tidy = view.tidy(Duration::from_millis(1));
            executor::select(std::pin::pin!(tidy), std::pin::pin!(emptied)).await;
            assert!(view.is_intact());
        });
    }
}
