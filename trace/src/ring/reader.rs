//! The end of a ring that reads.

use super::pages::Pages;
use crate::block::BLOCK_BYTES;
use crate::sync::{Ordering, fence};

/// Takes what was written.
#[derive(Debug)]
pub struct Reader {
    pages: Pages,
    position: u64,
}

impl Reader {
    pub(crate) fn new(pages: Pages) -> Self {
        Self { pages, position: 0 }
    }

    /// Appends what is new to `out`: the position of its first byte in all that was ever written, and how
    /// many bytes were overwritten before they could be taken.
    pub fn take(&mut self, out: &mut Vec<u8>) -> (u64, u64) {
        let from = self.position;
        let written = self.pages.written();
        if written < from {
            // A writer that lies; what it says next is as good.
            self.position = written;
            return (written, 0);
        }
        let start = self.first_left(from, written);
        let before = out.len();
        self.copy(start, written, out);
        // What was copied is older than what is known of the writer now.
        fence(Ordering::Acquire);
        // What the writer overwrote meanwhile is nonsense.
        let valid = self.first_left(start, self.pages.written()).min(written);
        out.drain(before..before + (valid - start) as usize);
        self.position = written;
        (valid, valid - from)
    }

    /// The first position at or behind `from` that is still there, at a record's start.
    fn first_left(&self, from: u64, written: u64) -> u64 {
        // The block that is being written is not there any more in its older half.
        let oldest = (written + BLOCK_BYTES).saturating_sub(self.pages.bytes);
        if from >= oldest { from } else { oldest.next_multiple_of(BLOCK_BYTES).min(written) }
    }

    fn copy(&self, start: u64, end: u64, out: &mut Vec<u8>) {
        let mut at = start;
        while at < end {
            let until_wrap = self.pages.bytes - at % self.pages.bytes;
            let count = (end - at).min(until_wrap);
            self.pages.memory.load(self.pages.place(at), count as usize, out);
            at += count;
        }
    }
}
