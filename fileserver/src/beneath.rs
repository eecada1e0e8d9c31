//! Opening what lies below a directory, and nothing else.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::Result;

/// No way up, no link of any kind, and nothing that is mounted below.
const RESOLVE: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// What every file is opened with: a file that waits for somebody, or a terminal, is none that a
/// client gets, but one may be there for a moment.
const ALWAYS: OFlags =
    OFlags::CLOEXEC.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

/// Opens or makes a name in a directory.
pub(crate) fn open(at: impl AsFd, name: &CStr, flags: OFlags, mode: Mode) -> Result<OwnedFd> {
    rustix::fs::openat2(at, name, flags | ALWAYS, mode, RESOLVE)
}

/// Opens a directory as a place to look below.
pub(crate) fn open_node(at: impl AsFd, name: &CStr) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat2(at, name, flags, Mode::empty(), RESOLVE)
}
