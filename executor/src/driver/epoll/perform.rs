//! Operations as plain system calls that do not block where that can be avoided.

use std::io;
use std::mem;
use std::ptr;

use libc::{c_int, c_void, iovec};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::OFlags;

use super::source::{Manner, Pending, Source};
use crate::ops::{CURRENT_POSITION, Operation, poll_bits};

/// Writing more than this to a blocking pipe may block although `poll` says that it is writable.
const PIPE_BUF: usize = 4096;

/// What came of trying an operation.
pub(crate) enum Attempt {
    /// It is over: its result or a negated errno.
    Done(i32),
    /// It reports this and goes on.
    Event(PollFlags),
    /// It has to wait for an event.
    Wait,
    /// It has to wait, and no event will tell.
    Retry,
}

pub(super) fn attempt(source: &Source, pending: &mut Pending) -> Attempt {
    match pending.operation {
        Operation::Poll { flags } => match ready(source, flags) {
            Ok(flags) if flags.is_empty() => Attempt::Wait,
            Ok(flags) => Attempt::Done(poll_bits(flags) as i32),
            Err(error) => Attempt::Done(error),
        },
        // Registering reports the present state.
        Operation::PollMultishot { .. } if !source.registered => Attempt::Wait,
        Operation::PollMultishot { flags } => match ready(source, flags) {
            Ok(flags) if flags.is_empty() => Attempt::Wait,
            Ok(flags) => Attempt::Event(flags),
            Err(error) => Attempt::Done(error),
        },
        Operation::Connect { address, length } => connect(source, address, length, pending),
        ref operation => {
            if asks_first(source, operation)
                && let Ok(flags) = ready(source, pending.interest)
                && flags.is_empty()
            {
                return Attempt::Wait;
            }
            let result = perform(source, operation);
            if result == -libc::EAGAIN && may_wait(source, operation) {
                Attempt::Wait
            } else {
                Attempt::Done(result)
            }
        }
    }
}

fn may_wait(source: &Source, operation: &Operation) -> bool {
    match operation {
        Operation::Send { .. } | Operation::Receive { .. } => operation.readiness().is_some(),
        _ => source.manner != Manner::Always,
    }
}

fn asks_first(source: &Source, operation: &Operation) -> bool {
    match source.manner {
        Manner::Always | Manner::NonBlocking => false,
        Manner::AskFirst => true,
        // A listening socket cannot be told per call.
        Manner::Socket => matches!(operation, Operation::Accept),
    }
}

/// Those of `flags`, or of the error flags, that hold now; or a negated errno.
fn ready(source: &Source, flags: PollFlags) -> Result<PollFlags, i32> {
    let fd = source.borrow();
    let mut polled = [PollFd::new(&fd, flags)];
    match rustix::event::poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
        Ok(_) => Ok(polled[0].revents()),
        Err(rustix::io::Errno::INTR) => Ok(PollFlags::empty()),
        Err(errno) => Err(-errno.raw_os_error()),
    }
}

fn perform(source: &Source, operation: &Operation) -> i32 {
    match *operation {
        Operation::Read { pointer, length, offset } => {
            let segment = iovec { iov_base: pointer.cast(), iov_len: length as usize };
            read(source, &raw const segment, 1, offset)
        }
        Operation::Write { pointer, length, offset } => {
            let segment = iovec { iov_base: pointer.cast_mut().cast(), iov_len: length as usize };
            write(source, &raw const segment, 1, offset)
        }
        Operation::ReadVectored { iovecs, count, offset } => read(source, iovecs, count, offset),
        Operation::WriteVectored { iovecs, count, offset } => write(source, iovecs, count, offset),
        // SAFETY: no memory is involved.
        Operation::Fsync => call(|| unsafe { libc::fsync(source.fd) as isize }),
        // SAFETY: no memory is involved.
        Operation::Fdatasync => call(|| unsafe { libc::fdatasync(source.fd) as isize }),
        Operation::Fallocate { mode, offset, length } => {
            let (mode, offset, length) = (mode.bits() as c_int, offset as i64, length as i64);
            // SAFETY: no memory is involved.
            call(|| unsafe { libc::fallocate64(source.fd, mode, offset, length) as isize })
        }
        Operation::Accept => {
            let (null, flags) = (ptr::null_mut(), libc::SOCK_CLOEXEC);
            // SAFETY: no address is asked for.
            call(|| unsafe { libc::accept4(source.fd, null, null.cast(), flags) as isize })
        }
        Operation::Send { pointer, length, flags } => {
            let flags = flags as c_int | libc::MSG_DONTWAIT;
            // SAFETY: the memory is valid until the completion, as `Operation` says.
            call(|| unsafe { libc::send(source.fd, pointer.cast(), length as usize, flags) })
        }
        Operation::Receive { pointer, length, flags, .. } => {
            let flags = flags as c_int | libc::MSG_DONTWAIT;
            // SAFETY: the memory is valid until the completion, as `Operation` says.
            call(|| unsafe { libc::recv(source.fd, pointer.cast(), length as usize, flags) })
        }
        Operation::Poll { .. } | Operation::PollMultishot { .. } | Operation::Connect { .. } => {
            unreachable!("handled by attempt")
        }
    }
}

