//! The machine's end of the control socket: tasks of the control loop.

use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use executor::{Either, Fd, TaskGroup, select, timeout};
use ipc::{Deadline, Reply, Sender};
use serde::{Deserialize, Serialize};

use super::events::EventHub;
use super::lines::{LONGEST_LINE, Lines, NoLine};
use super::protocol::{Answer, Frame, Hello, Refusal, Request};
use super::socket::{ControlSocket, check_peer};
use crate::serial_port::SocketFile;

/// Clients at a time. Those who watch stay; others come and go.
const MAX_CLIENTS: usize = 32;
/// How long a client may be silent before it has asked for anything more.
const IDLE: Duration = Duration::from_mins(1);
/// How long a request may take: longer than all deadlines of what it does.
const REQUEST_DEADLINE: Duration = Duration::from_mins(5);
/// How long clients may take to hear of the end.
const FAREWELL: Duration = Duration::from_millis(500);
/// How long to wait after a connection could not be taken, for example for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A request on its way to the control loop.
#[derive(Debug, Serialize, Deserialize)]
pub struct Command {
    /// What is asked.
    pub request: Request,
    /// The way back.
    pub reply: Reply<Result<Answer, Refusal>>,
}

/// Serves clients until the machine ends.
pub struct Server {
    acceptor: TaskGroup,
    clients: Rc<TaskGroup>,
    hub: Rc<EventHub>,
    file: SocketFile,
}

impl Server {
    /// Starts on the current executor.
    pub fn start(
        socket: ControlSocket,
        commands: Sender<Command>,
        hub: Rc<EventHub>,
    ) -> std::io::Result<Self> {
        let ControlSocket { listener, file } = socket;
        let listener = Fd::new(listener)?;
        let (acceptor, clients) = (TaskGroup::new(), Rc::new(TaskGroup::new()));
        acceptor.spawn(accept(listener, Rc::clone(&clients), commands, Rc::clone(&hub)));
        Ok(Self { acceptor, clients, hub, file })
    }

    /// Takes everything down and lets clients hear the last events. When their connections end,
    /// there is nothing left of the machine.
    pub async fn finish(self) {
        drop(self.file);
        self.acceptor.cancel_all().await;
        self.hub.close();
        if timeout(FAREWELL, self.clients.wait()).await.is_err() {
            self.clients.cancel_all().await;
        }
    }
}

async fn accept(
    listener: Fd,
    clients: Rc<TaskGroup>,
    commands: Sender<Command>,
    hub: Rc<EventHub>,
) {
    loop {
        let connection = match listener.accept().await.and_then(Fd::unregistered) {
            Ok(connection) => connection,
            Err(error) => {
                log::debug!("control socket: cannot take a client: {error}");
                executor::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let full = (clients.len() >= MAX_CLIENTS).then(|| {
            Refusal::new(format!("{MAX_CLIENTS} clients are connected already"))
                .hint("end one of them")
        });
        let admitted = full.map_or_else(|| check_peer(&connection), Err);
        match admitted {
            Ok(()) => clients.spawn(serve(connection, commands.clone(), Rc::clone(&hub), IDLE)),
            Err(refusal) => turn_away(&connection, &refusal),
        }
    }
}

/// Without a task, and without waiting: there may be many of them.
fn turn_away(connection: &Fd, refusal: &Refusal) {
    let frame = Frame::Error(refusal.clone());
    if let Ok(mut line) = serde_json::to_vec(&frame) {
        line.push(b'\n');
        let flags = rustix::net::SendFlags::NOSIGNAL | rustix::net::SendFlags::DONTWAIT;
        // Who does not hear it sees the end of the connection.
        let _ = rustix::net::send(connection, &line, flags);
    }
}

async fn serve(connection: Fd, commands: Sender<Command>, hub: Rc<EventHub>, idle: Duration) {
    let mut lines = Lines::new(connection);
    // The reason of its end is the client's affair.
    let _ = converse(&mut lines, &commands, &hub, idle).await;
}

async fn converse(
    lines: &mut Lines,
    commands: &Sender<Command>,
    hub: &EventHub,
    idle: Duration,
) -> Result<(), NoLine> {
    lines.send(&Hello::ours()).await?;
    loop {
        let line = select(pin!(timeout(idle, lines.next())), pin!(hub.closed())).await;
        let line = match line {
            Either::Left(Ok(Ok(line))) => line,
            Either::Left(Ok(Err(NoLine::TooLong))) => {
                let message = format!("a request has at most {LONGEST_LINE} bytes");
                return lines.send(&Frame::Error(Refusal::new(message))).await;
            }
            Either::Left(Ok(Err(NoLine::Left)) | Err(_)) | Either::Right(()) => return Ok(()),
        };
        let frame = match serde_json::from_slice(&line) {
            Ok(Request::Events) => return stream(lines, hub).await,
            Ok(request) => carry_out(request, commands).await,
            Err(error) => Frame::Error(
                Refusal::new(format!("that is no request: {error}"))
                    .hint("docs/ctl.md lists the requests"),
            ),
        };
        lines.send(&frame).await?;
    }
}

async fn carry_out(request: Request, commands: &Sender<Command>) -> Frame {
    let command = |reply| Command { request, reply };
    match commands.call(command, Deadline::after(REQUEST_DEADLINE)).await {
        Ok(Ok(answer)) => Frame::Ok(answer),
        Ok(Err(refusal)) => Frame::Error(refusal),
        Err(_) => Frame::Error(Refusal::new("the machine is ending")),
    }
}

async fn stream(lines: &mut Lines, hub: &EventHub) -> Result<(), NoLine> {
    let mut events = hub.subscribe();
    lines.send(&Frame::Ok(Answer::Done)).await?;
    loop {
        let next = select(pin!(events.next()), pin!(lines.left())).await;
        match next {
            Either::Left(Some(event)) => lines.send(&Frame::Event(event)).await?,
            Either::Left(None) => return Ok(()),
            Either::Right(()) => return Err(NoLine::Left),
        }
    }
}

#[cfg(test)]
mod tests;
