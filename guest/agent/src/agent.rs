//! The agent: what its connections share, and its life.
//!
//! ```text
//!   listen ──▶ tell the host that we are ready ──▶ serve ──▶ shutdown asked for ──▶ end in order
//! ```

use std::cell::Cell;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use executor::{Either, Fd, select};
use proto::credentials::Secret;
use proto::v1::shutdown_request::Mode;
use proto::{READY_PORT, v1};

use crate::files::Files;
use crate::init::{Later, Problem};
use crate::latch::Latch;
use crate::logs::{self, Logs};
use crate::options::Options;
use crate::ports::Ports;
use crate::process::{Owner, Processes, reaper};
use crate::service::{self, Session};
use crate::services;
use crate::shutdown;
use crate::signals::{Event, Signals};
use crate::streams::Streams;
use crate::transport::{Port, Transport};

/// Connections at one time. Each takes memory before it has shown the secret.
const MAX_CONNECTIONS: usize = 4096;
/// Where programs log.
const DEV_LOG: &str = "/dev/log";
/// What the last logs get to leave.
const LAST_LOGS: Duration = Duration::from_millis(300);
/// What the answer to a call for the end gets to leave: some turns of the loop.
const ANSWER: Duration = Duration::from_millis(50);
/// How long the host may take to hear that we are ready.
const READY_PATIENCE: Duration = Duration::from_secs(10);

/// What the agent is to its machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Process 1: when it ends, the machine does.
    Init,
    /// An ordinary process.
    Service,
}

impl Role {
    pub(crate) fn is_init(self) -> bool {
        self == Role::Init
    }
}

/// What all connections share.
pub(crate) struct Agent {
    pub(crate) secret: Secret,
    pub(crate) role: Role,
    pub(crate) processes: Processes,
    pub(crate) files: Files,
    pub(crate) streams: Streams,
    pub(crate) logs: Logs,
    pub(crate) ports: Ports,
    pub(crate) transport: Transport,
    pub(crate) shutdown: Latch<Mode>,
    connections: Cell<usize>,
    last_owner: Cell<u64>,
}

/// Serves until a shutdown is asked for, and ends the processes then. The host hears of a problem that
/// there was before; modules that can wait are loaded when it has.
pub(crate) async fn run(
    options: Options,
    secret: Secret,
    role: Role,
    (problem, later): (Option<Problem>, Later),
    signals: Signals,
) -> io::Result<Mode> {
    let transport = options.transport;
    let agent = Rc::new(Agent {
        secret,
        role,
        processes: Processes::default(),
        files: Files::default(),
        streams: Streams::default(),
        logs: Logs::default(),
        ports: Ports::default(),
        transport: transport.clone(),
        shutdown: Latch::new(),
        connections: Cell::new(0),
        last_owner: Cell::new(0),
    });
    let serving = Rc::clone(&agent);
    transport.listen(move |connection, port| connected(&serving, connection, port))?;
    let telling = tell_ready(transport.clone(), problem);
    executor::spawn(async move {
        telling.await;
        later.load_in_background();
    })
    .detach();
    if role.is_init()
        && let Err(error) = logs::listen(Path::new(DEV_LOG), agent.logs.clone())
    {
        log::warn!("{DEV_LOG}: {error}");
    }
    executor::spawn(logs::run(Rc::clone(&agent), transport)).detach();

    if let Some(folder) = &options.services {
        services::start(&agent, folder);
    }
    let mut signals = signals.listen()?;
    let mode = loop {
        match select(agent.shutdown.wait(), signals.next()).await {
            Either::Left(mode) => break mode,
            Either::Right(event) => match event? {
                Event::ChildEnded => drop(reaper::reap(&agent.processes)?),
                Event::PowerOff => agent.shutdown.set(Mode::PowerOff),
                Event::Reboot => agent.shutdown.set(Mode::Reboot),
            },
        }
    };
    // Who asked gets an answer before there is nobody to give it.
    executor::sleep(ANSWER).await;
    shutdown::end_processes(&agent, &mut signals).await?;
    let _ = executor::timeout(LAST_LOGS, agent.logs.flush()).await;
    Ok(mode)
}

fn connected(agent: &Rc<Agent>, connection: Fd, port: Port) {
    if agent.connections.get() >= MAX_CONNECTIONS {
        return log::warn!("a connection was refused: there are {MAX_CONNECTIONS} already");
    }
    agent.connections.set(agent.connections.get() + 1);
    let agent = Rc::clone(agent);
    executor::spawn(async move {
        match port {
            Port::Control => serve_control(&agent, connection).await,
            Port::Stream => agent.streams.connected(connection).await,
        }
        agent.connections.set(agent.connections.get() - 1);
    })
    .detach();
}

async fn serve_control(agent: &Rc<Agent>, connection: Fd) {
    let owner = Owner(agent.last_owner.get() + 1);
    agent.last_owner.set(owner.0);
    let session = Rc::new(Session { agent: Rc::clone(agent), owner });
    let served =
        rpc::serve(connection, move |request| service::dispatch(Rc::clone(&session), request));
    if let Err(error) = served.await {
        log::debug!("a control connection ended: {error}");
    }
    agent.files.abandon(owner);
    agent.ports.abandon(owner);
    agent.processes.abandon(owner).await;
}

/// A host that does not listen need not know.
async fn tell_ready(transport: Transport, problem: Option<Problem>) {
    let told = async {
        let socket =
            transport.connect_to_host(READY_PORT).await.map_err(|error| error.to_string())?;
        let channel = rpc::Channel::open(socket).await.map_err(|error| error.to_string())?;
        let origin = http::Uri::from_static("http://host");
        let mut host = v1::host_client::HostClient::with_origin(channel, origin);
        let request = v1::ReadyRequest {
            version: env!("CARGO_PKG_VERSION").into(),
            kernel: service::kernel_release(),
            capabilities: service::CAPABILITIES.map(Into::into).to_vec(),
            problem: problem.map(|problem| problem.to_string()).unwrap_or_default(),
        };
        host.ready(request).await.map_err(|status| status.to_string())
    };
    match executor::timeout(READY_PATIENCE, told).await {
        Ok(Ok(_)) => log::debug!("the host knows that the agent is ready"),
        Ok(Err(error)) => log::debug!("the host was not told that the agent is ready: {error}"),
        Err(_) => log::debug!("the host did not hear in time that the agent is ready"),
    }
}
