//! One command, once its machine is there or on its way.

use std::cell::Cell;
use std::fmt::Write as _;
use std::io;
use std::os::fd::AsFd;
use std::pin::pin;
use std::time::Duration;

use agent_client::{
    Activity, Command, CrashListener, Event, Guest, HostStreams, LogListener, ReadyListener, Run,
    Session, StartError,
};
use executor::{Either, Fd, Instant, TaskGroup, select};
use proto::credentials::Secret;
use proto::v1;

use super::forwards::{self, Ports};
use super::machine::{End, Machine};
use super::{Disks, Error, Prepared, Wanted, status};
use crate::crashes::Taker;
use crate::logs::Log;
use crate::signals::{self, Listener, Signals};
use crate::terminal::{self, LineFeed, RawTerminal};

/// How much of the console is shown when a guest fails.
const TAIL_LINES: usize = 40;
/// What a guest gets to put its disks in order: its processes get ten seconds of it.
const SHUTDOWN: Duration = Duration::from_secs(15);
/// What a guest gets to hand over what it has logged.
const LAST_LOGS: Duration = Duration::from_secs(2);
/// What a guest whose connections broke gets to say how it ended.
const LAST_MOMENT: Duration = Duration::from_secs(10);
/// A size for terminals whose own is unknown.
const ROWS_AND_COLUMNS: (u32, u32) = (24, 80);

/// What is wanted of a run, wherever it is.
#[derive(Debug)]
pub(super) struct Wishes {
    pub(super) command: Command,
    pub(super) terminal: Wanted,
    pub(super) deadline: Option<Instant>,
    pub(super) idle_timeout: Option<Duration>,
    pub(super) ports: Ports,
}

