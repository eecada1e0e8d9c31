//! What is on a disk, as far as it was written here, and whether that is what is read.
//!
//! Each sector of a write begins with where it belongs and how often its block was written:
//!
//! ```text
//!   | 8 bytes: sector | 8 bytes: writes | as it was in memory ...  |
//! ```

use devices::memory::{GuestAddress, GuestMemory, MemoryError};

use crate::LoadError;

const SECTOR: u64 = 512;

/// The blocks of a queue's part of a disk.
pub(crate) struct Contents {
    /// The first block of the part.
    first: u64,
    /// How often each was written.
    writes: Vec<u32>,
    /// Whether there is a request for it: what that reads or leaves behind is known when it is over.
    busy: Vec<bool>,
    sectors: u64,
}

/// A request for a block of which there is no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) block: u64,
    /// How often it was written, with this request.
    pub(crate) writes: u32,
}

impl Contents {
    /// So many blocks from one on, of which nothing is known.
    pub(crate) fn new(first: u64, count: u64, block_size: u32) -> Self {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let sectors = u64::from(block_size) / SECTOR;
        Self { first, writes: vec![0; count], busy: vec![false; count], sectors }
    }

    /// Claims a block, or the next one that nobody has claimed. None if there is none.
    pub(crate) fn claim(&mut self, block: u64, reads: bool) -> Option<Claim> {
        let count = self.busy.len();
        let start = (block - self.first) as usize;
        let index = (start..count).chain(0..start).find(|index| !self.busy[*index])?;
        self.busy[index] = true;
        if !reads {
            self.writes[index] += 1;
        }
        Some(Claim { block: self.first + index as u64, writes: self.writes[index] })
    }

    /// Makes memory what a write of a block writes.
    pub(crate) fn fill(
        &self,
        memory: &GuestMemory,
        at: u64,
        claim: Claim,
    ) -> Result<(), MemoryError> {
        for sector in 0..self.sectors {
            let address = GuestAddress(at + sector * SECTOR);
            memory.write_slice(address, &self.mark(claim, sector))?;
        }
        Ok(())
    }

    /// Lets go of a block, after a look at what was read of it.
    pub(crate) fn release(
        &mut self,
        memory: &GuestMemory,
        at: u64,
        claim: Claim,
        reads: bool,
    ) -> Result<(), LoadError> {
        self.busy[(claim.block - self.first) as usize] = false;
        if !reads || claim.writes == 0 {
            return Ok(());
        }
        for sector in 0..self.sectors {
            let mut found = [0; 16];
            let wanted = self.mark(claim, sector);
            let read = memory.read_slice(GuestAddress(at + sector * SECTOR), &mut found);
            read.map_err(|error| no_memory(&error))?;
            if found != wanted {
                return Err(LoadError::Wrong(told(&wanted, &found)));
            }
        }
        Ok(())
    }

    /// What a sector of a block begins with.
    fn mark(&self, claim: Claim, sector: u64) -> [u8; 16] {
        let mut mark = [0; 16];
        mark[..8].copy_from_slice(&(claim.block * self.sectors + sector).to_le_bytes());
        mark[8..].copy_from_slice(&u64::from(claim.writes).to_le_bytes());
        mark
    }
}

pub(crate) fn no_memory(error: &MemoryError) -> LoadError {
    LoadError::Unfit(format!("has no memory there: {error}"))
}

fn told(wanted: &[u8; 16], found: &[u8; 16]) -> String {
    let numbers = |mark: &[u8; 16]| {
        let number = |half: &[u8]| u64::from_le_bytes(half.try_into().expect("half of a mark"));
        (number(&mark[..8]), number(&mark[8..]))
    };
    let ((sector, writes), (of, count)) = (numbers(wanted), numbers(found));
    format!(
        "sector {sector} was written {writes} times, and begins with {of:#x} and {count:#x} in place of \
         {sector:#x} and {writes:#x}"
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use devices::memory::RegionSpec;
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

    use super::*;

    fn memory() -> GuestMemory {
        let (base, length) = (GuestAddress(0), 1 << 20);
        let file = Arc::new(memfd_create("load", MemfdFlags::CLOEXEC).unwrap());
        ftruncate(&*file, length).unwrap();
        GuestMemory::new(vec![RegionSpec { base, length, file, file_offset: 0 }]).unwrap()
    }

    #[test]
    fn what_was_written_is_right_and_anything_else_is_not() {
        let memory = memory();
        let mut contents = Contents::new(10, 4, 1024);
        let unknown = contents.claim(11, true).unwrap();
        assert!(contents.release(&memory, 0, unknown, true).is_ok(), "nobody knows what it holds");
        let first = contents.claim(11, false).unwrap();
        contents.fill(&memory, 4096, first).unwrap();
        contents.release(&memory, 4096, first, false).unwrap();
        let read = contents.claim(11, true).unwrap();
        assert!(contents.release(&memory, 4096, read, true).is_ok());
        let second = contents.claim(11, false).unwrap();
        assert_eq!((second.block, second.writes), (11, 2));
        contents.release(&memory, 0, second, false).unwrap();
        let read = contents.claim(11, true).unwrap();
        let error = contents.release(&memory, 4096, read, true).unwrap_err();
        assert!(error.to_string().contains("sector 22 was written 2 times"), "{error}");
    }

    #[test]
    fn a_block_belongs_to_one_request_at_a_time() {
        let mut contents = Contents::new(10, 3, 512);
        let claimed: Vec<_> = (0..4).map(|_| contents.claim(11, true)).collect();
        let blocks: Vec<_> = claimed.iter().map(|claim| claim.map(|claim| claim.block)).collect();
        assert_eq!(blocks, [Some(11), Some(12), Some(10), None]);
        contents.release(&memory(), 0, claimed[1].unwrap(), true).unwrap();
        assert_eq!(contents.claim(10, true).map(|claim| claim.block), Some(12));
    }
}
