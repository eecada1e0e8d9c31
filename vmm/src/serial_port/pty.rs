//! A new pseudo-terminal as the host's end: `screen /dev/pts/N` is its user.

use std::os::fd::OwnedFd;

use executor::Fd;
use rustix::fs::{Mode, OFlags, open as open_file};
use rustix::io::Errno;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

use super::Error;
use super::input::{self, Pending};
use crate::terminal;

/// Both sides. Ours of the user's side stays open, so that the terminal survives its users.
#[derive(Debug)]
pub(super) struct Pty {
    pub(super) controller: OwnedFd,
    pub(super) user: OwnedFd,
    path: String,
}

pub(super) fn open() -> Result<Pty, Error> {
    make().map_err(|error| Error::Pty(error.into()))
}

fn make() -> Result<Pty, Errno> {
    let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&controller)?;
    unlockpt(&controller)?;
    let path = ptsname(&controller, Vec::new())?;
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let user = open_file(&path, flags, Mode::empty())?;
    // A line that echoes would send the guest its own output.
    let mut modes = tcgetattr(&user)?;
    modes.make_raw();
    tcsetattr(&user, OptionalActions::Now, &modes)?;
    Ok(Pty { controller, user, path: path.to_string_lossy().into_owned() })
}

/// Says where it is.
pub(super) fn announce(pty: &Pty, what: &str) {
    eprint!("vmm: the {what} is {}{}", pty.path, terminal::line_end());
}

/// Copies what users type to the device.
pub(super) async fn input(fd: Fd, user: OwnedFd, pending: Pending) {
    input::from_stream(fd, pending).await;
    drop(user);
}

impl Pty {
    /// The path of the user's side.
    #[cfg(test)]
    pub(super) fn path(&self) -> &str {
        &self.path
    }
}
