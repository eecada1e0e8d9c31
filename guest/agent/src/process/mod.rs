//! The processes that the host has started.
//!
//! ```text
//!   Start ──▶ spawn ──▶ Process { pid, exit latch } ◀── reaper (SIGCHLD, waitpid)
//!                │                                        │
//!                └─▶ pumps: pipe or terminal ⇄ stream     └─▶ Wait answers, the entry goes
//! ```

pub(crate) mod pump;
pub(crate) mod reaper;
mod spawn;
mod user;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use executor::Fd;
use proto::v1;
use rustix::process::{Pid, Signal, WaitStatus};
use rustix::termios::{Winsize, tcsetwinsize};
use tonic::Status;

use crate::latch::Latch;
use crate::streams::{Offer, Streams};
use pump::Pipe;
use spawn::Spawned;

/// Processes that were started and not waited for. A limit, so that a host in a loop gets an
/// error before the guest runs out of anything.
pub(crate) const MAX_PROCESSES: usize = 1024;
/// What a process gets between the hang-up and the kill when its host is gone.
const HANGUP_PATIENCE: Duration = Duration::from_secs(2);

/// Which connection a process belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner(pub(crate) u64);

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Code(u32),
    Signal(u32),
}

impl From<WaitStatus> for Exit {
    fn from(status: WaitStatus) -> Self {
        match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Exit::Code(code as u32),
            (None, signal) => Exit::Signal(signal.unwrap_or_default() as u32),
        }
    }
}

struct Process {
    pid: Pid,
    program: Vec<u8>,
    /// None when its connection is gone: nobody can wait for it any more.
    owner: Cell<Option<Owner>>,
    /// The master side, if it has a terminal.
    terminal: Option<OwnedFd>,
    exit: Latch<Exit>,
    /// Whether the kernel has forgotten it. Until then no other process or group can get its number.
    collected: Cell<bool>,
    /// It is not collected before its group was killed: members outlive their leader.
    held: Cell<bool>,
    /// Its streams, as long as nobody took them.
    _offers: Vec<Offer>,
}

/// A process that the guest itself asked for.
pub(crate) struct Service {
    pub(crate) pid: u32,
    pub(crate) stdout: Option<OwnedFd>,
    pub(crate) stderr: Option<OwnedFd>,
    pub(crate) exit: Latch<Exit>,
}

/// All of them, by number.
#[derive(Default)]
pub(crate) struct Processes {
    table: RefCell<BTreeMap<u64, Rc<Process>>>,
    last: Cell<u64>,
    in_shutdown: Cell<bool>,
}

impl Processes {
    /// Starts a process and offers its streams.
    pub(crate) fn start(
        &self,
        request: &v1::StartRequest,
        owner: Owner,
        streams: &Streams,
    ) -> Result<v1::StartReply, Status> {
        use v1::start_reply::Result as Outcome;
        if self.table.borrow().len() >= MAX_PROCESSES {
            return Err(Status::resource_exhausted("too many processes were not waited for"));
        }
        spawn::check(request)?;
        let result = match spawn::spawn(request) {
            Ok(spawned) => Outcome::Started(self.enter(request, owner, streams, spawned)?),
            Err(refused) => Outcome::NotStarted(refused),
        };
        Ok(v1::StartReply { result: Some(result) })
    }

    /// Starts a process that belongs to no connection. Its output has to be read.
    pub(crate) fn start_service(&self, request: &v1::StartRequest) -> Result<Service, String> {
        spawn::check(request).map_err(|status| status.message().to_owned())?;
        let spawned = spawn::spawn(request).map_err(|refused| refused.message)?;
        let Spawned { pid, stdout, stderr, .. } = spawned;
        let exit = Latch::new();
        self.insert(Process {
            pid,
            program: request.argv.first().cloned().unwrap_or_default(),
            owner: Cell::new(None),
            terminal: None,
            exit: exit.clone(),
            collected: Cell::new(false),
            held: Cell::new(false),
            _offers: Vec::new(),
        });
        Ok(Service { pid: number(pid), stdout, stderr, exit })
    }

    fn insert(&self, process: Process) -> u64 {
        let id = self.last.get() + 1;
        self.last.set(id);
        self.table.borrow_mut().insert(id, Rc::new(process));
        id
    }

