//! Signals as events of the executor.

use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::{FromRawFd, OwnedFd};

use executor::Fd;

const RECORD_BYTES: usize = mem::size_of::<libc::signalfd_siginfo>();

/// What the kernel sends process 1 when somebody presses ctrl-alt-del is SIGINT, and what service
/// managers send for a power failure SIGPWR.
const LISTENED: [libc::c_int; 4] = [libc::SIGCHLD, libc::SIGTERM, libc::SIGINT, libc::SIGPWR];

/// Something that a signal has said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Children have ended, perhaps several.
    ChildEnded,
    PowerOff,
    Reboot,
}

/// The signals of this process, blocked and waiting in a descriptor.
pub(crate) struct Signals(OwnedFd);

impl Signals {
    /// Blocks the signals, and those of terminals for good: the agent must neither stop nor end
    /// because of one. Call it before there is a second thread.
    pub(crate) fn block() -> io::Result<Self> {
        let mut set = MaybeUninit::uninit();
        // SAFETY: initialises the set; the numbers are signals.
        let set = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            for number in LISTENED {
                libc::sigaddset(set.as_mut_ptr(), number);
            }
            set.assume_init()
        };
        // SAFETY: the set is initialised; the call makes a descriptor.
        let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made and has no other owner.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: the set is initialised; no previous mask is asked for.
        let error =
            unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
        if error != 0 {
            return Err(io::Error::from_raw_os_error(error));
        }
        Ok(Signals(fd))
    }

    /// Listens on the current executor.
    pub(crate) fn listen(self) -> io::Result<Listener> {
        Ok(Listener { fd: Fd::new(self.0)? })
    }
}

/// The signals as a stream of events.
pub(crate) struct Listener {
    fd: Fd,
}

impl Listener {
    /// Waits for the next signal. Dropping it early loses none: it only waits, and the read that
    /// follows does not.
    pub(crate) async fn next(&mut self) -> io::Result<Event> {
        self.fd.poll(executor::PollFlags::IN).await?;
        let mut record = [0; RECORD_BYTES];
        let count = rustix::io::read(&self.fd, &mut record[..])?;
        let number = match record.first_chunk::<4>() {
            // The signal's number is the first field of the record (`ssi_signo`).
            Some(number) if count == RECORD_BYTES => u32::from_ne_bytes(*number) as i32,
            _ => return Err(io::ErrorKind::UnexpectedEof.into()),
        };
        Ok(match number {
            libc::SIGCHLD => Event::ChildEnded,
            libc::SIGINT => Event::Reboot,
            _ => Event::PowerOff,
        })
    }
}
