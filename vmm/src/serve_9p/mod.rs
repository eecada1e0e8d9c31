//! `vmm serve-9p`: a directory of this host for clients on sockets.
//!
//! ```text
//!   vmm ──fork──► warden ──clone──► a process that has the directory and the socket, and nothing else
//!    │  waits: a signal, or its death, after which a listening socket gets another
//! ```

mod clients;
mod error;
mod vsock;

use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::pin::pin;

use executor::{Either, Executor, TaskGroup, select};
use fileserver::{Access, Ids};
use ipc::Receiver;
use p9::{Acl, MOST_MSIZE};

pub use self::clients::ClientsStart;
use self::clients::{ClientsOptions, Socket};
pub use self::error::Error;
use crate::config::RestartLimit;
use crate::control::ControlSocket;
use crate::machine::lives::{Life, Lives, Verdict};
use crate::machine::shares;
use crate::outcome;
use crate::signals::Signals;
use crate::warden::{
    Actor, ActorId, ActorKind, ActorLink, Death, Flow, LogPipe, PolicySource, Privileges, REST,
    Start, Users, Warden, WardenEvent,
};

/// What the process is called in the log.
const NAME: &str = "9p";

/// Where clients come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// They connect to a Unix socket of this path.
    Path(PathBuf),
    /// A guest with this context id connects to a port of this host's vsock.
    Vsock {
        /// The port.
        port: u32,
        /// The guest's context id.
        cid: u32,
    },
    /// A descriptor that this process was started with: a socket that listens, or one client.
    Descriptor(RawFd),
}

/// What is served, and to whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The directory.
    pub root: PathBuf,
    /// What clients may do.
    pub access: Access,
    /// Whether clients get at access control lists.
    pub acl: Acl,
    /// The longest message that is agreed to.
    pub msize: u32,
    /// Whose files are whose.
    pub ids: Ids,
    /// Where clients come from.
    pub listen: Listen,
}

impl Config {
    /// The longest message that can be agreed to.
    pub const MOST_MSIZE: u32 = MOST_MSIZE;

    fn users(&self) -> Users {
        match shares::privileges(&self.ids) {
            Privileges::None => Users::One,
            Privileges::Owners => Users::All,
        }
    }
}

/// Serves until a signal or the end of the only client, and gives the exit status.
pub fn run(config: &Config) -> Result<u8, Error> {
    // First, while there is one thread and nothing is open.
    let warden = Warden::fork(&PolicySource::default(), config.users())?;
    let signals = Signals::block().map_err(Error::host("take over the signals"))?;
    let directory = shares::open_directory(&config.root, config.access)
        .map_err(|source| Error::Root { path: config.root.clone(), source })?;
    let (socket, file) = open_socket(&config.listen)?;
    let options = ClientsOptions {
        access: config.access,
        acl: config.acl,
        msize: config.msize,
        ids: config.ids.clone(),
    };
    let doing = "run an event loop";
    let mut executor =
        Executor::new(&executor::Config::default()).map_err(Error::executor(doing))?;
    let status = executor.block_on(async {
        let mut signals = signals.listen().map_err(Error::host("listen to signals"))?;
        let mut keeper = Keeper::new(warden, Served { directory, socket, options });
        let end = pin!(signals.ending(None, || {}));
        let serve = pin!(keeper.serve());
        match select(end, serve).await {
            Either::Left(Ok(number)) => Ok(outcome::Outcome::Signal(number).exit_code()),
            Either::Left(Err(error)) => Err(Error::host("listen to signals")(error)),
            Either::Right(ended) => ended.map(|()| 0),
        }
    });
    drop(file);
    status
}