/// What ended a run.
enum Ending {
    Run(Run),
    /// Before the command ran.
    Signal(i32),
    TimedOut(&'static str),
}

/// Runs a command in a machine that is there.
pub(super) async fn in_running(
    guest: &Guest,
    secret: &Secret,
    wishes: Wishes,
    signals: Signals,
) -> Result<u8, Error> {
    let mut signals = signals.listen().map_err(Error::host("listen to signals"))?;
    let limits = Limits::new(&wishes);
    let work = async {
        let session = Session::open(guest, secret).await?;
        run_command(&session, wishes, &limits.activity, &mut signals).await
    };
    let ending = match select(pin!(work), pin!(limits.over())).await {
        Either::Left(result) => result?,
        Either::Right(what) => Ending::TimedOut(what),
    };
    conclude(ending)
}

/// Starts a machine and runs a command in it.
pub(super) async fn in_new(
    prepared: &Prepared,
    wishes: Wishes,
    signals: Signals,
    log: Option<Log>,
    crashes: Taker,
) -> Result<u8, Error> {
    let mut signals = signals.listen().map_err(Error::host("listen to signals"))?;
    let limits = Limits::new(&wishes);
    let is_logged = log.is_some();
    let _logs = log.map(|log| take_logs(prepared, log)).transpose()?;
    let _crashes = take_crashes(prepared, crashes, wishes.terminal)?;
    let ready = ReadyListener::bind(&prepared.guest)
        .map_err(Error::host("listen for the guest's agent"))?;
    let mut machine =
        Machine::start(&prepared.description).map_err(Error::host("start the machine"))?;
    let is_ready = Cell::new(false);
    let work = async {
        match select(pin!(ready.ready()), pin!(ending_signal(&mut signals))).await {
            Either::Left(info) => {
                let info = info.map_err(Error::host("hear from the guest's agent"))?;
                if !info.problem.is_empty() {
                    return Err(Error::Guest(terminal::cleaned(&info.problem)));
                }
            }
            Either::Right(number) => return Ok(Ending::Signal(number?)),
        }
        is_ready.set(true);
        let session = Session::open(&prepared.guest, &prepared.secret).await?;
        let ending = run_command(&session, wishes, &limits.activity, &mut signals).await?;
        if is_logged {
            let mut agent = session.agent();
            let flushed = agent.flush_logs(v1::FlushLogsRequest::default());
            let _ = executor::timeout(LAST_LOGS, flushed).await;
        }
        if prepared.disks == Disks::Written {
            // A connection that breaks because the guest is gone is what we want.
            let _ = session.agent().shutdown(v1::ShutdownRequest::default()).await;
        }
        Ok(ending)
    };
    let came = {
        let ended = machine.ended();
        match select(pin!(work), select(pin!(ended), pin!(limits.over()))).await {
            Either::Left(Ok(ending)) => Came::Ending(ending),
            Either::Left(Err(error)) => Came::Error(error),
            Either::Right(Either::Left(end)) => Came::Down(end),
            Either::Right(Either::Right(what)) => Came::Ending(Ending::TimedOut(what)),
        }
    };
    match came {
        Came::Ending(ending) => {
            if prepared.disks == Disks::Written && matches!(ending, Ending::Run(_)) {
                // If it does not, it is ended all the same.
                let _ = executor::timeout(SHUTDOWN, machine.ended()).await;
            }
            let last_words = match &ending {
                // A device that dies again and again, or a kernel that waits for something, says so there.
                Ending::TimedOut(_) if is_ready.get() => tails(&[("messages", machine.messages())]),
                Ending::TimedOut(_) => all_tails(&machine),
                Ending::Run(_) | Ending::Signal(_) => String::new(),
            };
            machine.stop(prepared.farewell).await.map_err(Error::host("end the machine"))?;
            let status = conclude(ending)?;
            eprint!("{last_words}");
            Ok(status)
        }
        Came::Down(end) => {
            end.map(|end| explain(&machine, end)).map_err(Error::host("wait for the machine"))
        }
        Came::Error(error @ Error::Guest(_)) => {
            machine.stop(prepared.farewell).await.map_err(Error::host("end the machine"))?;
            Err(error)
        }
        // A guest that goes down takes its connections with it, a moment before.
        Came::Error(error) => match executor::timeout(LAST_MOMENT, machine.ended()).await {
            Ok(end) => {
                end.map(|end| explain(&machine, end)).map_err(Error::host("wait for the machine"))
            }
            Err(_) => {
                machine.stop(prepared.farewell).await.map_err(Error::host("end the machine"))?;
                Err(error)
            }
        },
    }
}

/// Takes what the guest logs, as long as the result is kept.
fn take_logs(prepared: &Prepared, mut log: Log) -> Result<TaskGroup, Error> {
    let listener = LogListener::bind(&prepared.guest)
        .map_err(Error::host("listen for what the guest logs"))?;
    let secret = prepared.secret.clone();
    let tasks = TaskGroup::new();
    tasks.spawn(async move {
        if let Err(error) = listener.serve(&secret, move |batch| log.take(&batch)).await {
            log::warn!("the guest's logs are lost: {error}");
        }
    });
    Ok(tasks)
}

/// Keeps crashes of the guest's programs, as long as the result is kept.
fn take_crashes(prepared: &Prepared, taker: Taker, terminal: Wanted) -> Result<TaskGroup, Error> {
    let listener = CrashListener::bind(&prepared.guest)
        .map_err(Error::host("listen for crashes in the guest"))?;
    let secret = prepared.secret.clone();
    // A terminal is the guest's, and does not begin a new line by itself.
    let end = if terminal == Wanted::Yes { "\r\n" } else { "\n" };
    let tasks = TaskGroup::new();
    tasks.spawn(async move {
        let say = move |text: &str| eprint!("vmm: {text}{end}");
        if let Err(error) = taker.serve(&listener, &secret, say).await {
            log::warn!("crashes in the guest are not kept: {error}");
        }
    });
    Ok(tasks)
}

/// What came first while a machine and its command ran.
enum Came {
    Ending(Ending),
    Error(Error),
    Down(io::Result<End>),
}

/// When it is enough.
struct Limits {
    activity: Activity,
    deadline: Option<Instant>,
    idle: Option<Duration>,
}

impl Limits {
    fn new(wishes: &Wishes) -> Self {
        Self { activity: Activity::default(), deadline: wishes.deadline, idle: wishes.idle_timeout }
    }

