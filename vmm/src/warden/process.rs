//! The warden's own process: one loop over its link and the deaths of its children.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use executor::{Config, Either, Executor, PollFlags, PollStream};
use ipc::link::{Link, LinkEnd, Opened};
use ipc::{Receiver, Sender};
use rustix::process::{PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus};

use super::actor::{self, Unborn};
use super::policies::Programs;
use super::{ActorId, Cause, Death, Request, WardenEvent};
use crate::error::Report;
use crate::sandbox::{self, Child, DeathNoteMemory, SandboxError, Users};

/// The warden's exit status when it could not go on.
const FAILED: i32 = 1;
/// A message from the machine, deaths, and what the link itself needs.
const RING_ENTRIES: u32 = 8;

/// Never returns: this is the whole life of the process. `parent` is a pidfd of the machine.
pub(super) fn run(
    end: LinkEnd<WardenEvent, Request>,
    programs: Programs,
    users: Users,
    parent: &OwnedFd,
) -> ! {
    let status = live(end, programs, users, parent.as_fd());
    // Nothing of the parent's may run here: no destructors, no exit handlers, no buffers.
    // SAFETY: ends the process.
    unsafe { libc::_exit(status) }
}

fn live(
    end: LinkEnd<WardenEvent, Request>,
    programs: Programs,
    users: Users,
    parent: BorrowedFd<'_>,
) -> i32 {
    let mut kept = end.descriptors().to_vec();
    kept.push(parent);
    if let Err(error) = sandbox::keep_only(&kept) {
        log::error!("the warden cannot start: {}", Report::of(&error).one_line());
        return FAILED;
    }
    let config = Config { entries: RING_ENTRIES, fixed_files: RING_ENTRIES, ..Config::default() };
    // Before the sandbox, so that there is a way to say why there is none.
    let reach =
        || -> Result<_, Box<dyn std::error::Error>> { Ok((Executor::new(&config)?, end.open()?)) };
    let (mut executor, opened) = match reach() {
        Ok(reached) => reached,
        Err(error) => {
            log::error!("the warden cannot start: {}", Report::of(&*error).one_line());
            return FAILED;
        }
    };
    let Opened { link, sender, receiver } = opened;
    executor.block_on(async {
        executor::spawn(link.drive()).detach();
        executor::spawn(sandbox::shed_beginnings()).detach();
    });
    let settled = settle(users, parent).and_then(|()| watch(&mut executor));
    let mut keeper = match settled {
        Ok((children, changes, myself)) => Keeper {
            executor,
            link,
            requests: receiver,
            events: sender,
            children,
            changes,
            myself,
            actors: HashMap::new(),
            programs,
        },
        Err(error) => {
            let reason = Report::of(&error).one_line();
            let event = WardenEvent::Unusable { reason };
            // If the machine is gone, nobody wants to know.
            let _ = executor.block_on(sender.send(event));
            return FAILED;
        }
    };
    let status = keeper.serve();
    keeper.end_all();
    status
}

/// Leaves the world of the machine.
fn settle(users: Users, parent: BorrowedFd<'_>) -> Result<(), SandboxError> {
    sandbox::forget_handlers()?;
    // A terminal's Ctrl-C is for the machine, which then ends everything in order.
    let _ = rustix::process::setsid();
    // Asked of the kernel once and remembered, by a call that actors may not make.
    let _ = rustix::param::page_size();
    sandbox::enter_empty_world(users)?;
    sandbox::empty_bounding_set()?;
    sandbox::tie_to_parent(parent)
}

/// What tells of changes of the actors' state, and a pidfd of the warden for them to be tied to.
fn watch(executor: &mut Executor) -> Result<(OwnedFd, PollStream, OwnedFd), SandboxError> {
    const DOING: &str = "watch the actors";
    let children = watch_children()?;
    let duplicate =
        rustix::io::fcntl_dupfd_cloexec(&children, 0).map_err(SandboxError::of(DOING))?;
    let polled = executor.block_on(async { executor::Fd::new(duplicate) });
    let polled = polled.map_err(|source| SandboxError::new(DOING, source))?;
    let changes = polled.poll_stream(PollFlags::IN);
    let myself = rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty())
        .map_err(SandboxError::of(DOING))?;
    Ok((children, changes, myself))
}

struct Keeper {
    executor: Executor,
    link: Link,
    requests: Receiver<Request>,
    events: Sender<WardenEvent>,
    /// A signalfd of SIGCHLD.
    children: OwnedFd,
    /// Its readiness.
    changes: PollStream,
    myself: OwnedFd,
    actors: HashMap<ActorId, Running>,
    programs: Programs,
}

struct Running {
    child: Child,
    note: DeathNoteMemory,
    /// Whether it was stopped, and killed for it.
    stopped: bool,
}