/// The socket, and what removes its file.
fn open_socket(listen: &Listen) -> Result<(Socket, Option<ControlSocket>), Error> {
    match listen {
        Listen::Path(path) => {
            let bound = ControlSocket::bind(path).map_err(Error::Socket)?;
            let doing = "duplicate a socket";
            let listener = bound.try_clone_listener().map_err(Error::host(doing))?;
            Ok((Socket::Listener(listener.into()), Some(bound)))
        }
        Listen::Vsock { port, cid } => {
            let listener =
                vsock::listen(*port).map_err(|source| Error::Vsock { port: *port, source })?;
            Ok((Socket::Guest(listener.into(), *cid), None))
        }
        Listen::Descriptor(number) => {
            let not = |errno: rustix::io::Errno| Error::NotSocket {
                descriptor: *number,
                source: errno.into(),
            };
            if *number < 0 {
                return Err(not(rustix::io::Errno::BADF));
            }
            // SAFETY: only duplicated, in one call, which fails on what is not open.
            let borrowed = unsafe { BorrowedFd::borrow_raw(*number) };
            let descriptor = rustix::io::fcntl_dupfd_cloexec(borrowed, 0).map_err(not)?;
            let listens = rustix::net::sockopt::socket_acceptconn(&descriptor).map_err(not)?;
            let descriptor = descriptor.into();
            let socket =
                if listens { Socket::Listener(descriptor) } else { Socket::Client(descriptor) };
            Ok((socket, None))
        }
    }
}

/// What a process gets.
struct Served {
    directory: OwnedFd,
    socket: Socket,
    options: ClientsOptions,
}

/// Keeps a process alive that serves.
struct Keeper {
    warden: Warden,
    events: Receiver<WardenEvent>,
    served: Served,
    tasks: TaskGroup,
}

impl Keeper {
    fn new((warden, events): (Warden, Receiver<WardenEvent>), served: Served) -> Self {
        let tasks = TaskGroup::new();
        tasks.spawn(warden.link().drive());
        Self { warden, events, served, tasks }
    }

    /// Serves until the only client has gone; of a listening socket for ever.
    async fn serve(&mut self) -> Result<(), Error> {
        let mut lives = Lives::new(RestartLimit::Always, executor::now());
        let mut id = 0;
        loop {
            let death = self.live(ActorId(id)).await?;
            if matches!(self.served.socket, Socket::Client(_)) {
                return if death.is_orderly() {
                    Ok(())
                } else {
                    Err(Error::Died(death.to_string()))
                };
            }
            log::warn!("{NAME}: process {} ended: {death}; its clients are cut off", death.pid);
            match lives.died(executor::now(), Life::Other) {
                Verdict::Restart { after } => executor::sleep(after).await,
                Verdict::GiveUp => return Err(Error::Died(death.to_string())),
            }
            lives.reborn(executor::now());
            id += 1;
        }
    }

    /// The whole life of one process.
    async fn live(&mut self, id: ActorId) -> Result<Death, Error> {
        let privileges = shares::privileges(&self.served.options.ids);
        let actor = Actor { privileges, ..Actor::plain(ActorKind::P9) };
        let ActorLink { link, sender, log, .. } = self.warden.spawner().spawn(id, actor).await?;
        let start = self.served.start().map_err(Error::host("duplicate descriptors"))?;
        sender.send(Start::Clients(Box::new(start))).await.map_err(Error::Start)?;
        self.tasks.spawn(link.drive());
        self.tasks.spawn(listen(log));
        loop {
            match self.events.recv().await {
                Ok(WardenEvent::Started { pid, .. }) => {
                    log::info!("{NAME}: served by process {pid}");
                }
                Ok(WardenEvent::Died { death, .. }) => return Ok(death),
                Ok(WardenEvent::Failed { reason, .. } | WardenEvent::Unusable { reason }) => {
                    return Err(Error::Sandbox(reason));
                }
                Err(_) => return Err(Error::WardenDied),
            }
        }
    }
}

impl Served {
    fn start(&self) -> std::io::Result<ClientsStart> {
        Ok(ClientsStart {
            directory: self.directory.try_clone()?.into(),
            socket: self.socket.try_clone()?,
            options: self.options.clone(),
        })
    }
}

/// Passes on what a process logs, a little at a time.
async fn listen(mut log: LogPipe) {
    use std::os::fd::AsFd;
    let end = rustix::io::fcntl_dupfd_cloexec(log.as_fd(), 0).map(executor::Fd::new);
    let Ok(Ok(end)) = end else { return };
    while end.poll(executor::PollFlags::IN).await.is_ok() {
        if log.pass_on(NAME) == Flow::Ended {
            return;
        }
        executor::sleep(REST).await;
    }
}