fn read(source: &Source, iovecs: *const iovec, count: u32, offset: u64) -> i32 {
    let length = count as c_int;
    if source.manner == Manner::Socket {
        let mut message = message(iovecs, count);
        // SAFETY: the header lives until the call returns, the segments until the completion.
        return call(|| unsafe { libc::recvmsg(source.fd, &raw mut message, libc::MSG_DONTWAIT) });
    }
    if offset != CURRENT_POSITION {
        // SAFETY: the segments are valid until the completion.
        let result = call(|| unsafe { libc::preadv64(source.fd, iovecs, length, offset as i64) });
        if result != -libc::ESPIPE {
            return result;
        }
        // A stream has no offsets; io_uring ignores them too.
    }
    // SAFETY: as above.
    call(|| unsafe { libc::readv(source.fd, iovecs, length) })
}

fn write(source: &Source, iovecs: *const iovec, count: u32, offset: u64) -> i32 {
    let length = count as c_int;
    if source.manner == Manner::Socket {
        let message = message(iovecs, count);
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: the header lives until the call returns, the segments until the completion.
        return call(|| unsafe { libc::sendmsg(source.fd, &raw const message, flags) });
    }
    if offset != CURRENT_POSITION {
        // SAFETY: the segments are valid until the completion.
        let result = call(|| unsafe { libc::pwritev64(source.fd, iovecs, length, offset as i64) });
        if result != -libc::ESPIPE {
            return result;
        }
    }
    if source.manner == Manner::AskFirst {
        return write_little(source, iovecs, count);
    }
    // SAFETY: as above.
    call(|| unsafe { libc::writev(source.fd, iovecs, length) })
}

/// Writes no more than certainly fits once `poll` has said that something does.
fn write_little(source: &Source, iovecs: *const iovec, count: u32) -> i32 {
    for index in 0..count as usize {
        // SAFETY: the array has `count` entries and is valid until the completion.
        let segment = unsafe { iovecs.add(index).read() };
        if segment.iov_len > 0 {
            let length = segment.iov_len.min(PIPE_BUF);
            // SAFETY: the segment is valid until the completion.
            return call(|| unsafe {
                libc::write(source.fd, segment.iov_base.cast_const(), length)
            });
        }
    }
    0
}

fn message(iovecs: *const iovec, count: u32) -> libc::msghdr {
    // SAFETY: all zeroes is a valid `msghdr`.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = iovecs.cast_mut();
    message.msg_iovlen = count as _;
    message
}

fn connect(
    source: &Source,
    address: *const libc::sockaddr,
    length: libc::socklen_t,
    pending: &mut Pending,
) -> Attempt {
    if pending.connecting {
        return match ready(source, PollFlags::OUT) {
            Ok(flags) if flags.is_empty() => Attempt::Wait,
            _ => Attempt::Done(-socket_error(source)),
        };
    }
    // Only `connect` has no flag against waiting.
    let flags = rustix::fs::fcntl_getfl(source.borrow()).unwrap_or(OFlags::NONBLOCK);
    let blocking = !flags.contains(OFlags::NONBLOCK);
    if blocking {
        let _ = rustix::fs::fcntl_setfl(source.borrow(), flags | OFlags::NONBLOCK);
    }
    // SAFETY: the address is valid until the completion.
    let result = call(|| unsafe { libc::connect(source.fd, address, length) as isize });
    if blocking {
        let _ = rustix::fs::fcntl_setfl(source.borrow(), flags);
    }
    match -result {
        libc::EINPROGRESS | libc::EINTR => {
            pending.connecting = true;
            Attempt::Wait
        }
        // The backlog of a Unix socket is full.
        libc::EAGAIN => Attempt::Retry,
        _ => Attempt::Done(result),
    }
}

fn socket_error(source: &Source) -> i32 {
    let mut error: c_int = 0;
    let mut length = size_of::<c_int>() as libc::socklen_t;
    // SAFETY: room for one integer, as `length` says.
    let result = unsafe {
        libc::getsockopt(
            source.fd,
            libc::SOL_SOCKET,
            libc::SO_ERROR,
            (&raw mut error).cast::<c_void>(),
            &raw mut length,
        )
    };
    if result < 0 { last_errno() } else { error }
}

/// Runs a system call, again when a signal interrupts it: the result or a negated errno.
fn call(system_call: impl FnMut() -> isize) -> i32 {
    let mut system_call = system_call;
    loop {
        let result = system_call();
        if result >= 0 {
            // At most `MAX_RW_COUNT`.
            return result as i32;
        }
        let errno = last_errno();
        if errno != libc::EINTR {
            return -errno;
        }
    }
}

fn last_errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}
