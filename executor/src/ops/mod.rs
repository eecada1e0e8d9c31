//! Operations: what the kernel is asked to do, and who is told when it is done.

pub(crate) mod future;
pub(crate) mod kinds;
pub(crate) mod op;
pub(crate) mod set;
pub(crate) mod slots;
pub(crate) mod stream;

use rustix::event::PollFlags;
use rustix::fs::FallocateFlags;
use slots::Yield;

/// The offset that means "the file's current position", as in `io_uring`.
pub(crate) const CURRENT_POSITION: u64 = u64::MAX;

/// Poll flags as the kernel's numbers. (Their width depends on how rustix reaches the kernel.)
pub(crate) fn poll_bits(flags: PollFlags) -> u32 {
    i32::from(flags.bits()) as u32
}

/// The kernel's numbers as poll flags.
pub(crate) fn poll_flags(bits: u32) -> PollFlags {
    PollFlags::from_bits_retain(bits as _)
}

/// Whether the data that a receive asks for is likely there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// Nobody knows: try first, and wait if that fails.
    Perhaps,
    /// The last receive emptied the socket: wait first.
    Later,
}

/// One operation on a file, with its parameters. Pointers are valid until the completion; who
/// submits makes sure of that.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Operation {
    Read {
        pointer: *mut u8,
        length: u32,
        offset: u64,
    },
    Write {
        pointer: *const u8,
        length: u32,
        offset: u64,
    },
    ReadVectored {
        iovecs: *const libc::iovec,
        count: u32,
        offset: u64,
    },
    WriteVectored {
        iovecs: *const libc::iovec,
        count: u32,
        offset: u64,
    },
    Fsync,
    Fdatasync,
    Fallocate {
        mode: FallocateFlags,
        offset: u64,
        length: u64,
    },
    Poll {
        flags: PollFlags,
    },
    /// Every edge until it is cancelled.
    PollMultishot {
        flags: PollFlags,
    },
    Accept,
    Connect {
        address: *const libc::sockaddr,
        length: libc::socklen_t,
    },
    Send {
        pointer: *const u8,
        length: u32,
        flags: u32,
    },
    Receive {
        pointer: *mut u8,
        length: u32,
        flags: u32,
        data: Expected,
    },
}

impl Operation {
    /// What its result means beside the number.
    pub(crate) fn yields(&self) -> Yield {
        match self {
            Operation::Accept => Yield::Descriptor,
            Operation::Receive { .. } => Yield::Received,
            _ => Yield::Number,
        }
    }

    /// What to wait for when a non-blocking file answers `EAGAIN`.
    pub(crate) fn readiness(&self) -> Option<PollFlags> {
        const DONT_WAIT: u32 = libc::MSG_DONTWAIT as u32;
        match self {
            // Whoever says so wants to see it.
            Operation::Send { flags, .. } | Operation::Receive { flags, .. }
                if flags & DONT_WAIT != 0 =>
            {
                None
            }
            Operation::Read { offset: CURRENT_POSITION, .. }
            | Operation::ReadVectored { offset: CURRENT_POSITION, .. }
            | Operation::Accept
            | Operation::Receive { .. } => Some(PollFlags::IN),
            Operation::Write { offset: CURRENT_POSITION, .. }
            | Operation::WriteVectored { offset: CURRENT_POSITION, .. }
            | Operation::Send { .. } => Some(PollFlags::OUT),
            _ => None,
        }
    }
}