    /// Waits until a limit is reached, and says which.
    async fn over(&self) -> &'static str {
        let deadline = async {
            match self.deadline {
                Some(deadline) => executor::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        let idle = async {
            match self.idle {
                Some(time) => self.activity.idle_for(time).await,
                None => std::future::pending().await,
            }
        };
        match select(pin!(deadline), pin!(idle)).await {
            Either::Left(()) => "the time is over",
            Either::Right(()) => "nothing came through for too long",
        }
    }
}

async fn ending_signal(signals: &mut Listener) -> Result<i32, Error> {
    signals.ending(None, || {}).await.map_err(Error::host("read signals"))
}

async fn run_command(
    session: &Session,
    wishes: Wishes,
    activity: &Activity,
    signals: &mut Listener,
) -> Result<Ending, Error> {
    let Wishes { mut command, terminal, ports, .. } = wishes;
    let _forwards = forwards::open(session, &ports).await?;
    let raw = match terminal {
        Wanted::Yes => {
            let (rows, columns) = size().unwrap_or(ROWS_AND_COLUMNS);
            let term = std::env::var("TERM").unwrap_or_default();
            command.terminal = Some(v1::Terminal { rows, columns, term });
            RawTerminal::enter(LineFeed::AsSent).map_err(Error::host("use the terminal"))?
        }
        Wanted::No => None,
    };
    let host = streams(terminal, activity).map_err(Error::host("use the standard streams"))?;
    activity.note();
    let events = async || event(signals, raw.as_ref()).await;
    let run = agent_client::run(session, command, host, events).await?;
    Ok(Ending::Run(run))
}

fn streams(terminal: Wanted, activity: &Activity) -> io::Result<HostStreams> {
    let own = |fd: &dyn AsFd| -> io::Result<Fd> {
        Fd::new(rustix::io::fcntl_dupfd_cloexec(fd.as_fd(), 3)?)
    };
    Ok(HostStreams {
        stdin: Some(own(&io::stdin())?),
        stdout: Some(own(&io::stdout())?),
        stderr: if terminal == Wanted::Yes { None } else { Some(own(&io::stderr())?) },
        activity: activity.clone(),
    })
}

fn size() -> Option<(u32, u32)> {
    terminal::window_size().map(|size| (size.ws_row.into(), size.ws_col.into()))
}

/// The next thing that the command has to hear of.
async fn event(signals: &mut Listener, raw: Option<&RawTerminal>) -> Event {
    loop {
        match signals.next().await {
            Ok(signals::Event::End(number)) => return Event::Signal(number),
            Ok(signals::Event::Suspend) => {
                if let Some(raw) = raw {
                    raw.suspend();
                }
                let own = rustix::process::getpid();
                let _ = rustix::process::kill_process(own, rustix::process::Signal::STOP);
            }
            Ok(signals::Event::Continued) => {
                if let Some(Err(error)) = raw.map(RawTerminal::resume) {
                    log::warn!("cannot use the terminal again: {error}");
                }
            }
            Ok(signals::Event::Resized) => {
                if let (Some(_), Some((rows, columns))) = (raw, size()) {
                    return Event::Resized(rows, columns);
                }
            }
            Err(error) => {
                log::error!("cannot read signals: {error}");
                std::future::pending::<()>().await;
            }
        }
    }
}

/// The exit status of a run that came to an end here.
fn conclude(ending: Ending) -> Result<u8, Error> {
    match ending {
        Ending::Run(Run::Ended(ending)) => Ok(ending.status()),
        Ending::Run(Run::NotStarted(error)) => match (error.status(), error) {
            (Some(status), error) => {
                eprintln!("vmm: {}", terminal::cleaned(&error.to_string()));
                Ok(status)
            }
            (
                None,
                StartError::NotFound(why) | StartError::NotExecutable(why) | StartError::Other(why),
            ) => Err(Error::NotStarted(terminal::cleaned(&why))),
        },
        Ending::Signal(number) => Ok(128u8.saturating_add(number as u8)),
        Ending::TimedOut(what) => {
            eprintln!("vmm: {what}");
            Ok(status::TIMED_OUT)
        }
    }
}

/// Says how a machine ended that should not have, with what it said last.
fn explain(machine: &Machine, end: End) -> u8 {
    let mut text = match end {
        End::Down => "vmm: the guest went down before the command had ended\n".to_owned(),
        End::Panic => "vmm: the guest's kernel panicked\n".to_owned(),
        End::Failed => "vmm: the machine failed\n".to_owned(),
    };
    text += &all_tails(machine);
    eprint!("{text}");
    end.status()
}

/// The ends of all that a machine said.
fn all_tails(machine: &Machine) -> String {
    tails(&[("console", machine.console()), ("messages", machine.messages())])
}

/// The ends of what was said, each under its name; nothing of what is empty.
fn tails(streams: &[(&str, String)]) -> String {
    let mut text = String::new();
    for (name, tail) in streams {
        let lines: Vec<_> = tail.lines().collect();
        // A panic is told before its trace, which may be longer than what is shown.
        let panic = lines.iter().rposition(|line| line.contains("Kernel panic"));
        let first = lines.len().saturating_sub(TAIL_LINES);
        let lines = &lines[panic.map_or(first, |panic| panic.min(first))..];
        if !lines.is_empty() {
            let _ = writeln!(text, "--- the last of its {name}:");
            for line in lines {
                let _ = writeln!(text, "{line}");
            }
        }
    }
    text
}
