//! Eventfds: one counter that one side bumps and the other waits for.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

/// A new eventfd that does not block and does not survive `exec`.
pub(crate) fn new() -> io::Result<OwnedFd> {
    Ok(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)
}

/// Adds one. A counter that is full is signalled already, so that is no error.
pub(crate) fn signal(event: impl AsFd) -> io::Result<()> {
    match rustix::io::write(event, &1_u64.to_ne_bytes()) {
        Ok(_) | Err(rustix::io::Errno::AGAIN) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Whether the counter is not zero, leaving it as it is.
pub(crate) fn is_signalled(event: impl AsFd) -> io::Result<bool> {
    let mut polled = [PollFd::new(&event, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    loop {
        match poll(&mut polled, Some(&now)) {
            Ok(ready) => return Ok(ready > 0 && polled[0].revents().contains(PollFlags::IN)),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Sets the counter to zero.
pub(crate) fn drain(event: impl AsFd) -> io::Result<()> {
    match rustix::io::read(event, &mut [0_u8; 8]) {
        Ok(_) | Err(rustix::io::Errno::AGAIN) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
