//! A new pseudo-terminal as the host's end: `screen /dev/pts/N` is its user.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use executor::{Fd, PollFlags, sleep};
use rustix::event::{PollFd, Timespec, poll};
use rustix::fs::{Mode, OFlags, fcntl_setfl, open as open_file};
use rustix::io::Errno;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

use super::input::{self, Pending};
use super::line::Line;
use super::output::{Batches, Tap};
use super::{Absence, Error};
use crate::terminal;

/// How often somebody is looked for who has the user's side open: nothing tells of that.
const ABSENCE_CHECK: Duration = Duration::from_millis(250);

/// Both sides. The terminal survives its users, and keeps its modes.
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
    // A write to a blocking one holds up the thread, even when a ring carries it out.
    fcntl_setfl(&controller, OFlags::RDWR | OFlags::NONBLOCK)?;
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

/// As [`input`], for a line that has to know whether somebody is there: only users have their side
/// open. Reading fails while there are none and nothing of them is left.
pub(super) async fn input_of_any(fd: Fd, mut pending: Pending) {
    let mut buffer = Vec::new();
    loop {
        let result;
        (result, buffer) = input::read(&fd, pending.read_bytes(), buffer).await;
        match result {
            Ok(count) if count > 0 => pending.bytes().extend_from_slice(&buffer),
            _ => sleep(ABSENCE_CHECK).await,
        }
        pending.deliver().await;
    }
}

/// Writes everything as fast as users take it. While there are none, the terminal keeps the first few
/// KiB for the next one, and the rest waits or is thrown away.
pub(super) async fn output_to_any(line: Arc<Line>, tap: Tap, fd: Fd, absence: Absence) {
    let mut batches = Batches::new(line, tap);
    while let Some(batch) = batches.next().await {
        write_to_any(&fd, &batch, absence).await;
        batches.recycle(batch);
    }
}

/// Without users the terminal says that something has happened whenever it is waited for.
async fn write_to_any(fd: &Fd, mut rest: &[u8], absence: Absence) {
    while !rest.is_empty() {
        match rustix::io::write(fd, rest) {
            Ok(count) => rest = &rest[count..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) if !is_unused(fd) => {
                if fd.poll(PollFlags::OUT).await.is_err() {
                    return;
                }
            }
            Err(Errno::AGAIN) if absence == Absence::Waits => sleep(ABSENCE_CHECK).await,
            Err(_) => return,
        }
    }
}

/// Whether nobody has the user's side open.
fn is_unused(fd: &Fd) -> bool {
    let mut fds = [PollFd::new(fd, rustix::event::PollFlags::empty())];
    // If it cannot be told, somebody may be there.
    poll(&mut fds, Some(&Timespec::default())).is_ok()
        && fds[0].revents().contains(rustix::event::PollFlags::HUP)
}

impl Pty {
    /// The path of the user's side.
    #[cfg(test)]
    pub(super) fn path(&self) -> &str {
        &self.path
    }
}
