//! The kinds of operations that have a future of their own.

use std::io;
use std::os::fd::OwnedFd;

use rustix::event::PollFlags;
use rustix::fs::FallocateFlags;
use rustix::net::{RecvFlags, SendFlags};

use super::future::Kind;
use super::slots::descriptor;
use super::{Expected, Operation, poll_flags};
use crate::address::SocketAddress;
use crate::buffer::{IoBuf, IoBufMut, IoVecs, IoVecsMut};

/// The most that Linux transfers in one call (`MAX_RW_COUNT`); more is asked for in vain.
const LARGEST_TRANSFER: usize = 0x7fff_f000;

fn clamp(length: usize) -> u32 {
    length.min(LARGEST_TRANSFER) as u32
}

type Transferred<B> = (io::Result<usize>, B);

/// After reading into a buffer.
fn filled<B: IoBufMut>(mut buffer: B, result: io::Result<u32>) -> Transferred<B> {
    let result = result.map(|count| count as usize);
    if let Ok(count) = result {
        // SAFETY: the kernel has written so many bytes, at most what it was offered. (With
        // MSG_TRUNC a socket reports the length of the whole packet, hence the limit.)
        unsafe { buffer.set_init(count.min(buffer.bytes_total())) };
    }
    (result, buffer)
}

fn counted<B>(buffer: B, result: io::Result<u32>) -> Transferred<B> {
    (result.map(|count| count as usize), buffer)
}

pub(crate) struct Read<B> {
    pub(crate) buffer: B,
    pub(crate) offset: u64,
}

impl<B: IoBufMut> Kind for Read<B> {
    type Output = Transferred<B>;
    fn operation(&mut self) -> Operation {
        let length = clamp(self.buffer.bytes_total());
        Operation::Read { pointer: self.buffer.stable_mut_ptr(), length, offset: self.offset }
    }
    fn finish(self, result: io::Result<u32>) -> Self::Output {
        filled(self.buffer, result)
    }
}

pub(crate) struct Write<B> {
    pub(crate) buffer: B,
    pub(crate) offset: u64,
}

impl<B: IoBuf> Kind for Write<B> {
    type Output = Transferred<B>;
    fn operation(&mut self) -> Operation {
        let length = clamp(self.buffer.bytes_init());
        Operation::Write { pointer: self.buffer.stable_ptr(), length, offset: self.offset }
    }
    fn finish(self, result: io::Result<u32>) -> Self::Output {
        counted(self.buffer, result)
    }
}

pub(crate) struct ReadVectored<B> {
    pub(crate) buffers: B,
    pub(crate) offset: u64,
}

impl<B: IoVecsMut> Kind for ReadVectored<B> {
    type Output = Transferred<B>;
    fn operation(&mut self) -> Operation {
        let (iovecs, count) = self.buffers.iovecs();
        Operation::ReadVectored { iovecs, count: clamp(count), offset: self.offset }
    }
    fn finish(self, result: io::Result<u32>) -> Self::Output {
        counted(self.buffers, result)
    }
}

pub(crate) struct WriteVectored<B> {
    pub(crate) buffers: B,
    pub(crate) offset: u64,
}

impl<B: IoVecs> Kind for WriteVectored<B> {
    type Output = Transferred<B>;
    fn operation(&mut self) -> Operation {
        let (iovecs, count) = self.buffers.iovecs();
        Operation::WriteVectored { iovecs, count: clamp(count), offset: self.offset }
    }
    fn finish(self, result: io::Result<u32>) -> Self::Output {
        counted(self.buffers, result)
    }
}

pub(crate) enum Sync {
    DataAndMetadata,
    Data,
}

impl Kind for Sync {
    type Output = io::Result<()>;
    fn operation(&mut self) -> Operation {
        match self {
            Sync::DataAndMetadata => Operation::Fsync,
            Sync::Data => Operation::Fdatasync,
        }
    }
    fn finish(self, result: io::Result<u32>) -> Self::Output {
        result.map(drop)
    }
}

pub(crate) struct Allocate {
    pub(crate) mode: FallocateFlags,
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

impl Kind for Allocate {
    type Output = io::Result<()>;
    fn operation(&mut self) -> Operation {
        Operation::Fallocate { mode: self.mode, offset: self.offset, length: self.length }
    }
    fn finish(self, result: io::Result<u32>) -> Self::Output {
        result.map(drop)
    }
}

pub(crate) struct Poll {
    pub(crate) flags: PollFlags,
}

impl Kind for Poll {
    type Output = io::Result<PollFlags>;
    fn operation(&mut self) -> Operation {
        Operation::Poll { flags: self.flags }
    }
    fn finish(self, result: io::Result<u32>) -> Self::Output {
        result.map(poll_flags)
    }
}

pub(crate) struct Accept;

impl Kind for Accept {
    type Output = io::Result<OwnedFd>;
    fn operation(&mut self) -> Operation {
        Operation::Accept
    }
    fn finish(self, result: io::Result<u32>) -> Self::Output {
        // SAFETY: the result of an accept, taken once.
        result.map(|result| unsafe { descriptor(result as i32) })
    }
}

pub(crate) struct Connect {
    pub(crate) address: SocketAddress,
}

impl Kind for Connect {
    type Output = io::Result<()>;
    fn operation(&mut self) -> Operation {
        let (address, length) = self.address.as_raw();
        Operation::Connect { address, length }
    }
    fn finish(self, result: io::Result<u32>) -> Self::Output {
        result.map(drop)
    }
}

pub(crate) struct Send<B> {
    pub(crate) buffer: B,
    pub(crate) flags: SendFlags,
}

impl<B: IoBuf> Kind for Send<B> {
    type Output = Transferred<B>;
    fn operation(&mut self) -> Operation {
        // A peer that is gone is an error, not the end of the process.
        let flags = self.flags | SendFlags::NOSIGNAL;
        Operation::Send {
            pointer: self.buffer.stable_ptr(),
            length: clamp(self.buffer.bytes_init()),
            flags: flags.bits(),
        }
    }
    fn finish(self, result: io::Result<u32>) -> Self::Output {
        counted(self.buffer, result)
    }
}

pub(crate) struct Receive<B> {
    pub(crate) buffer: B,
    pub(crate) flags: RecvFlags,
}

impl<B: IoBufMut> Kind for Receive<B> {
    type Output = Transferred<B>;
    fn operation(&mut self) -> Operation {
        let length = clamp(self.buffer.bytes_total());
        let pointer = self.buffer.stable_mut_ptr();
        let (flags, data) = (self.flags.bits(), Expected::Perhaps);
        Operation::Receive { pointer, length, flags, data }
    }
    fn finish(self, result: io::Result<u32>) -> Self::Output {
        filled(self.buffer, result)
    }
}
