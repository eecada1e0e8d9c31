//! One command in a guest, from start to exit status.

use std::io;
use std::pin::pin;

use executor::{Either, Fd, TaskGroup, select};
use proto::v1;
use proto::v1::not_started::Reason;
use proto::v1::start_request::Stdio;

use crate::activity::Activity;
use crate::copy;
use crate::session::{CallError, Session};

/// What to run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Command {
    /// The program and its arguments.
    pub argv: Vec<Vec<u8>>,
    /// Variables of its environment.
    pub env: Vec<(Vec<u8>, Vec<u8>)>,
    /// Its working folder; empty for the user's home.
    pub cwd: Vec<u8>,
    /// Who it runs as; empty for the agent's own user.
    pub user: String,
    /// Its terminal, if it gets one.
    pub terminal: Option<v1::Terminal>,
}

/// This process's ends of the command's streams. What is None is /dev/null in the guest.
#[derive(Debug, Default)]
pub struct HostStreams {
    /// Read up to its end.
    pub stdin: Option<Fd>,
    /// Gets standard output, or all output of a terminal.
    pub stdout: Option<Fd>,
    /// Gets standard error.
    pub stderr: Option<Fd>,
    /// Notes when anything came through.
    pub activity: Activity,
}

/// Something that happens on the host while the command runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A signal for the command.
    Signal(i32),
    /// The terminal has so many rows and columns.
    Resized(u32, u32),
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With this exit status.
    Exited(u32),
    /// By this signal.
    Signaled(u32),
}

impl Ending {
    /// The exit status by which a shell says it.
    pub fn status(self) -> u8 {
        match self {
            Ending::Exited(status) => status as u8,
            Ending::Signaled(number) => 128u32.saturating_add(number).min(255) as u8,
        }
    }
}

/// What came of an attempt to run a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Run {
    /// It ran.
    Ended(Ending),
    /// It never did.
    NotStarted(StartError),
}

/// Why a command did not start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// There is no such program.
    #[error("{0}")]
    NotFound(String),
    /// It cannot be executed.
    #[error("{0}")]
    NotExecutable(String),
    /// Folder, user or something else.
    #[error("{0}")]
    Other(String),
}

impl StartError {
    /// The exit status by which a shell says it, where it does.
    pub fn status(&self) -> Option<u8> {
        match self {
            StartError::NotFound(_) => Some(127),
            StartError::NotExecutable(_) => Some(126),
            StartError::Other(_) => None,
        }
    }
}

/// Runs a command to its end, with all its output written. `events` gives what the command shall
/// hear of meanwhile; it may wait for ever.
pub async fn run(
    session: &Session,
    command: Command,
    host: HostStreams,
    mut events: impl AsyncFnMut() -> Event,
) -> Result<Run, CallError> {
    let request = request(command, &host);
    let reply = session.agent().start(request).await?.into_inner();
    let started = match reply.result.ok_or(CallError::Incomplete("a result"))? {
        v1::start_reply::Result::Started(started) => started,
        v1::start_reply::Result::NotStarted(refused) => {
            return Ok(Run::NotStarted(refusal(refused)));
        }
    };
    let activity = host.activity;
    let input = TaskGroup::new();
    let output = TaskGroup::new();
    if let Some(from) = host.stdin {
        let stream = session.open_stream(&started.stdin).await?;
        let activity = activity.clone();
        input.spawn(async move { note("input", copy::to_guest(&from, &stream, &activity).await) });
    }
    for (to, ticket) in [(host.stdout, &started.stdout), (host.stderr, &started.stderr)] {
        if let Some(to) = to.filter(|_| !ticket.is_empty()) {
            let stream = session.open_stream(ticket).await?;
            let activity = activity.clone();
            let copy = async move { copy::from_guest(&stream, &to, &activity).await };
            output.spawn(async move { note("output", copy.await) });
        }
    }
    let mut agent = session.agent();
    let mut wait = pin!(agent.wait(v1::WaitRequest { id: started.id }));
    let reply = loop {
        match select(wait.as_mut(), events()).await {
            Either::Left(reply) => break reply?.into_inner(),
            Either::Right(event) => tell(session, started.id, event).await,
        }
    };
    finish(&output, &mut events).await;
    input.cancel_all().await;
    let ending = match reply.status.ok_or(CallError::Incomplete("a status"))? {
        v1::wait_reply::Status::Exited(status) => Ending::Exited(status),
        v1::wait_reply::Status::Signaled(number) => Ending::Signaled(number),
    };
    Ok(Run::Ended(ending))
}

/// The guest closes the streams when the last byte is out. Who reads our output may not want it:
/// a signal ends the wait.
async fn finish(output: &TaskGroup, events: &mut impl AsyncFnMut() -> Event) {
    let mut written = pin!(output.wait());
    while let Either::Right(event) = select(written.as_mut(), events()).await {
        if matches!(event, Event::Signal(_)) {
            return output.cancel_all().await;
        }
    }
}

fn request(command: Command, host: &HostStreams) -> v1::StartRequest {
    let Command { argv, env, cwd, user, terminal } = command;
    let env = env.into_iter().map(|(name, value)| v1::Variable { name, value }).collect();
    let stdio = match terminal {
        Some(terminal) => Stdio::Terminal(terminal),
        None => Stdio::Pipes(v1::Pipes {
            stdin: host.stdin.is_some(),
            stdout: host.stdout.is_some(),
            stderr: host.stderr.is_some(),
        }),
    };
    v1::StartRequest { argv, env, cwd, user, stdio: Some(stdio), limits: Vec::new() }
}

fn refusal(refused: v1::NotStarted) -> StartError {
    match refused.reason() {
        Reason::NotFound => StartError::NotFound(refused.message),
        Reason::NotExecutable => StartError::NotExecutable(refused.message),
        _ => StartError::Other(refused.message),
    }
}

/// Tells the guest of an event. A command that has just ended need not hear of it.
async fn tell(session: &Session, id: u64, event: Event) {
    let mut agent = session.agent();
    let told = match event {
        Event::Signal(number) => {
            let target = v1::signal_request::Target::Group.into();
            let request = v1::SignalRequest { id, number: number as u32, target };
            agent.signal(request).await.map(drop)
        }
        Event::Resized(rows, columns) => {
            agent.resize(v1::ResizeRequest { id, rows, columns }).await.map(drop)
        }
    };
    if let Err(status) = told {
        log::debug!("the guest did not take an event: {}", status.message());
    }
}

/// A stream that breaks is the command's matter: it gets a broken pipe, or no more input.
fn note(what: &str, result: io::Result<()>) {
    if let Err(error) = result {
        log::debug!("a command's {what} ended early: {error}");
    }
}
