//! Signals as events of the executor.
//!
//! [`Signals::block`] is called while the process has one thread, so that every later thread
//! inherits the mask and the signals come out of one signalfd. Then the machine ends in order:
//! nothing ever runs in a signal handler.
//!
//! | Signal                       | What it does                                             |
//! |------------------------------|----------------------------------------------------------|
//! | SIGHUP SIGINT SIGQUIT SIGTERM| the machine ends; exit status 128 + number               |
//! | SIGTSTP                      | the terminal is given back, the process stops            |
//! | SIGCONT                      | the terminal is the guest's again                        |
//! | SIGWINCH                     | the terminal has another size                            |
//! | SIGTTIN SIGTTOU              | blocked: work on the terminal from the background fails  |
//! |                              | instead of stopping the process                          |
//!
//! SIGHUP is left alone when it was ignored at the start, as nohup has it.

use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::{FromRawFd, OwnedFd};

use executor::Fd;
use rustix::process::{Signal, getpid, kill_process};

use crate::terminal::RawTerminal;

/// These end the machine.
const ENDING: [libc::c_int; 4] = [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM];

/// These are about the terminal.
const TERMINAL: [libc::c_int; 3] = [libc::SIGTSTP, libc::SIGCONT, libc::SIGWINCH];

/// These are blocked and never read.
const JOB_CONTROL: [libc::c_int; 2] = [libc::SIGTTIN, libc::SIGTTOU];

/// What a signalfd gives for each signal.
const RECORD_BYTES: usize = mem::size_of::<libc::signalfd_siginfo>();

/// The signals of this process, blocked and waiting in a descriptor.
#[derive(Debug)]
pub struct Signals {
    fd: OwnedFd,
}

/// Something that a signal has said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The machine has to end because of the signal with this number.
    End(i32),
    /// The user wants the process to stop for a while.
    Suspend,
    /// The process goes on, perhaps in the foreground.
    Continued,
    /// The terminal has another size.
    Resized,
}

impl Signals {
    /// Blocks the signals. Call it before there is a second thread.
    pub fn block() -> io::Result<Self> {
        let mut listened = empty_set();
        let endings =
            ENDING.into_iter().filter(|number| *number != libc::SIGHUP || !hangup_ignored());
        for number in endings.chain(TERMINAL) {
            add(&mut listened, number);
        }
        let mut blocked = listened;
        for number in JOB_CONTROL {
            add(&mut blocked, number);
        }
        // Opened first: a signal in between would end the process as it does by default.
        // SAFETY: the set is initialised; the call makes a descriptor.
        let fd = unsafe { libc::signalfd(-1, &raw const listened, libc::SFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made and has no other owner.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: the set is initialised; no previous mask is asked for.
        let error = unsafe {
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const blocked, std::ptr::null_mut())
        };
        if error != 0 {
            return Err(io::Error::from_raw_os_error(error));
        }
        Ok(Self { fd })
    }

    /// Listens on the current executor.
    pub fn listen(self) -> io::Result<Listener> {
        Ok(Listener { fd: Fd::new(self.fd)?, record: Box::new([0; RECORD_BYTES]) })
    }
}

/// The signals as a stream of events.
pub struct Listener {
    fd: Fd,
    record: Box<[u8; RECORD_BYTES]>,
}

impl Listener {
    /// Waits for the next signal.
    pub async fn next(&mut self) -> io::Result<Event> {
        loop {
            let record = mem::replace(&mut self.record, Box::new([0; RECORD_BYTES]));
            let (result, record) = self.fd.read(record).await;
            self.record = record;
            if result? < RECORD_BYTES {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Some(event) = event(&self.record) {
                return Ok(event);
            }
        }
    }

    /// Waits for a signal that ends the machine and gives its number. Until then the terminal, if
    /// there is one, follows the job control of the shell, and `resized` hears of its new sizes.
    pub async fn ending(
        &mut self,
        terminal: Option<&RawTerminal>,
        resized: impl Fn(),
    ) -> io::Result<i32> {
        loop {
            match self.next().await? {
                Event::End(number) => return Ok(number),
                Event::Suspend => suspend(terminal)?,
                Event::Continued => resume(terminal)?,
                Event::Resized => resized(),
            }
        }
    }
}

/// The signal's number is the first field of the record (`ssi_signo`).
fn event(record: &[u8; RECORD_BYTES]) -> Option<Event> {
    let (number, _) = record.split_first_chunk::<4>()?;
    match u32::from_ne_bytes(*number) as i32 {
        libc::SIGTSTP => Some(Event::Suspend),
        libc::SIGCONT => Some(Event::Continued),
        libc::SIGWINCH => Some(Event::Resized),
        number if ENDING.contains(&number) => Some(Event::End(number)),
        _ => None,
    }
}

/// Stops the process as SIGTSTP does by default, with the terminal as it was found.
fn suspend(terminal: Option<&RawTerminal>) -> io::Result<()> {
    if let Some(terminal) = terminal {
        terminal.suspend();
    }
    Ok(kill_process(getpid(), Signal::STOP)?)
}

fn resume(terminal: Option<&RawTerminal>) -> io::Result<()> {
    if let Some(terminal) = terminal {
        terminal.resume()?;
    }
    Ok(())
}

/// Ends the machine from within, in the way of Ctrl-C.
pub fn interrupt() -> io::Result<()> {
    Ok(kill_process(getpid(), Signal::INT)?)
}

fn empty_set() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises the whole set and cannot fail on a valid address.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        set.assume_init()
    }
}

fn add(set: &mut libc::sigset_t, number: libc::c_int) {
    // SAFETY: the set is initialised, and all numbers of this module are signals.
    unsafe { libc::sigaddset(set, number) };
}

fn hangup_ignored() -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: only asks for the present action, which the kernel writes if the call succeeds.
    unsafe {
        libc::sigaction(libc::SIGHUP, std::ptr::null(), action.as_mut_ptr()) == 0
            && action.assume_init().sa_sigaction == libc::SIG_IGN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on_executor(driver: executor::DriverChoice, test: impl AsyncFnOnce(Listener)) {
        let config = executor::Config { driver, ..executor::Config::default() };
        let mut executor = executor::Executor::new(&config).expect("an executor");
        executor.block_on(async {
            let signals = Signals::block().expect("blocked");
            test(signals.listen().expect("listening")).await;
        });
    }

    /// To this thread only: the other threads of a test binary have not blocked it.
    fn raise(number: i32) {
        // SAFETY: the signal is blocked in this thread, so that it only becomes pending.
        assert_eq!(unsafe { libc::raise(number) }, 0);
    }

    #[test]
    fn signals_arrive_as_events_under_each_driver() {
        for driver in [executor::DriverChoice::Auto, executor::DriverChoice::Epoll] {
            on_executor(driver, async |mut listener| {
                for number in ENDING {
                    raise(number);
                    assert_eq!(listener.next().await.expect("an event"), Event::End(number));
                }
                raise(libc::SIGWINCH);
                assert_eq!(listener.next().await.expect("an event"), Event::Resized);
                raise(libc::SIGTSTP);
                assert_eq!(listener.next().await.expect("an event"), Event::Suspend);
            });
        }
    }

    #[test]
    fn a_signal_after_the_wait_began_wakes_it() {
        on_executor(executor::DriverChoice::Auto, async |mut listener| {
            let later = executor::spawn(async {
                executor::yield_now().await;
                raise(libc::SIGWINCH);
            });
            let end = || raise(libc::SIGTERM);
            assert_eq!(listener.ending(None, end).await.expect("a number"), libc::SIGTERM);
            later.await;
        });
    }
}
