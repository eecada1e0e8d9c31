//! Standard input and output, most of all a terminal.

use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use executor::{Fd, PollFlags, select, sleep};
use rustix::fs::{Mode, OFlags};
use rustix::io::fcntl_dupfd_cloexec;
use rustix::stdio::{stdin, stdout};
use rustix::termios::isatty;

use super::input::{self, Pending};
use super::{Error, HostEnd};
use crate::signals;
use crate::terminal::escape::{Command, EscapeFilter, HELP, Listener};
use crate::terminal::{self, Ownership, RawTerminal};

/// Keys for a guest that does not read; later ones are lost, as on a real line.
const MAX_UNREAD_KEYS: usize = 4096;

/// How often a process in the background looks whether it is in the foreground: a shell that
/// brings a running job back sends it no signal.
const BACKGROUND_CHECK: Duration = Duration::from_millis(500);

/// More wake-ups in a row without a key are no accident.
const MAX_VAIN_WAITS: u32 = 16;

/// The lowest number for our own descriptors, clear of the three standard ones.
const FIRST_OWN_FD: i32 = 3;

pub(super) fn open() -> Result<HostEnd, Error> {
    let own = |fd| -> Result<OwnedFd, Error> {
        fcntl_dupfd_cloexec(fd, FIRST_OWN_FD).map_err(|error| Error::Stdio(error.into()))
    };
    let output = match of_our_own() {
        Some(terminal) => terminal,
        None => own(stdout())?,
    };
    Ok(HostEnd::Stdio { input: own(stdin())?, output })
}

/// A terminal that others have open too, opened anew so that it need not block for them: a write to one
/// that is stopped (Ctrl-S) would hold up the whole thread.
fn of_our_own() -> Option<OwnedFd> {
    if !isatty(stdout()) {
        return None;
    }
    let flags = OFlags::WRONLY | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    // It may belong to another user.
    rustix::fs::open("/proc/self/fd/1", flags, Mode::empty()).ok()
}

/// Copies keys from a terminal to the device and obeys the escape keys, until the terminal is gone.
pub(super) async fn keys(fd: Fd, mut pending: Pending, raw: Rc<RawTerminal>) {
    let mut filter = EscapeFilter::default();
    let mut buffer = Vec::new();
    let mut vain_waits = 0;
    loop {
        match wait_for_keys(&fd, &mut pending).await {
            Ok(()) => vain_waits = 0,
            // A wake-up without keys, such as a change of modes, makes the kernel wait again; on a
            // terminal, which has two wait queues, that fails.
            Err(error)
                if error.kind() == ErrorKind::InvalidInput && vain_waits < MAX_VAIN_WAITS =>
            {
                vain_waits += 1;
                continue;
            }
            Err(error) => {
                log::debug!("serial port: cannot wait for keys: {error}");
                return;
            }
        }
        // Reading in the background fails, and the keys there are for somebody else.
        match raw.resume() {
            Ok(Ownership::Foreground) => {}
            Ok(Ownership::Background) => {
                sleep(BACKGROUND_CHECK).await;
                continue;
            }
            Err(_) => return,
        }
        let result;
        (result, buffer) = input::read(&fd, pending.read_bytes(), buffer).await;
        match result {
            // The terminal was closed; SIGHUP says so to those whom it ends.
            Ok(0) => return,
            Ok(_) => take_keys(&buffer, &mut filter, &mut pending),
            Err(_) if !terminal::in_foreground() => {}
            Err(error) => {
                log::debug!("serial port: no more keys: {error}");
                return;
            }
        }
    }
}

/// Waits for keys, and gives the device earlier ones meanwhile.
async fn wait_for_keys(fd: &Fd, pending: &mut Pending) -> io::Result<()> {
    let mut readable = pin!(fd.poll(PollFlags::IN));
    let mut delivery = pin!(async {
        pending.deliver().await;
        std::future::pending::<()>().await;
    });
    match select(readable.as_mut(), delivery.as_mut()).await {
        executor::Either::Left(result) => result.map(drop),
        executor::Either::Right(()) => Ok(()),
    }
}

fn take_keys(keys: &[u8], filter: &mut EscapeFilter, pending: &mut Pending) {
    let mut rest = keys;
    while !rest.is_empty() {
        let listener =
            if pending.device().is_listening() { Listener::Present } else { Listener::Absent };
        let (taken, command) = filter.feed(rest, listener, pending.bytes());
        rest = &rest[taken..];
        match command {
            Some(Command::Quit) => quit(),
            Some(Command::Help) => {
                eprint!("{}{HELP}{}", terminal::start_of_error_line(), terminal::line_end());
            }
            None => {}
        }
    }
    pending.offer();
    pending.bytes().truncate(MAX_UNREAD_KEYS);
}

/// The same way out as Ctrl-C on a terminal that is not raw.
fn quit() {
    if let Err(error) = signals::interrupt() {
        log::error!("cannot end the machine: {error}");
    }
}
