//! What syncs of a file came to, for all processes that serve it one after the other.
//!
//! ```text
//!   back end:   under way ──► fdatasync ──► what it came to ──► no longer under way
//!                   └───────────── in the in-flight region ─────────┘
//!   who outlives it: still under way, and the process is dead? ──► fdatasync by another open file
//! ```
//!
//! When the kernel cannot write a page back it takes it for clean all the same. It says so once to each open
//! file, and the next sync by that says that all is well. So after one that failed none succeeds, whichever
//! process asks, or a driver that tries again would be told that its data is safe.
//!
//! A process may die when the kernel has told it, and before it has told anybody. Whoever outlives it then asks
//! by an open file of its own, the [`SyncWitness`], which nobody else syncs: it hears of all that failed
//! since it was opened.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;

use super::queue::InflightRegion;
use crate::sync::Lock;

/// What the kernel does with pages that it could not write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failed {
    /// It takes them for clean.
    IsForgotten,
    /// There is no page cache: who wrote was told.
    IsKnown,
}

/// The syncs of a back end, on whichever of its threads.
#[derive(Debug)]
pub(super) struct Syncs {
    /// Where successors, and those who start them, learn of it.
    record: Option<InflightRegion>,
    failed: Failed,
    lost: AtomicBool,
    /// With what the record says of it, so a lock: beside a sync that is nothing.
    under_way: Lock<usize>,
}

impl Syncs {
    /// Goes on with what predecessors have left in the record.
    pub(super) fn new(failed: Failed, record: Option<&InflightRegion>) -> Self {
        let (lost, under_way) = (AtomicBool::new(false), Lock::new(0));
        Self { record: record.cloned(), failed, lost, under_way }
    }

    /// One has failed: none succeeds any more.
    pub(super) fn have_failed(&self) -> bool {
        self.lost.load(Ordering::Acquire)
            || self.record.as_ref().is_some_and(InflightRegion::is_marked)
    }

    /// Before a sync is asked for.
    pub(super) fn begin(&self) {
        let mut under_way = self.under_way.lock();
        *under_way += 1;
        if *under_way == 1
            && let Some(record) = &self.record
        {
            record.syncs_begin();
        }
    }

    /// After each one that was begun: what its result is worth. Those that were under way when one fails are
    /// worth nothing either, as of several the kernel tells one.
    pub(super) fn end<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result
            && self.failed == Failed::IsForgotten
            && is_loss(error)
        {
            self.lost.store(true, Ordering::Release);
            if let Some(record) = &self.record {
                record.mark();
            }
        }
        let mut under_way = self.under_way.lock();
        *under_way = under_way.saturating_sub(1);
        if *under_way == 0
            && let Some(record) = &self.record
        {
            record.syncs_are_over();
        }
        drop(under_way);
        match result {
            Ok(_) if self.have_failed() => Err(Errno::IO.into()),
            other => other,
        }
    }
}

/// Whether an error of a sync says that something was not written, and not that nothing was tried.
fn is_loss(error: &io::Error) -> bool {
    let not_tried = matches!(error.raw_os_error(), Some(libc::EINTR | libc::ECANCELED));
    !not_tried && !is_unsupported(error)
}

/// Whether an error says that a file cannot do such a thing at all.
pub(super) fn is_unsupported(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL | libc::ENODEV)
    )
}

/// An open file beside that of the back ends, by which only [`SyncWitness::settle`] asks.
#[derive(Debug)]
pub struct SyncWitness(File);

impl SyncWitness {
    /// Opens the file once more. To be called before anybody syncs it.
    pub fn of(file: BorrowedFd<'_>) -> io::Result<Self> {
        let name = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        // To read is enough: what is synced is the file.
        Ok(Self(File::open(name)?))
    }

    /// A process is dead: finds out what came of the sync that it may have had under way, and leaves that in the
    /// record for its successor. May take as long as a sync does.
    pub fn settle(&self, record: &InflightRegion) {
        settle(record, || self.0.sync_data());
    }
}

/// [`SyncWitness::settle`] with any way to sync by an open file of its own.
/// For simulations, which have files of their own.
pub fn settle(record: &InflightRegion, sync: impl FnOnce() -> io::Result<()>) {
    if !record.has_sync_under_way() {
        return;
    }
    if sync().is_err_and(|error| is_loss(&error)) {
        record.mark();
    }
    record.syncs_are_over();
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    fn region() -> InflightRegion {
        InflightRegion::create(1, 8).unwrap()
    }

    fn error(number: i32) -> io::Result<()> {
        Err(io::Error::from_raw_os_error(number))
    }

    #[test]
    fn who_dies_with_a_sync_under_way_has_somebody_who_asks_what_came_of_it() {
        for (told, lost) in [(Ok(()), false), (error(libc::EIO), true), (error(libc::ENOSPC), true)]
        {
            let region = region();
            let syncs = Syncs::new(Failed::IsForgotten, Some(&region));
            syncs.begin();
            drop(syncs);
            settle(&region, || told);
            assert_eq!(region.is_marked(), lost);
            let successor = Syncs::new(Failed::IsForgotten, Some(&region));
            assert_eq!(successor.have_failed(), lost);
            settle(&region, || unreachable!("it is settled"));
        }
    }

    #[test]
    fn nobody_asks_after_a_death_between_syncs() {
        let region = region();
        let syncs = Syncs::new(Failed::IsForgotten, Some(&region));
        for _ in 0..2 {
            syncs.begin();
        }
        assert!(syncs.end(Ok(())).is_ok());
        assert!(region.has_sync_under_way(), "the other one");
        assert!(syncs.end(Ok(())).is_ok());
        settle(&region, || unreachable!("nothing is under way"));
        assert!(!region.is_marked());
    }

    #[test]
    fn one_that_fails_takes_all_that_end_later_along() {
        let region = region();
        let syncs = Syncs::new(Failed::IsForgotten, Some(&region));
        for number in [libc::EINTR, libc::ECANCELED, libc::EINVAL] {
            syncs.begin();
            assert!(syncs.end(error(number)).is_err());
            assert!(!syncs.have_failed(), "{number} says nothing of what was written");
        }
        (0..2).for_each(|_| syncs.begin());
        assert!(syncs.end(error(libc::EIO)).is_err());
        assert!(syncs.end(Ok(())).is_err());
        assert!(syncs.have_failed() && region.is_marked());
        let direct = Syncs::new(Failed::IsKnown, None);
        direct.begin();
        assert!(direct.end(error(libc::EIO)).is_err());
        assert!(!direct.have_failed());
    }

    #[test]
    fn a_witness_syncs_the_same_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let witness = SyncWitness::of(file.as_file().as_fd()).unwrap();
        let inode = |file: &File| std::os::unix::fs::MetadataExt::ino(&file.metadata().unwrap());
        assert_eq!(inode(&witness.0), inode(file.as_file()));
        let region = region();
        region.syncs_begin();
        witness.settle(&region);
        assert!(!region.is_marked() && !region.has_sync_under_way());
    }
}
