//! Memory: the E820 map makes sense, and a sample of the pages of every range holds what is written,
//! also those above 4 GiB. The pages are shared out among all processors that run.
//!
//! Each page: a pattern, its complement, then its own addresses. At the end one processor looks at
//! the addresses of all pages again: two that are the same memory show there.

use alloc::{boxed::Box, format, string::String, vec::Vec};
use core::{
    hint::spin_loop,
    ops::Range,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
};

use super::Checked;
use crate::{
    acpi::Tables,
    boot_params::{BootParams, MemoryRange},
    platform::{heap, paging, time},
};

const PAGE: u64 = 4096;
/// Pages tested of each range: a host that backs them with huge pages clears as many of those.
const PAGES_PER_RANGE: u64 = 32;
/// Below are the tables of firmware and loader.
const LOW_MEMORY: u64 = 1 << 20;
/// What the heap may take while the test runs: for every processor, and for the rest.
const HEAP_PER_PROCESSOR: u64 = 128 << 10;
const HEAP_RESERVE: u64 = 1 << 20;
const PATTERN: u64 = 0x5aa5_3cc3_f00f_9669;
const PATIENCE_SECONDS: u64 = 10;

/// A test that processors take pages from. Lives for ever: a processor may come late.
#[derive(Clone, Copy)]
pub(super) struct Test(&'static Work);

struct Work {
    pages: Vec<u64>,
    bytes: u64,
    ranges: usize,
    next: AtomicUsize,
    done: AtomicUsize,
    /// The first address that failed, 0 for none: page 0 is not tested.
    bad: AtomicU64,
}

impl Test {
    /// Looks at the map and chooses pages.
    pub(super) fn prepare(params: &BootParams, tables: Option<&Tables>) -> Result<Self, String> {
        check_map(params)?;
        let processors = tables.map_or(1, |tables| tables.processors.len() as u64);
        let reserve = HEAP_RESERVE + processors * HEAP_PER_PROCESSOR;
        let used = heap::used_end();
        let ours = LOW_MEMORY..used + reserve.min((heap::end() - used) / 2);
        let ramdisk = params.ramdisk();
        let mut work = Work {
            pages: Vec::new(),
            bytes: 0,
            ranges: 0,
            next: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
            bad: AtomicU64::new(0),
        };
        for range in params.ram() {
            work.bytes += range.end - range.start;
            work.ranges += 1;
            for free in without(&(range.start.max(LOW_MEMORY)..range.end), &ours) {
                for free in without(&free, &ramdisk) {
                    work.pages.extend(sample(&free));
                }
            }
        }
        if work.pages.is_empty() {
            return Err(format!("{} bytes hold no free page", work.bytes));
        }
        Ok(Self(Box::leak(Box::new(work))))
    }

    /// Tests pages until none is left. Any number of processors may do so at the same time.
    pub(super) fn take_part(self) {
        let work = self.0;
        loop {
            let index = work.next.fetch_add(1, Ordering::Relaxed);
            let Some(page) = work.pages.get(index) else {
                return;
            };
            if let Err(address) = test_page(*page) {
                work.bad.store(address, Ordering::Relaxed);
            }
            work.done.fetch_add(1, Ordering::Release);
        }
    }

    /// Tests what is left, waits for the other processors and looks at all pages once more.
    pub(super) fn finish(self) -> Checked {
        self.take_part();
        let work = self.0;
        let all = work.pages.len();
        if !time::wait_for(PATIENCE_SECONDS, || work.done.load(Ordering::Acquire) == all) {
            let done = work.done.load(Ordering::Acquire);
            return Err(format!("{done} of {all} pages tested"));
        }
        spin_loop();
        for page in &work.pages {
            if let Err(address) = holds(*page, |address| address) {
                work.bad.store(address, Ordering::Relaxed);
            }
        }
        match work.bad.load(Ordering::Relaxed) {
            0 => Ok(format!(
                "{} MiB in {} ranges, {all} pages tested",
                work.bytes.div_ceil(1 << 20),
                work.ranges
            )),
            address => Err(format!("{address:#x} does not hold what is written")),
        }
    }
}

fn check_map(params: &BootParams) -> Result<(), String> {
    let ranges: Vec<MemoryRange> = params.memory().collect();
    for (index, range) in ranges.iter().enumerate() {
        let MemoryRange { start, length, .. } = *range;
        let Some(addresses) = range.addresses().filter(|_| length > 0) else {
            return Err(format!("E820 range {index} at {start:#x} has length {length:#x}"));
        };
        let overlaps = |other: &&MemoryRange| {
            other.start < addresses.end && start < other.start.saturating_add(other.length)
        };
        if let Some(other) = ranges[index + 1..].iter().find(overlaps) {
            return Err(format!("E820 ranges at {start:#x} and {:#x} overlap", other.start));
        }
    }
    for range in params.ram() {
        paging::map_ram(range.start, range.end)
            .ok_or_else(|| format!("memory up to {:#x} cannot be mapped", range.end))?;
    }
    Ok(())
}

/// The parts of a range before and after a hole.
fn without(range: &Range<u64>, hole: &Range<u64>) -> [Range<u64>; 2] {
    if hole.is_empty() {
        return [range.clone(), range.end..range.end];
    }
    [range.start..range.end.min(hole.start), range.start.max(hole.end)..range.end]
}

/// Pages spread over a range, the first and the last among them.
fn sample(range: &Range<u64>) -> impl Iterator<Item = u64> + use<> {
    let first = range.start.div_ceil(PAGE);
    let pages = (range.end / PAGE).saturating_sub(first);
    let count = pages.min(PAGES_PER_RANGE);
    (0..count).map(move |index| {
        let place = if count > 1 { (pages - 1) * index / (count - 1) } else { 0 };
        (first + place) * PAGE
    })
}

/// The address of the first word that fails.
fn test_page(page: u64) -> Result<(), u64> {
    for pattern in [PATTERN, !PATTERN] {
        fill(page, |address| address ^ pattern);
        holds(page, |address| address ^ pattern)?;
    }
    fill(page, |address| address);
    Ok(())
}

fn words(page: u64) -> impl Iterator<Item = (u64, *mut u64)> {
    (page..page + PAGE)
        .step_by(8)
        .map(|address| (address, core::ptr::with_exposed_provenance_mut(address as usize)))
}

fn fill(page: u64, value: impl Fn(u64) -> u64) {
    for (address, word) in words(page) {
        // SAFETY: a page of RAM (E820), mapped one to one, that is neither the image nor the used
        // part of the heap nor the ramdisk; one processor has it at a time.
        unsafe { word.write_volatile(value(address)) };
    }
}

fn holds(page: u64, value: impl Fn(u64) -> u64) -> Result<(), u64> {
    for (address, word) in words(page) {
        // SAFETY: as in `fill`.
        if unsafe { word.read_volatile() } != value(address) {
            return Err(address);
        }
    }
    Ok(())
}
