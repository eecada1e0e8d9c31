//! The memory of a ring, for both of its ends.

use crate::memory::SharedMemory;
use crate::stream::WORD_BYTES;
use crate::sync::Arc;

/// What is before the records.
pub(super) const HEADER_BYTES: usize = 4096;
const WORD_WRITTEN: usize = 2;
/// More than any machine writes in its life.
const MOST_WRITTEN: u64 = 1 << 60;

/// The memory, and how many bytes of it are for records.
#[derive(Debug, Clone)]
pub(crate) struct Pages {
    pub(super) memory: Arc<SharedMemory>,
    pub(super) bytes: u64,
}

impl Pages {
    pub(crate) fn new(memory: SharedMemory, bytes: u64) -> Self {
        Self { memory: Arc::new(memory), bytes }
    }

    /// All that was ever written; nothing, where a writer says what cannot be.
    pub(super) fn written(&self) -> u64 {
        let written = self.memory.load_word(WORD_WRITTEN);
        if written < MOST_WRITTEN && written.is_multiple_of(WORD_BYTES as u64) {
            written
        } else {
            0
        }
    }

    #[inline]
    pub(super) fn say_written(&self, written: u64) {
        self.memory.store_word(WORD_WRITTEN, written);
    }

    pub(super) fn place(&self, position: u64) -> usize {
        HEADER_BYTES + (position % self.bytes) as usize
    }
}
