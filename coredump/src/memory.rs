//! Which memory is wanted of a core dump, and how it is picked out while the dump goes by.

use std::io::Read;

use crate::core::{Segment, Stream};
use crate::thread::Thread;

/// Of the stack of the thread that crashed.
const CRASHED_STACK_BYTES: u64 = 256 << 10;
/// Of the others' stacks,
const OTHER_STACK_BYTES: u64 = 32 << 10;
/// while there are few of them, and afterwards.
const FEW_THREADS: usize = 32;
const FURTHER_STACK_BYTES: u64 = 2 << 10;
/// Functions may use so much below the stack pointer (System V ABI for AMD64, section 3.2.2).
const RED_ZONE: u64 = 128;
/// How far a stack pointer may be below its stack: a stack that has overflown ends where it began to.
const OVERFLOW_BYTES: u64 = 1 << 20;
/// Of programs and libraries: the first page, which has their headers and notes and is in core dumps
/// (core(5), bit 4 of the filter).
const HEADER_BYTES: u64 = 4096;

/// Why memory is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Purpose {
    /// To be read here.
    Header,
    /// To be kept.
    Stack,
}

/// A range of one segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    segment: usize,
    start: u64,
    end: u64,
    purpose: Purpose,
}

/// What was read.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) address: u64,
    pub(crate) bytes: Vec<u8>,
    purpose: Purpose,
}

impl Block {
    fn end(&self) -> u64 {
        self.address + self.bytes.len() as u64
    }
}

/// Blocks of memory.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    pub(crate) blocks: Vec<Block>,
}

/// The used end of a thread's stack.
pub(crate) fn stack(index: usize, thread: &Thread, segments: &[Segment]) -> Option<Wanted> {
    let pointer = thread.registers.rsp.get();
    let top = pointer.saturating_sub(RED_ZONE);
    let after = segments.partition_point(|segment| segment.end() <= pointer);
    let segment = segments.get(after)?;
    let start = match segment.address.checked_sub(top) {
        None | Some(0) => top,
        Some(below) if below <= OVERFLOW_BYTES => segment.address,
        Some(_) => return None,
    };
    let most = match index {
        0 => CRASHED_STACK_BYTES,
        _ if index < FEW_THREADS => OTHER_STACK_BYTES,
        _ => FURTHER_STACK_BYTES,
    };
    let end = segment.end().min(start.saturating_add(most));
    // Segments of a dump that lies may overlap.
    (start < end).then_some(Wanted { segment: after, start, end, purpose: Purpose::Stack })
}

/// All that is wanted, in the order in which a dump has it, where ranges touch as one. Segments are in the order
/// of their addresses.
pub(crate) fn wanted(
    stacks: impl Iterator<Item = Wanted>,
    headers: impl Iterator<Item = u64>,
    segments: &[Segment],
) -> Vec<Wanted> {
    let headers = headers.filter_map(|start| {
        let after = segments.partition_point(|segment| segment.end() <= start);
        let segment = segments.get(after).filter(|segment| segment.address <= start)?;
        let end = segment.end().min(start.saturating_add(HEADER_BYTES));
        (start < end).then_some(Wanted { segment: after, start, end, purpose: Purpose::Header })
    });
    let mut all: Vec<_> = stacks.chain(headers).collect();
    all.sort_by_key(|wanted| (segments[wanted.segment].offset, wanted.segment, wanted.start));
    all.dedup_by(|next, last| {
        let touches = next.segment == last.segment && next.start <= last.end;
        if touches {
            last.end = last.end.max(next.end);
            last.purpose = last.purpose.max(next.purpose);
        }
        touches
    });
    all
}

/// Reads it. A dump that ends early, or is in another order, has less.
pub(crate) fn read<R: Read>(
    stream: &mut Stream<R>,
    segments: &[Segment],
    wanted: Vec<Wanted>,
) -> Memory {
    let mut memory = Memory::default();
    for Wanted { segment, start, end, purpose } in wanted {
        let Segment { address, offset, .. } = segments[segment];
        let Some(offset) = offset.checked_add(start - address) else { continue };
        if offset < stream.at() {
            continue;
        }
        let read = stream.skip_to(offset).and_then(|()| stream.bytes((end - start) as usize));
        match read {
            Ok(bytes) => memory.blocks.push(Block { address: start, bytes, purpose }),
            Err(_) => break,
        }
    }
    memory
}

impl Memory {
    /// What there is from an address on.
    pub(crate) fn from(&self, address: u64) -> Option<&[u8]> {
        self.blocks.iter().find_map(|block| {
            let at = usize::try_from(address.checked_sub(block.address)?).ok()?;
            block.bytes.get(at..).filter(|bytes| !bytes.is_empty())
        })
    }

    /// The stack of a thread, from below its pointer on.
    pub(crate) fn stack_of(&self, thread: &Thread) -> Option<&Block> {
        let pointer = thread.registers.rsp.get();
        let is_near = |block: &&Block| {
            block.end() > pointer && block.address.saturating_sub(pointer) <= OVERFLOW_BYTES
        };
        self.blocks.iter().filter(is_near).min_by_key(|block| block.address)
    }

    /// Forgets what was wanted for its headers alone.
    pub(crate) fn keep_stacks(&mut self) {
        self.blocks.retain(|block| block.purpose == Purpose::Stack);
    }
}
