//! Lends a borrowed eventfd to the ioctl wrappers, which ask for a type of their own.

use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd};

use vmm_sys_util::eventfd::EventFd;

/// Calls `then` with `fd` seen as the wrapper crate's `EventFd`; ownership stays with the caller.
pub(super) fn lend<R>(fd: BorrowedFd<'_>, then: impl FnOnce(&EventFd) -> R) -> R {
    // SAFETY: the fd is open for the whole call (it is borrowed), and ManuallyDrop keeps the
    // temporary owner from closing it.
    let event_fd = ManuallyDrop::new(unsafe { EventFd::from_raw_fd(fd.as_raw_fd()) });
    then(&event_fd)
}
