//! Chains of one queue that one operation works on together, in order.

use std::collections::VecDeque;
use std::rc::Rc;

use crate::memory::GuestMemory;
use crate::virtio::queue::{Chain, GuestBuffers, Queue, Side};

/// Bytes to gather for one operation: about what a socket takes at once.
const ENOUGH_BYTES: u32 = 128 << 10;
/// With those of one more chain, fewer than the 1024 pieces that the kernel takes.
const MOST_PIECES: usize = 512;
/// What is never exceeded by adding: less than the 4 GiB that buffers count.
const MOST_BYTES: u32 = 1 << 30;

/// Taken chains, none of which was given back.
#[derive(Debug)]
pub(super) struct Batch {
    side: Side,
    buffers: GuestBuffers,
    /// Name of each chain and how many bytes of it are left.
    chains: VecDeque<(u16, u32)>,
}

impl Batch {
    pub(super) fn new(memory: Rc<GuestMemory>, side: Side) -> Self {
        Self { side, buffers: GuestBuffers::new(memory), chains: VecDeque::new() }
    }

    pub(super) fn buffers(&self) -> &GuestBuffers {
        &self.buffers
    }

    pub(super) fn is_empty(&self) -> bool {
        self.chains.is_empty()
    }

    /// Whether more chains make no sense now.
    pub(super) fn is_full(&self) -> bool {
        self.buffers.bytes() >= ENOUGH_BYTES || self.buffers.segments().len() >= MOST_PIECES
    }

    /// Whether a chain of so many bytes can be added; always, to an empty batch.
    pub(super) fn could_take(&self, bytes: u32) -> bool {
        self.is_empty() || bytes <= MOST_BYTES
    }

    /// Add a chain that has bytes on this side.
    pub(super) fn add(&mut self, chain: &Chain) {
        let before = self.buffers.bytes();
        self.buffers.append(chain, self.side);
        self.chains.push_back((chain.head(), self.buffers.bytes() - before));
    }

    /// Pass over bytes at the front of the only chain. False, and it is gone, if it has no more.
    pub(super) fn skip(&mut self, bytes: u32) -> bool {
        let Some((_, left)) = self.chains.front_mut() else { return false };
        let bytes = bytes.min(*left);
        *left -= bytes;
        self.buffers.advance(bytes);
        if *left == 0 {
            self.chains.pop_front();
        }
        !self.chains.is_empty()
    }

    /// So many bytes were written to the host: give back the chains that are done. Says how many
    /// bytes of the first one that is left are done now, beside earlier ones.
    pub(super) fn written(&mut self, mut bytes: u32, queue: &mut Queue) -> Progress {
        self.buffers.advance(bytes);
        let mut finished = false;
        while let Some((head, left)) = self.chains.front_mut() {
            if bytes < *left {
                *left -= bytes;
                break;
            }
            bytes -= *left;
            queue.push_used(*head, 0);
            finished = true;
            self.chains.pop_front();
        }
        let partial = if self.chains.is_empty() { 0 } else { bytes };
        if finished { Progress::Anew(partial) } else { Progress::More(partial) }
    }

    /// So many bytes were read into the chains: give back those that have some.
    pub(super) fn filled(&mut self, mut bytes: u32, queue: &mut Queue) {
        while bytes > 0
            && let Some((head, room)) = self.chains.pop_front()
        {
            let used = bytes.min(room);
            queue.push_used(head, used);
            self.buffers.advance(room);
            bytes -= used;
        }
    }

    /// Leave all chains for later.
    pub(super) fn put_back(&mut self, queue: &mut Queue) {
        self.buffers.clear();
        for (head, _) in self.chains.drain(..) {
            queue.put_back(head);
        }
    }
}

/// How far the first chain is that is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// It is the same as before, and so many more bytes are done.
    More(u32),
    /// It is another, of which so many bytes are done.
    Anew(u32),
}
