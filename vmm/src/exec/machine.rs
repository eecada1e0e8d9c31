//! The machine of one run: a `vmm run` of our own program, as a child that cannot outlive us.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::rc::Rc;
use std::time::Duration;

use executor::{Fd, PollFlags, TaskGroup};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use super::status;
use crate::outcome;

/// This very program, also after it was replaced on disk.
const PROGRAM: &str = "/proc/self/exe";
/// What is kept of the console and of messages, each.
const TAIL_BYTES: usize = 16 << 10;
const READ_BYTES: usize = 4 << 10;
/// What a machine gets to end in order. Whoever waits for a status has nothing of it: the guest is cut
/// off either way.
const PATIENCE: Duration = Duration::from_millis(300);
/// How Linux begins to say that it gives up.
const PANIC: &[u8] = b"Kernel panic - not syncing";

/// The last bytes of a stream.
type Tail = Rc<RefCell<VecDeque<u8>>>;

/// A machine that runs.
pub(super) struct Machine {
    child: Child,
    pidfd: Fd,
    console: Tail,
    messages: Tail,
    readers: TaskGroup,
}

/// How a machine ended, in the terms of `vmm exec`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Down,
    Panic,
    Failed,
}

impl End {
    pub(super) fn status(self) -> u8 {
        match self {
            End::Down => status::GUEST_DOWN,
            End::Panic => status::GUEST_PANIC,
            End::Failed => status::FAILED,
        }
    }
}

impl Machine {
    /// Starts the machine that a file describes.
    pub(super) fn start(description: &Path) -> io::Result<Self> {
        let mut command = Command::new(PROGRAM);
        command.arg("run").arg("--config").arg(description);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let parent = rustix::process::getpid();
        // SAFETY: between fork and exec only system calls are made.
        unsafe { command.pre_exec(move || die_with(parent)) };
        let mut child = command.spawn()?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::other("a process without a number"))?;
        let pidfd = Fd::new(pidfd_open(pid, PidfdFlags::empty())?)?;
        let readers = TaskGroup::new();
        let (console, messages) = (Tail::default(), Tail::default());
        if let Some(stdout) = child.stdout.take() {
            readers.spawn(keep(Fd::new(std::os::fd::OwnedFd::from(stdout))?, Rc::clone(&console)));
        }
        if let Some(stderr) = child.stderr.take() {
            readers.spawn(keep(Fd::new(std::os::fd::OwnedFd::from(stderr))?, Rc::clone(&messages)));
        }
        Ok(Self { child, pidfd, console, messages, readers })
    }

    /// Waits until it has ended by itself.
    pub(super) async fn ended(&mut self) -> io::Result<End> {
        self.pidfd.poll(PollFlags::IN).await?;
        let status = self.child.wait()?;
        // All that it has written is in the pipes.
        self.readers.wait().await;
        Ok(self.judge(status))
    }

    /// Ends it, in order if it can.
    pub(super) async fn stop(mut self) -> io::Result<()> {
        if self.child.try_wait()?.is_none() {
            self.signal(Signal::TERM);
            let ended = self.pidfd.poll(PollFlags::IN);
            if executor::timeout(PATIENCE, ended).await.is_err() {
                self.signal(Signal::KILL);
                self.pidfd.poll(PollFlags::IN).await?;
            }
            self.child.wait()?;
        }
        self.readers.cancel_all().await;
        Ok(())
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // Not waited for yet, so the number is still its own.
            let _ = kill_process(pid, signal);
        }
    }

    /// The last output on the console.
    pub(super) fn console(&self) -> String {
        text(&self.console)
    }

    /// The last messages of the machine.
    pub(super) fn messages(&self) -> String {
        text(&self.messages)
    }

    /// A kernel without a driver for the panic device says it on the console alone.
    fn judge(&self, status: ExitStatus) -> End {
        let mut console = self.console.borrow_mut();
        let panicked = console.make_contiguous().windows(PANIC.len()).any(|text| text == PANIC);
        match status.code().and_then(|code| u8::try_from(code).ok()) {
            Some(code) if code == outcome::Outcome::GuestPanic.exit_code() => End::Panic,
            Some(code) if code == outcome::Outcome::Reset.exit_code() && panicked => End::Panic,
            Some(outcome::BAD_INPUT) => End::Failed,
            Some(_) => End::Down,
            None => {
                log::error!("the machine's process was ended by signal {:?}", status.signal());
                End::Failed
            }
        }
    }
}

/// In the child: SIGKILL for us is SIGKILL for it, and keys on the terminal are not for it.
fn die_with(parent: Pid) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    if rustix::process::getppid() != Some(parent) {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    rustix::process::setsid()?;
    let mut set = std::mem::MaybeUninit::uninit();
    // SAFETY: the first call initialises the set that the second reads.
    let error = unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, set.as_ptr(), std::ptr::null_mut())
    };
    if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error)) }
}

/// Reads to the end and keeps the last bytes.
async fn keep(from: Fd, tail: Tail) {
    let mut buffer = Vec::with_capacity(READ_BYTES);
    loop {
        buffer.clear();
        let (read, filled) = from.read(buffer).await;
        buffer = filled;
        if !read.is_ok_and(|count| count > 0) {
            return;
        }
        let mut tail = tail.borrow_mut();
        tail.extend(&buffer);
        let surplus = tail.len().saturating_sub(TAIL_BYTES);
        tail.drain(..surplus);
    }
}

/// Without anything that could control a terminal.
fn text(tail: &Tail) -> String {
    let mut tail = tail.borrow_mut();
    let text = String::from_utf8_lossy(tail.make_contiguous());
    text.chars().filter(|letter| !letter.is_control() || matches!(letter, '\n' | '\t')).collect()
}
