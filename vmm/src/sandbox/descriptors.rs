//! Closing what an actor was not given.

use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use super::SandboxError;

/// Closes every descriptor of the process except `kept` and standard error, which stays so that
/// an actor can log.
///
/// Everything that owned one of the closed descriptors must be forgotten, not dropped: this is for
/// a freshly forked child that runs nothing but its actor from here on.
pub fn keep_only(kept: &[BorrowedFd<'_>]) -> Result<(), SandboxError> {
    let mut kept: Vec<RawFd> = kept.iter().map(AsRawFd::as_raw_fd).collect();
    kept.push(libc::STDERR_FILENO);
    kept.sort_unstable();
    kept.dedup();
    let mut first: RawFd = 0;
    for fd in kept {
        if first < fd {
            close_range(first as u32, fd as u32 - 1)?;
        }
        first = fd + 1;
    }
    close_range(first as u32, u32::MAX)
}

fn close_range(first: u32, last: u32) -> Result<(), SandboxError> {
    // SAFETY: the caller of `keep_only` says that nothing uses these descriptors any more.
    match unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } {
        0 => Ok(()),
        _ => Err(SandboxError::last("close descriptors")),
    }
}
