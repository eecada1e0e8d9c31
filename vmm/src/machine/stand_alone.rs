//! A device without a machine: for virtual machines of others, over vhost-user.
//!
//! ```text
//!   front end ──connects──► this process ──Start with the connection──► a sandboxed process
//!       ▲                   (one at a time)                                    │
//!       └────────────── messages, rings in the guest's memory ─────────────────┘
//! ```
//!
//! This process never reads what a front end sends. What connects a console, a network or a vsock to the host runs here,
//! whether there is a front end or not. A device process that dies takes the connection
//! with it; the front end connects again and gets the next one, with the record of what was in flight.

use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use devices::virtio::parts::{DeviceParts, Parts};
use devices::virtio::queue::InflightRegion;
use devices::virtio::vhost_user::VhostUserStart;
use executor::{Either, Executor, Fd, TaskGroup, select};
use ipc::Receiver;

use super::backends::{self, OpenDevice, OpenDevices};
use super::death_record::{self, Witness};
use super::{Error, shares};
use crate::config::{MachineConfig, Placement};
use crate::control::ControlSocket;
use crate::serial_port::{Bridge, Bridged};
use crate::signals::Signals;
use crate::warden::{
    ActorId, ActorKind, ActorLink, PolicySource, Spawner, Start, Warden, WardenEvent,
};

/// How long to wait after a process that was killed: whatever killed it may do so again.
const REST: Duration = Duration::from_millis(10);

/// How a front end is served.
#[derive(Debug)]
pub struct Service {
    /// A machine with one device and nothing else.
    pub device: MachineConfig,
    /// Where front ends connect.
    pub socket: PathBuf,
    /// Whether to go on when a front end has gone.
    pub lifetime: Lifetime,
}

/// How long a device serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// Until a signal ends it.
    UntilSignal,
    /// Until the first front end has gone.
    OneFrontEnd,
}

/// Serves front ends, one at a time; gives the number of the signal that ended it, if one did. Call it
/// with one thread.
pub fn serve(service: &Service) -> Result<Option<i32>, Error> {
    let consoles = &service.device.consoles;
    if consoles.iter().any(|port| port.name.is_some())
        && consoles.iter().any(|port| port.name.is_none())
    {
        return Err(Error::TwoConsoles);
    }
    let warden = match service.device.placement {
        Placement::SingleProcess => {
            // A disk is read by mapping.
            devices::memory::survive_bus_errors().map_err(Error::host("handle bus errors"))?;
            None
        }
        Placement::Processes => {
            Some(Warden::fork(&PolicySource::default(), shares::users(&service.device.shares))?)
        }
    };
    let signals = Signals::block().map_err(Error::host("take over the signals"))?;
    let mut open = backends::open(&service.device)?;
    let bridges = open.take_bridges();
    let socket = ControlSocket::bind(&service.socket)?;
    let mut executor = Executor::new(&executor::Config::default())?;
    let parts = open.keep().map_err(Error::host("duplicate a device's files"))?;
    executor.block_on(async {
        let mut signals = signals.listen().map_err(Error::host("listen to signals"))?;
        let bridges = bridges.into_iter().map(Bridge::connect).collect::<Result<Vec<_>, _>>();
        let bridges = bridges.map_err(Error::ConsoleEnd)?;
        let terminal = bridges.iter().find_map(Bridged::terminal);
        let ended = {
            let work = serve_all(service.lifetime, open, &socket, warden);
            select(pin!(work), pin!(signals.ending(terminal.as_deref(), || {}))).await
        };
        // Its processes are dead, and their rings may hold files a while longer.
        for parts in parts {
            parts.release();
        }
        for bridge in bridges {
            bridge.finish().await;
        }
        match ended {
            Either::Left(outcome) => outcome.map(|()| None),
            Either::Right(signal) => signal.map(Some).map_err(Error::host("read signals")),
        }
    })
}

async fn serve_all(
    lifetime: Lifetime,
    open: OpenDevices,
    socket: &ControlSocket,
    warden: Option<(Warden, Receiver<WardenEvent>)>,
) -> Result<(), Error> {
    let helpers = TaskGroup::new();
    let Some(OpenDevice { name, parts }) = open.only_device(&helpers) else { return Ok(()) };
    let listener = socket.try_clone_listener().and_then(Fd::new);
    let listener = listener.map_err(Error::host("listen for front ends"))?;
    let mut place = match warden {
        Some((warden, events)) => {
            helpers.spawn(warden.link().drive());
            Place::Processes(Processes { name: name.clone(), warden, events, next: 0 })
        }
        None => Place::Here,
    };
    log::info!("{name}: waits for a front end");
    loop {
        let connection = listener.accept().await.map_err(Error::host("take a connection"))?;
        log::info!("{name}: a front end came");
        let doing = "hand a device to its process";
        let (queues, size) = parts.profile().inflight_size();
        let inflight = InflightRegion::create(queues, size)?;
        let start = VhostUserStart {
            device: parts.try_clone().map_err(Error::host(doing))?,
            inflight: inflight.file().try_clone_to_owned().map_err(Error::host(doing))?.into(),
            connection: connection.into(),
        };
        match &mut place {
            Place::Processes(processes) => processes.serve(start).await?,
            Place::Here => {
                if let Err(reason) = start.run().await {
                    log::warn!("{name}: {reason}");
                }
            }
        }
        log::info!("{name}: the front end has gone");
        if lifetime == Lifetime::OneFrontEnd {
            return Ok(());
        }
    }
}

/// Where a front end is served.
enum Place {
    Here,
    Processes(Processes),
}

/// Sandboxed processes, one after the other.
struct Processes {
    name: String,
    warden: Warden,
    events: Receiver<WardenEvent>,
    next: u64,
}

impl Processes {
    /// Serves one front end in a process of its own. An error means that there will be no other.
    async fn serve(&mut self, start: VhostUserStart) -> Result<(), Error> {
        let id = ActorId(self.next);
        self.next += 1;
        let actor = spawn(self.warden.spawner(), id, &start.device).await?;
        let ActorLink { link, sender, log } = actor;
        let tasks = TaskGroup::new();
        let witness = Witness::new(&self.name, death_record::tap(), log);
        tasks.spawn(witness.clone().listen());
        tasks.spawn(async move { link.drive().await });
        sender
            .try_send(Start::VhostUser(Box::new(start)))
            .map_err(|error| std::io::Error::other(error.to_string()))
            .map_err(Error::host("hand a device to its process"))?;
        loop {
            match self.events.recv().await {
                Ok(WardenEvent::Died { id: dead, death }) if dead == id => {
                    let record = witness.record(&death);
                    if !death.is_orderly() {
                        log::warn!("{}: {record}", self.name);
                        executor::sleep(REST).await;
                    }
                    return Ok(());
                }
                Ok(WardenEvent::Started { pid, .. }) => {
                    log::info!("{}: served by process {pid}", self.name);
                }
                Ok(WardenEvent::Failed { reason, .. } | WardenEvent::Unusable { reason }) => {
                    return Err(Error::Sandbox(reason));
                }
                Ok(WardenEvent::Died { .. }) => {}
                Err(_) => return Err(Error::WardenDied),
            }
        }
    }
}

async fn spawn(spawner: &Spawner, id: ActorId, device: &DeviceParts) -> Result<ActorLink, Error> {
    let kind = ActorKind::of(device).ok_or(Error::NeverBegan)?;
    Ok(spawner.spawn(id, kind, shares::device_privileges(device)).await?)
}