impl Keeper {
    /// Serves until the machine is gone; returns the exit status.
    fn serve(&mut self) -> i32 {
        loop {
            // Outside of the executor: a process is forked here, which makes one of its own.
            let (requests, changes) = (&mut self.requests, &mut self.changes);
            let next = executor::select(requests.recv(), changes.next());
            match self.executor.block_on(next) {
                Either::Left(Ok(request)) => self.carry_out(request),
                Either::Left(Err(_)) => return 0,
                Either::Right(Ok(_)) => self.bury(),
                Either::Right(Err(error)) => {
                    log::error!("the warden cannot watch the actors: {error}");
                    return FAILED;
                }
            }
        }
    }

    fn carry_out(&mut self, request: Request) {
        match request {
            Request::Spawn { id, actors } => {
                let event = match self.spawn(id, actors) {
                    Ok(pid) => WardenEvent::Started { id, pid },
                    Err(error) => WardenEvent::Failed { id, reason: Report::of(&error).one_line() },
                };
                self.say(event);
            }
            Request::Kill { id } => {
                if let Some(running) = self.actors.get(&id) {
                    running.child.kill();
                }
            }
        }
    }

    fn say(&mut self, event: WardenEvent) {
        // When the machine is gone, so are the requests, which `serve` notices.
        let _ = self.executor.block_on(self.events.send(event));
    }

    fn spawn(&mut self, id: ActorId, actors: Vec<Unborn>) -> Result<i32, SandboxError> {
        let note = DeathNoteMemory::new()?;
        let Some(child) = sandbox::clone_into_pid_namespace()? else {
            actor::run(actor::Birth {
                actors,
                note,
                programs: &self.programs,
                parent: self.myself.as_fd(),
            });
        };
        note.hide_from_later_forks()?;
        let number = child.pid.as_raw_nonzero().get();
        let running = Running { child, note, stopped: false };
        self.actors.insert(id, running);
        Ok(number)
    }

    /// Reads every death and stop that has come.
    fn bury(&mut self) {
        drain(self.children.as_fd());
        let mut dead = Vec::new();
        for (id, running) in &mut self.actors {
            if let Some(cause) = running.change() {
                let pid = running.child.pid.as_raw_nonzero().get();
                let note = running.note.read();
                dead.push((*id, Death { pid, cause, note }));
            }
        }
        for (id, death) in dead {
            self.actors.remove(&id);
            self.say(WardenEvent::Died { id, death });
        }
    }

    /// Leaves no process behind, not even a zombie for somebody else to bury.
    fn end_all(&mut self) {
        self.link.close();
        for running in self.actors.values() {
            running.child.kill();
        }
        for running in self.actors.values() {
            let _ = rustix::io::retry_on_intr(|| {
                let pidfd = WaitId::PidFd(running.child.pidfd.as_fd());
                rustix::process::waitid(pidfd, WaitIdOptions::EXITED)
            });
        }
    }
}

impl Running {
    /// What ended it, if it has ended. Ends it if it was stopped.
    fn change(&mut self) -> Option<Cause> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::STOPPED | WaitIdOptions::NOHANG;
        // A stop is followed by the death, and both may be there already.
        while let Ok(Some(status)) = rustix::io::retry_on_intr(|| {
            rustix::process::waitid(WaitId::PidFd(self.child.pidfd.as_fd()), options)
        }) {
            if !status.stopped() {
                return Some(self.cause(&status));
            }
            self.stopped = true;
            self.child.kill();
        }
        None
    }

    fn cause(&self, status: &WaitIdStatus) -> Cause {
        match (status.exit_status(), status.terminating_signal()) {
            _ if self.stopped => Cause::Stopped,
            (Some(code), _) => Cause::Exited(code),
            (None, signal) => Cause::Killed(signal.unwrap_or_default()),
        }
    }
}

impl Child {
    /// It may be dead already, which is just as well.
    fn kill(&self) {
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
    }
}

/// Blocks SIGCHLD and returns a descriptor that is readable when one is pending.
fn watch_children() -> Result<OwnedFd, SandboxError> {
    // SAFETY: the set is initialised by sigemptyset before it is used; the descriptor that
    // signalfd returns is nobody else's.
    unsafe {
        let mut signals: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut signals);
        libc::sigaddset(&raw mut signals, libc::SIGCHLD);
        libc::sigprocmask(libc::SIG_BLOCK, &raw const signals, std::ptr::null_mut());
        match libc::signalfd(-1, &raw const signals, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) {
            -1 => Err(SandboxError::last("watch the actors")),
            fd => Ok(OwnedFd::from_raw_fd(fd)),
        }
    }
}

fn drain(signals: BorrowedFd<'_>) {
    let mut record = [0_u8; size_of::<libc::signalfd_siginfo>()];
    while rustix::io::read(signals, &mut record).is_ok() {}
}
