//! Receive buffers of the driver that were taken and wait for packets.

use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;
use std::rc::Rc;

use zerocopy::IntoBytes;

use super::failure::Failure;
use super::protocol::{HEADER_BYTES, Header};
use crate::memory::GuestMemory;
use crate::virtio::queue::{Chain, GuestBuffers, Queue, Side, receive_now};

/// Most buffers held: enough for the data of one connection's turn in buffers of 4 KiB, as Linux
/// gives them, and for packets without data beside it.
const HELD: usize = 32;
/// Most pieces of memory of one receive call (`UIO_MAXIOV`).
const MAX_PIECES: usize = 1024;

/// A buffer for one packet.
#[derive(Debug)]
struct Held {
    head: u16,
    buffers: GuestBuffers,
}

impl Held {
    /// Room for data behind the header.
    fn room(&self) -> u32 {
        self.buffers.bytes() - HEADER_BYTES
    }
}

/// Some buffers.
#[derive(Debug)]
pub(super) struct Pool {
    chain: Chain,
    held: VecDeque<Held>,
    /// Kept for their capacity.
    spare: Vec<GuestBuffers>,
    /// The room behind the headers of several buffers.
    lot: GuestBuffers,
    /// Bytes of data given and not counted yet.
    moved: u64,
}

impl Pool {
    pub(super) fn new(memory: &Rc<GuestMemory>, queue_size: u16) -> Self {
        let buffers = || GuestBuffers::new(memory.clone());
        Self {
            chain: Chain::new(memory.clone(), usize::from(queue_size)),
            held: VecDeque::with_capacity(HELD),
            spare: (0..HELD).map(|_| buffers()).collect(),
            lot: buffers(),
            moved: 0,
        }
    }

    /// Take what the driver has given, as far as there is room. False if there is nothing.
    pub(super) fn fill(&mut self, queue: &mut Queue) -> Result<bool, Failure> {
        while !self.spare.is_empty() && queue.pop(&mut self.chain)? {
            let (head, bytes) = (self.chain.head(), self.chain.writable_bytes());
            if bytes <= HEADER_BYTES {
                return Err(Failure::ShortBuffer { head, bytes });
            }
            let mut buffers = self.spare.pop().expect("it is not empty");
            buffers.fill(&self.chain, Side::Writable);
            self.held.push_back(Held { head, buffers });
        }
        Ok(!self.held.is_empty())
    }

    /// A packet without data. The pool must not be empty.
    pub(super) fn give(&mut self, header: &Header, queue: &mut Queue) {
        self.give_first(header, 0, queue);
    }

    /// Receive up to `limit` bytes of a stream straight into buffers, a packet each; says how many
    /// came, and for how many there was room. `header` makes the header of a packet of so many
    /// bytes.
    pub(super) fn receive(
        &mut self,
        socket: BorrowedFd<'_>,
        limit: u32,
        queue: &mut Queue,
        mut header: impl FnMut(u32) -> Header,
    ) -> io::Result<(u32, u32)> {
        self.lot.clear();
        for held in &self.held {
            let pieces = self.lot.segments().len() + held.buffers.segments().len();
            if self.lot.bytes() >= limit || pieces > MAX_PIECES && self.lot.bytes() > 0 {
                break;
            }
            let room = held.room().min(limit - self.lot.bytes());
            self.lot.append_part(&held.buffers, HEADER_BYTES, room);
        }
        let received = receive_now(socket, &self.lot)? as u32;
        let mut left = received;
        while left > 0 {
            let part = left.min(self.held[0].room());
            self.give_first(&header(part), part, queue);
            left -= part;
        }
        Ok((received, self.lot.bytes()))
    }

    /// Copy the start of `bytes` to one buffer, a packet; says how many. The pool must not be empty.
    pub(super) fn copy(
        &mut self,
        bytes: &[u8],
        queue: &mut Queue,
        header: impl FnOnce(u32) -> Header,
    ) -> u32 {
        let part = bytes.len().min(self.held[0].room() as usize);
        self.held[0].buffers.copy_from_at(HEADER_BYTES as usize, &bytes[..part]);
        self.give_first(&header(part as u32), part as u32, queue);
        part as u32
    }

    /// Bytes of data given since the last call.
    pub(super) fn take_moved(&mut self) -> u64 {
        std::mem::take(&mut self.moved)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Leave all buffers for later.
    pub(super) fn put_back(&mut self, queue: &mut Queue) {
        for Held { head, buffers } in self.held.drain(..) {
            queue.put_back(head);
            self.spare.push(buffers);
        }
    }

    fn give_first(&mut self, header: &Header, data: u32, queue: &mut Queue) {
        let Held { head, buffers } = self.held.pop_front().expect("the pool is not empty");
        buffers.copy_from(header.as_bytes());
        queue.push_used(head, HEADER_BYTES + data);
        self.moved += u64::from(data);
        self.spare.push(buffers);
    }
}