    fn enter(
        &self,
        request: &v1::StartRequest,
        owner: Owner,
        streams: &Streams,
        spawned: Spawned,
    ) -> Result<v1::Started, Status> {
        let exit = Latch::new();
        let mut offers = Vec::new();
        let Spawned { pid, stdin, stdout, stderr, terminal } = spawned;
        let pipe = if terminal.is_some() { Pipe::Terminal } else { Pipe::Plain };
        let offered = (|| {
            let input =
                offer(streams, &mut offers, stdin, &exit, move |pipe_end, socket, exit| {
                    executor::spawn(pump::input(socket, pipe_end, pipe, exit)).detach();
                })?;
            let mut output = |end| {
                offer(streams, &mut offers, end, &exit, |pipe_end, socket, exit| {
                    executor::spawn(pump::output(pipe_end, socket, exit)).detach();
                })
            };
            std::io::Result::Ok((input, output(stdout)?, output(stderr)?))
        })();
        let (stdin, stdout, stderr) = match offered {
            Ok(tickets) => tickets,
            Err(error) => {
                // It runs already and nobody could ever talk to it. The reaper sees its end.
                let _ = rustix::process::kill_process_group(pid, Signal::KILL);
                return Err(Status::resource_exhausted(error.to_string()));
            }
        };
        let id = self.insert(Process {
            pid,
            program: request.argv.first().cloned().unwrap_or_default(),
            owner: Cell::new(Some(owner)),
            terminal,
            exit,
            collected: Cell::new(false),
            held: Cell::new(false),
            _offers: offers,
        });
        Ok(v1::Started { id, pid: number(pid), stdin, stdout, stderr })
    }

    fn get(&self, id: u64) -> Result<Rc<Process>, Status> {
        let table = self.table.borrow();
        table
            .get(&id)
            .cloned()
            .ok_or_else(|| Status::not_found(format!("there is no process {id}")))
    }

    /// Waits for the end of a process and forgets it.
    pub(crate) async fn wait(&self, id: u64) -> Result<v1::WaitReply, Status> {
        let process = self.get(id)?;
        let status = match process.exit.wait().await {
            Exit::Code(code) => v1::wait_reply::Status::Exited(code),
            Exit::Signal(number) => v1::wait_reply::Status::Signaled(number),
        };
        if process.collected.get() {
            let forgotten = self.table.borrow_mut().remove(&id);
            drop(forgotten);
        }
        Ok(v1::WaitReply { status: Some(status) })
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, request: &v1::SignalRequest) -> Result<(), Status> {
        let process = self.get(request.id)?;
        if process.exit.get().is_some() {
            // Its number may belong to another process by now.
            return Err(Status::failed_precondition("the process has ended"));
        }
        let signal = i32::try_from(request.number)
            .ok()
            .and_then(Signal::from_named_raw)
            .ok_or_else(|| Status::invalid_argument(format!("no signal {}", request.number)))?;
        let sent = match request.target() {
            v1::signal_request::Target::Group => {
                rustix::process::kill_process_group(process.pid, signal)
            }
            v1::signal_request::Target::Process => {
                rustix::process::kill_process(process.pid, signal)
            }
        };
        sent.map_err(|errno| Status::failed_precondition(format!("cannot send it: {errno}")))
    }

    /// Changes the size of a terminal; its foreground group gets SIGWINCH from the kernel.
    pub(crate) fn resize(&self, request: &v1::ResizeRequest) -> Result<(), Status> {
        let process = self.get(request.id)?;
        let Some(terminal) = &process.terminal else {
            return Err(Status::failed_precondition("the process has no terminal"));
        };
        tcsetwinsize(terminal, size(request.rows, request.columns))
            .map_err(|errno| Status::internal(format!("cannot resize the terminal: {errno}")))
    }

    /// All that are there.
    pub(crate) fn list(&self) -> v1::ListReply {
        let table = self.table.borrow();
        let processes = table
            .iter()
            .map(|(&id, process)| v1::Process {
                id,
                pid: number(process.pid),
                program: process.program.clone(),
                ended: process.exit.get().is_some(),
            })
            .collect();
        v1::ListReply { processes }
    }

