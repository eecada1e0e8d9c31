//! Huge pages for a part of guest RAM that is about to be filled.
//!
//! By default a memfd gets no huge pages by itself (`shmem_enabled` is `never`), but gets those that
//! are asked for with `MADV_COLLAPSE`, from Linux 6.1 on. That wants one page of each to be there:
//!
//! ```text
//!   host     │- - - -│########│########│####- - │     # what will be filled
//!   2 MiB    └───────┴────────┴────────┴────────┘
//!                     ^touch   ^touch   ^touch        then one MADV_COLLAPSE of all three
//! ```

use std::os::fd::BorrowedFd;
use std::os::raw::c_int;

use devices::memory::Region;
use rustix::fs::FsWord;

/// What the hardware maps with one entry of the second level.
pub(super) const HUGE_PAGE: u64 = 2 << 20;
/// The smallest page, enough to make a huge one of.
const PAGE: usize = 4096;
/// `f_type` of a memfd made with `MFD_HUGETLB` (`HUGETLBFS_MAGIC` of `linux/magic.h`).
const HUGETLBFS: FsWord = 0x9584_58F6;

/// What a range is made of now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Backing {
    /// Huge pages but for the edges: write through the mapping.
    Huge,
    /// Perhaps nothing yet: writing through the file is faster.
    Small,
}

/// Asks for huge pages for `length` bytes at `offset` of `region`, which hold all of them.
pub(super) fn populate(region: &Region<'_>, offset: u64, length: u64) -> Backing {
    if is_hugetlb(region.file) {
        return Backing::Huge;
    }
    let Some((start, end)) = blocks(region, offset, length) else { return Backing::Small };
    let touched = (start..end)
        .step_by(HUGE_PAGE as usize)
        .all(|block| advise(region, block, PAGE, libc::MADV_POPULATE_WRITE));
    if touched && advise(region, start, (end - start) as usize, libc::MADV_COLLAPSE) {
        Backing::Huge
    } else {
        Backing::Small
    }
}

/// The aligned blocks, as offsets into the region, of which the range covers at least half each.
fn blocks(region: &Region<'_>, offset: u64, length: u64) -> Option<(u64, u64)> {
    // The mapping and the guest's addresses agree modulo a huge page, and so do file offsets.
    let skew = region.guest_base.0 % HUGE_PAGE;
    let half = HUGE_PAGE / 2;
    let first = (offset + skew + half) / HUGE_PAGE * HUGE_PAGE;
    let last = (offset + length + skew + half) / HUGE_PAGE * HUGE_PAGE;
    let (start, end) = (first.checked_sub(skew)?, last.checked_sub(skew)?);
    (start < end && end <= region.length).then_some((start, end))
}

fn is_hugetlb(file: BorrowedFd<'_>) -> bool {
    rustix::fs::fstatfs(file).is_ok_and(|status| status.f_type == HUGETLBFS)
}

fn advise(region: &Region<'_>, offset: u64, length: usize, advice: c_int) -> bool {
    // SAFETY: the range is part of the region's mapping; both pieces of advice leave its contents
    // as they are.
    let result = unsafe {
        libc::madvise(region.host_base.as_ptr().add(offset as usize).cast(), length, advice)
    };
    if result != 0 {
        let error = std::io::Error::last_os_error();
        log::debug!("no huge pages for {length:#x} bytes at {offset:#x} of RAM: {error}");
    }
    result == 0
}
