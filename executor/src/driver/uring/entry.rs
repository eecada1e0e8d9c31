//! Operations as submission queue entries.

use io_uring::{opcode, squeue, types};

use crate::driver::{FileId, Target};
use crate::ops::{Expected, Operation, poll_bits};

/// From `include/uapi/linux/io_uring.h`: wait for data before trying the first time.
const IORING_RECVSEND_POLL_FIRST: u16 = 1 << 0;

/// Builds the entry of an operation on a registered or a plain file.
pub(super) fn build(target: Target, operation: Operation) -> squeue::Entry {
    macro_rules! on_file {
        ($file:ident => $($entry:tt)*) => {
            match target.file {
                FileId::Slot(slot) => {
                    let $file = types::Fixed(slot);
                    $($entry)*.build()
                }
                // What the ring that polls does not take.
                FileId::Plain | FileId::Polled(_) => {
                    let $file = types::Fd(target.fd);
                    $($entry)*.build()
                }
            }
        };
    }
    match operation {
        Operation::Read { pointer, length, offset } => {
            on_file!(file => opcode::Read::new(file, pointer, length).offset(offset))
        }
        Operation::Write { pointer, length, offset } => {
            on_file!(file => opcode::Write::new(file, pointer, length).offset(offset))
        }
        Operation::ReadVectored { iovecs, count, offset } => {
            on_file!(file => opcode::Readv::new(file, iovecs, count).offset(offset))
        }
        Operation::WriteVectored { iovecs, count, offset } => {
            on_file!(file => opcode::Writev::new(file, iovecs, count).offset(offset))
        }
        Operation::Fsync => on_file!(file => opcode::Fsync::new(file)),
        Operation::Fdatasync => {
            let flags = types::FsyncFlags::DATASYNC;
            on_file!(file => opcode::Fsync::new(file).flags(flags))
        }
        Operation::Fallocate { mode, offset, length } => {
            let mode = mode.bits() as i32;
            on_file!(file => opcode::Fallocate::new(file, length).offset(offset).mode(mode))
        }
        Operation::Poll { flags } => {
            on_file!(file => opcode::PollAdd::new(file, poll_bits(flags)))
        }
        Operation::PollMultishot { flags } => {
            on_file!(file => opcode::PollAdd::new(file, poll_bits(flags)).multi(true))
        }
        Operation::Accept => {
            let null = std::ptr::null_mut();
            let flags = libc::SOCK_CLOEXEC;
            on_file!(file => opcode::Accept::new(file, null, null.cast()).flags(flags))
        }
        Operation::Connect { address, length } => {
            on_file!(file => opcode::Connect::new(file, address, length))
        }
        Operation::Send { pointer, length, flags } => {
            on_file!(file => opcode::Send::new(file, pointer, length).flags(flags as i32))
        }
        Operation::Receive { pointer, length, flags, data } => {
            let hint = match data {
                Expected::Perhaps => 0,
                Expected::Later => IORING_RECVSEND_POLL_FIRST,
            };
            let flags = flags as i32;
            on_file!(file => opcode::Recv::new(file, pointer, length).flags(flags).ioprio(hint))
        }
    }
}

/// Sets flags on an entry that `build` made for `file`; setting replaces what is there.
pub(super) fn add_flags(entry: squeue::Entry, flags: squeue::Flags, file: FileId) -> squeue::Entry {
    match file {
        FileId::Slot(_) => entry.flags(flags | squeue::Flags::FIXED_FILE),
        FileId::Plain | FileId::Polled(_) => entry.flags(flags),
    }
}
