//! The machine of one run: a `vmm run` of our own program, as a child that cannot outlive us.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::rc::Rc;
use std::time::Duration;

use executor::{Fd, PollFlags, TaskGroup};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, kill_process, pidfd_open, set_child_subreaper, wait,
};

use super::status;
use crate::outcome;

/// This very program, also after it was replaced on disk.
const PROGRAM: &str = "/proc/self/exe";
/// What is kept of the console and of messages, each.
const TAIL_BYTES: usize = 16 << 10;
const READ_BYTES: usize = 4 << 10;
/// What a machine gets to put in order what others know by name.
const PATIENCE: Duration = Duration::from_millis(300);
/// How Linux begins to say that it gives up.
const PANIC: &[u8] = b"Kernel panic - not syncing";

/// A machine that runs.
pub(super) struct Machine {
    child: Child,
    pidfd: Fd,
    console: Stream,
    messages: Stream,
    readers: TaskGroup,
}

/// How a machine is ended whose guest is of no more use. The guest is cut off either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Farewell {
    /// It removes its sockets and ends its recordings.
    InOrder,
    /// Nobody else knows anything of it: killed, which takes a third of the time.
    AtOnce,
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
        // Its processes are ours to wait for when it is gone.
        set_child_subreaper(Some(rustix::process::getpid()))?;
        let mut child = command.spawn()?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::other("a process without a number"))?;
        let pidfd = Fd::new(pidfd_open(pid, PidfdFlags::empty())?)?;
        let readers = TaskGroup::new();
        let console = Stream::new(child.stdout.take().map(OwnedFd::from))?;
        let messages = Stream::new(child.stderr.take().map(OwnedFd::from))?;
        readers.spawn(console.clone().follow());
        readers.spawn(messages.clone().follow());
        Ok(Self { child, pidfd, console, messages, readers })
    }

    /// Waits until it has ended by itself.
    pub(super) async fn ended(&mut self) -> io::Result<End> {
        self.pidfd.poll(PollFlags::IN).await?;
        let status = self.child.wait()?;
        // All that it has written is in the pipes. Their end may come much later: the kernel closes what an
        // io_uring knew when it finds the time.
        self.readers.cancel_all().await;
        self.console.take();
        self.messages.take();
        Ok(self.judge(status))
    }

    /// Ends it and all its processes.
    pub(super) async fn stop(mut self, farewell: Farewell) -> io::Result<()> {
        if self.child.try_wait()?.is_none() {
            let is_over = farewell == Farewell::InOrder && {
                self.signal(Signal::TERM);
                executor::timeout(PATIENCE, self.pidfd.poll(PollFlags::IN)).await.is_ok()
            };
            if !is_over {
                self.signal(Signal::KILL);
                self.pidfd.poll(PollFlags::IN).await?;
            }
            self.child.wait()?;
        }
        self.readers.cancel_all().await;
        // What they have open is free for the next machine.
        while !matches!(wait(WaitOptions::empty()), Err(Errno::CHILD)) {}
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
        self.console.text()
    }

    /// The last messages of the machine.
    pub(super) fn messages(&self) -> String {
        self.messages.text()
    }

    /// A kernel without a driver for the panic device says it on the console alone.
    fn judge(&self, status: ExitStatus) -> End {
        let mut console = self.console.tail.borrow_mut();
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

/// What a process writes: its last bytes.
#[derive(Clone)]
struct Stream {
    from: Option<Fd>,
    tail: Rc<RefCell<VecDeque<u8>>>,
}

impl Stream {
    fn new(from: Option<OwnedFd>) -> io::Result<Self> {
        if let Some(from) = &from {
            rustix::fs::fcntl_setfl(from, OFlags::NONBLOCK)?;
        }
        Ok(Self { from: from.map(Fd::new).transpose()?, tail: Rc::default() })
    }

    /// Reads to the end.
    async fn follow(self) {
        let Some(from) = &self.from else { return };
        while from.poll(PollFlags::IN).await.is_ok() && self.take() == More::MayCome {}
    }

    /// Reads what is there.
    fn take(&self) -> More {
        let mut buffer = [0; READ_BYTES];
        loop {
            match self.from.as_ref().map_or(Ok(0), |from| rustix::io::read(from, &mut buffer)) {
                Ok(0) => return More::WillNotCome,
                Ok(count) => {
                    let mut tail = self.tail.borrow_mut();
                    tail.extend(&buffer[..count]);
                    let surplus = tail.len().saturating_sub(TAIL_BYTES);
                    tail.drain(..surplus);
                }
                Err(Errno::AGAIN) => return More::MayCome,
                Err(Errno::INTR) => {}
                Err(_) => return More::WillNotCome,
            }
        }
    }

    /// Without anything that could control a terminal.
    fn text(&self) -> String {
        let mut tail = self.tail.borrow_mut();
        let text = String::from_utf8_lossy(tail.make_contiguous());
        text.chars()
            .filter(|letter| !letter.is_control() || matches!(letter, '\n' | '\t'))
            .collect()
    }
}

/// Whether a stream goes on.
#[derive(PartialEq, Eq)]
enum More {
    MayCome,
    WillNotCome,
}
