//! A file on a disk: what readers see, and what outlives the loss of power.

use super::numbers::Numbers;

/// What a disk writes at once or not at all.
const BLOCK: usize = 512;

/// What a loss of power leaves of blocks that were written and not made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Nothing: each block is as it was made durable last.
    None,
    /// Any of them, each by itself.
    Any,
}

/// Contents and what is known of each block of it.
pub(super) struct Disk {
    cache: Vec<u8>,
    durable: Vec<u8>,
    /// How often each block was written.
    written: Vec<u32>,
    /// Which of these lasts.
    lasting: Vec<u32>,
    /// Whether the next sync writes it.
    dirty: Vec<bool>,
    /// How many syncs have failed.
    failures: u64,
    /// How many of these each open file was told of.
    told: [u64; 2],
}

/// By which of its open files somebody works on a disk: the kernel tells each of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opened {
    /// By that of the actors, one after the other.
    ByActors,
    /// By that of who outlives them.
    BySurvivor,
}

/// What a sync has to make durable: the dirty blocks when it began.
pub(super) struct Writeback {
    blocks: Vec<(usize, u32, [u8; BLOCK])>,
}

impl Disk {
    pub(super) fn new(contents: Vec<u8>) -> Self {
        assert!(contents.len().is_multiple_of(BLOCK), "a disk consists of blocks");
        let blocks = contents.len() / BLOCK;
        Disk {
            durable: contents.clone(),
            cache: contents,
            written: vec![0; blocks],
            lasting: vec![0; blocks],
            dirty: vec![false; blocks],
            failures: 0,
            told: [0; 2],
        }
    }

    pub(super) fn contents(&self) -> &[u8] {
        &self.cache
    }

    pub(super) fn length(&self) -> usize {
        self.cache.len()
    }

    /// Some bytes at an offset that is inside.
    pub(super) fn read(&self, offset: usize, to: &mut [u8]) {
        to.copy_from_slice(&self.cache[offset..offset + to.len()]);
    }

    pub(super) fn write(&mut self, offset: usize, from: &[u8]) {
        self.cache[offset..offset + from.len()].copy_from_slice(from);
        self.touch(offset, from.len());
    }

    pub(super) fn zero(&mut self, offset: usize, length: usize) {
        self.cache[offset..offset + length].fill(0);
        self.touch(offset, length);
    }

    fn touch(&mut self, offset: usize, length: usize) {
        if length == 0 {
            return;
        }
        for block in offset / BLOCK..=(offset + length - 1) / BLOCK {
            self.written[block] += 1;
            self.dirty[block] = true;
        }
    }

    /// A sync begins.
    pub(super) fn begin_sync(&self) -> Writeback {
        let block = |index: usize| {
            let mut bytes = [0; BLOCK];
            bytes.copy_from_slice(&self.cache[index * BLOCK..][..BLOCK]);
            (index, self.written[index], bytes)
        };
        let dirty = (0..self.dirty.len()).filter(|index| self.dirty[*index]);
        Writeback { blocks: dirty.map(block).collect() }
    }

    /// A sync ends well: what it began with lasts. Whether the file is told now of an earlier failure is said.
    pub(super) fn end_sync(&mut self, writeback: Writeback, by: Opened) -> Result<(), ()> {
        for (index, version, bytes) in writeback.blocks {
            if version > self.lasting[index] {
                self.durable[index * BLOCK..][..BLOCK].copy_from_slice(&bytes);
                self.lasting[index] = version;
                self.dirty[index] &= self.written[index] != version;
            }
        }
        let told = std::mem::replace(&mut self.told[by as usize], self.failures);
        if told == self.failures { Ok(()) } else { Err(()) }
    }

    /// A sync fails: what it began with counts as clean, whether it lasts or not.
    pub(super) fn fail_sync(&mut self, writeback: &Writeback, by: Opened) {
        self.failures += 1;
        self.told[by as usize] = self.failures;
        for (index, version, _) in &writeback.blocks {
            self.dirty[*index] &= self.written[*index] != *version;
        }
    }

    /// The power goes, and comes back.
    pub(super) fn cut_power(&mut self, kept: Kept, random: &mut Numbers) {
        for index in 0..self.dirty.len() {
            let range = index * BLOCK..(index + 1) * BLOCK;
            if self.dirty[index] && kept == Kept::Any && random.once_in(2) {
                self.durable[range.clone()].copy_from_slice(&self.cache[range.clone()]);
            }
            self.cache[range.clone()].copy_from_slice(&self.durable[range]);
            self.dirty[index] = false;
            self.lasting[index] = self.written[index];
        }
    }
}