    /// Notes that a process has ended and was collected. Others than those of the table are somebody's
    /// orphans.
    fn ended(&self, pid: Pid, exit: Exit) {
        let mut table = self.table.borrow_mut();
        let found = table.iter().find(|(_, one)| one.pid == pid && !one.collected.get());
        let Some((&id, process)) = found else {
            return;
        };
        process.collected.set(true);
        process.exit.set(exit);
        let forgotten = if process.owner.get().is_none() { table.remove(&id) } else { None };
        drop(table);
        drop(forgotten);
    }

    /// Those that were not collected, if any of them must not be.
    fn some_held(&self) -> Option<Vec<Rc<Process>>> {
        let table = self.table.borrow();
        let there = || table.values().filter(|process| !process.collected.get());
        there().any(|process| process.held.get()).then(|| there().cloned().collect())
    }

    /// From now on processes are collected only after their groups were killed.
    pub(crate) fn hold_all(&self) {
        self.table.borrow().values().for_each(|process| process.held.set(true));
    }

    /// Their groups were killed, or need not be.
    pub(crate) fn release_all(&self) {
        self.table.borrow().values().for_each(|process| process.held.set(false));
    }

    /// All are ended by somebody else now, whatever becomes of their connections.
    pub(crate) fn leave_to_shutdown(&self) {
        self.in_shutdown.set(true);
        self.release_all();
    }

    /// Signals the groups of all that were not collected.
    pub(crate) fn signal_all(&self, signal: Signal) {
        for process in self.table.borrow().values() {
            process.signal_group(signal);
        }
    }

    /// Whether all have ended.
    pub(crate) fn all_ended(&self) -> bool {
        self.table.borrow().values().all(|process| process.exit.get().is_some())
    }

    /// Ends what belongs to a connection that is gone.
    pub(crate) async fn abandon(&self, owner: Owner) {
        let mut ended = Vec::new();
        let mut running = Vec::new();
        self.table.borrow_mut().retain(|_, process| {
            if process.owner.get() != Some(owner) {
                return true;
            }
            process.owner.set(None);
            let runs = process.exit.get().is_none();
            if runs { &mut running } else { &mut ended }.push(Rc::clone(process));
            runs
        });
        drop(ended);
        if running.is_empty() || self.in_shutdown.get() {
            return;
        }
        for process in &running {
            process.held.set(true);
            process.signal_group(Signal::HUP);
            process.signal_group(Signal::CONT);
        }
        executor::sleep(HANGUP_PATIENCE).await;
        for process in running {
            process.signal_group(Signal::KILL);
            process.held.set(false);
        }
        // Of those that were held nothing more is heard.
        if let Err(error) = reaper::reap(self) {
            log::warn!("cannot collect processes: {error}");
        }
    }
}

impl Process {
    fn signal_group(&self, signal: Signal) {
        if !self.collected.get() {
            // It may have left its group; there is nothing more to do then.
            let _ = rustix::process::kill_process_group(self.pid, signal);
        }
    }
}

fn number(pid: Pid) -> u32 {
    pid.as_raw_nonzero().get() as u32
}

/// A size as the kernel has it; larger ones are cut off.
fn size(rows: u32, columns: u32) -> Winsize {
    let cut = |value: u32| value.min(u32::from(u16::MAX)) as u16;
    Winsize { ws_row: cut(rows), ws_col: cut(columns), ws_xpixel: 0, ws_ypixel: 0 }
}

/// Offers one stream of a process; the ticket's bytes, or none if there is no such stream.
fn offer(
    streams: &Streams,
    offers: &mut Vec<Offer>,
    end: Option<OwnedFd>,
    exit: &Latch<Exit>,
    start: impl FnOnce(Fd, Fd, Latch<Exit>) + 'static,
) -> std::io::Result<Vec<u8>> {
    let Some(end) = end else {
        return Ok(Vec::new());
    };
    let end = Fd::new(end)?;
    let exit = exit.clone();
    let offer = streams.offer(move |socket| start(end, socket, exit))?;
    let ticket = offer.ticket.to_vec();
    offers.push(offer);
    Ok(ticket)
}

/// Whether there is such a user.
#[cfg(feature = "fuzzing")]
pub(crate) fn is_user(wanted: &str, passwd: &str, group: &str) -> bool {
    user::resolve(wanted, passwd, group).is_ok()
}
