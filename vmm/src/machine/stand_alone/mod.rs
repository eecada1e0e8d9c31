//! Devices without a machine: for virtual machines of others, over vhost-user.
//!
//! ```text
//!   front end ──connects──► this process ──Start with the connection──► a sandboxed process
//!       ▲                   (one at a time                                     │
//!       │                   for each device)                                   │
//!       └────────────── messages, rings in the guest's memory ─────────────────┘
//! ```
//!
//! This process never reads what a front end sends. What connects a console, a network or a vsock to the host runs here,
//! whether there is a front end or not. A device process that dies takes the connections
//! with it; the front ends connect again and get the next one, with the record of what was in flight.
//!
//! Devices may share a process ([`Grouping`]), where each is an actor on a thread of its own.

mod announcement;
mod crew;

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use devices::virtio::parts::{DeviceParts, Parts};
use devices::virtio::queue::InflightRegion;
use devices::virtio::vhost_user::VhostUserStart;
use executor::{Either, Executor, Fd, TaskGroup, select};
use ipc::Receiver;

use self::announcement::Announcement;
use self::crew::{Crew, End, Member};
use super::backends::{self, OpenDevice, OpenDevices};
use super::workplace::Workplace;
use super::{Error, shares};
use crate::config::{CpuList, MachineConfig, Placement};
use crate::control::ControlSocket;
use crate::serial_port::{Bridge, Bridged};
use crate::signals::Signals;
use crate::warden::{Actor, ActorKind, MAX_ACTORS, PolicySource, Served, Warden, WardenEvent};

/// How long to wait after a process that was killed: whatever killed it may do so again.
const REST: Duration = Duration::from_millis(10);

/// How front ends are served.
#[derive(Debug)]
pub struct Service {
    /// What is served.
    pub devices: Vec<ServedDevice>,
    /// Whether to go on when front ends have gone.
    pub lifetime: Lifetime,
    /// Whether devices run in sandboxed processes.
    pub placement: Placement,
    /// Which of them share one.
    pub grouping: Grouping,
}

impl Service {
    /// The most devices: they may share a process.
    pub const MAX_DEVICES: usize = MAX_ACTORS;
}

/// A device, and where it is served.
#[derive(Debug)]
pub struct ServedDevice {
    /// A machine with one device and nothing else.
    pub device: MachineConfig,
    /// Where front ends connect.
    pub socket: PathBuf,
    /// Processors of the host, unless the device's own option says; None is any.
    pub cpus: Option<CpuList>,
}

/// How long devices serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// Until a signal ends it.
    UntilSignal,
    /// Each until its first front end has gone.
    OneFrontEnd,
}

/// Which devices share a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grouping {
    /// All of them.
    Together,
    /// None.
    Apart,
}

/// Serves front ends, of each device one at a time; gives the number of the signal that ended it, if one did. Call it
/// with one thread.
pub fn serve(service: &Service) -> Result<Option<i32>, Error> {
    let devices = &service.devices;
    for served in devices {
        check_consoles(served).map_err(|error| of_device(error, served, devices.len()))?;
    }
    let warden = match service.placement {
        Placement::SingleProcess => {
            // A disk is read by mapping.
            devices::memory::survive_bus_errors().map_err(Error::host("handle bus errors"))?;
            None
        }
        Placement::Processes => {
            let shares = devices.iter().flat_map(|served| served.device.shares.clone());
            let users = shares::users(&shares.collect::<Vec<_>>());
            Some(Warden::fork(&PolicySource::default(), users)?)
        }
    };
    let signals = Signals::block().map_err(Error::host("take over the signals"))?;
    let mut bridges = Vec::new();
    let mut open = Vec::new();
    for served in devices {
        let made = open_device(served, &mut bridges);
        open.push(made.map_err(|error| of_device(error, served, devices.len()))?);
    }
    let mut executor = Executor::new(&executor::Config::default())?;
    let parts = open.iter().map(|device| device.open.keep()).collect::<Result<Vec<_>, _>>();
    let parts = parts.map_err(Error::host("duplicate a device's files"))?;
    executor.block_on(async {
        let mut signals = signals.listen().map_err(Error::host("listen to signals"))?;
        let bridges = bridges.into_iter().map(Bridge::connect).collect::<Result<Vec<_>, _>>();
        let bridges = bridges.map_err(Error::ConsoleEnd)?;
        let terminal = bridges.iter().find_map(Bridged::terminal);
        let ended = {
            let work = serve_all(service, open, warden);
            select(pin!(work), pin!(signals.ending(terminal.as_deref(), || {}))).await
        };
        // Its processes are dead, and their rings may hold files a while longer.
        for parts in parts.into_iter().flatten() {
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

/// Says which device an error is about, where there are several.
fn of_device(error: Error, served: &ServedDevice, count: usize) -> Error {
    match count {
        1 => error,
        _ => Error::Served { socket: served.socket.clone(), source: Box::new(error) },
    }
}

fn check_consoles(served: &ServedDevice) -> Result<(), Error> {
    let consoles = &served.device.consoles;
    let named = consoles.iter().filter(|port| port.name.is_some()).count();
    if named > 0 && named < consoles.len() { Err(Error::TwoConsoles) } else { Ok(()) }
}

/// A device whose socket is there.
struct Listening {
    open: OpenDevices,
    socket: ControlSocket,
    path: PathBuf,
    cpus: Option<CpuList>,
}

fn open_device(served: &ServedDevice, bridges: &mut Vec<Bridge>) -> Result<Listening, Error> {
    let mut open = backends::open(&served.device)?;
    bridges.extend(open.take_bridges());
    let socket = ControlSocket::bind(&served.socket)?;
    let (path, cpus) = (served.socket.clone(), served.cpus.clone());
    Ok(Listening { open, socket, path, cpus })
}

async fn serve_all(
    service: &Service,
    listening: Vec<Listening>,
    warden: Option<(Warden, Receiver<WardenEvent>)>,
) -> Result<(), Error> {
    let (helpers, desks) = (TaskGroup::new(), TaskGroup::new());
    let several = listening.len() > 1;
    let mut waiting = Vec::new();
    for Listening { open, socket, path, cpus: others } in listening {
        let Some(device) = open.only_device(&helpers) else { continue };
        let device = if others.is_some() { device.on(others.as_ref()) } else { device };
        let OpenDevice { name, parts, cpus } = device;
        let name = if several { format!("{name} at {}", path.display()) } else { name };
        waiting.push((name, parts, cpus, socket));
    }
    let members = waiting.iter().map(|(name, parts, cpus, _)| {
        let kind = ActorKind::of(parts).ok_or(Error::NeverBegan)?;
        let (privileges, executor) = (shares::device_privileges(parts), parts.executor_needs());
        let (cpus, threads) = (cpus.clone(), parts.threads());
        let actor = Actor { kind, privileges, cpus, threads, executor };
        Ok(Member { name: name.clone(), actor })
    });
    let members = members.collect::<Result<Vec<_>, Error>>()?;
    let mut places = Vec::new();
    // Ends last, with all processes.
    let (_warden, events) = match warden {
        None => {
            // This thread has other things to do than what a device does on its processors, and a ring like others.
            let is_plain = |(_, parts, cpus, _): &(_, DeviceParts, Vec<u16>, _)| {
                Workplace::of(parts, cpus.clone()).is_plain()
            };
            let is_here = !several && waiting.iter().all(is_plain);
            let place = || if is_here { Place::Here } else { Place::Thread };
            places.extend(members.iter().map(|_| place()));
            (None, None)
        }
        Some((warden, events)) => {
            helpers.spawn(warden.link().drive());
            let next_id = Rc::new(Cell::new(0));
            let groups = match service.grouping {
                Grouping::Together => vec![members],
                Grouping::Apart => members.into_iter().map(|member| vec![member]).collect(),
            };
            let mut crews = Vec::new();
            for members in groups {
                let count = members.len();
                let crew = Crew::new(members, warden.spawner().clone(), Rc::clone(&next_id));
                let crew = Rc::new(crew);
                places.extend((0..count).map(|member| Place::Crew(Rc::clone(&crew), member)));
                crews.push(crew);
            }
            (Some(warden), Some((events, crews)))
        }
    };
    let failure = Rc::new(Failure::default());
    if let Some((events, crews)) = events {
        let failure = Rc::clone(&failure);
        helpers.spawn(async move { failure.make(crew::listen(events, crews).await) });
    }
    for ((name, parts, cpus, socket), place) in waiting.into_iter().zip(places) {
        let (failure, lifetime) = (Rc::clone(&failure), service.lifetime);
        desks.spawn(async move {
            let desk = Desk { name, parts, cpus, place };
            if let Err(error) = desk.serve(lifetime, socket).await {
                failure.make(error);
            }
        });
    }
    match select(pin!(desks.wait()), pin!(failure.wait())).await {
        Either::Left(()) => failure.take().map_or(Ok(()), Err),
        Either::Right(error) => Err(error),
    }
}

/// What ends the service early.
#[derive(Default)]
struct Failure {
    happened: Announcement<()>,
    error: RefCell<Option<Error>>,
}

impl Failure {
    /// The first one counts.
    fn make(&self, error: Error) {
        self.error.borrow_mut().get_or_insert(error);
        self.happened.make(());
    }

    fn take(&self) -> Option<Error> {
        self.error.take()
    }

    async fn wait(&self) -> Error {
        self.happened.wait().await;
        // Only one waits.
        self.take().unwrap_or(Error::NeverBegan)
    }
}

/// Where a front end is served.
enum Place {
    /// On this thread.
    Here,
    /// On a thread of its own.
    Thread,
    /// In the process of a crew, of which the device is this member.
    Crew(Rc<Crew>, usize),
}

/// A device that front ends come to.
struct Desk {
    name: String,
    parts: DeviceParts,
    cpus: Vec<u16>,
    place: Place,
}

impl Desk {
    async fn serve(&self, lifetime: Lifetime, socket: ControlSocket) -> Result<(), Error> {
        let name = &self.name;
        let listener = socket.try_clone_listener().and_then(Fd::new);
        let listener = listener.map_err(Error::host("listen for front ends"))?;
        log::info!("{name}: waits for a front end");
        loop {
            let connection = listener.accept().await.map_err(Error::host("take a connection"))?;
            log::info!("{name}: a front end came");
            let doing = "hand a device to its process";
            let (queues, size) = self.parts.profile().inflight_size();
            let inflight = InflightRegion::create(queues, size)?;
            let start = VhostUserStart {
                device: self.parts.try_clone().map_err(Error::host(doing))?,
                inflight: inflight.file().try_clone_to_owned().map_err(Error::host(doing))?.into(),
                connection: connection.into(),
            };
            match self.serve_front_end(start).await? {
                End::Gone(Ok(())) => {}
                End::Gone(Err(reason)) => log::warn!("{name}: {reason}"),
                End::Died(death) if death.is_orderly() => {}
                End::Died(_) => executor::sleep(REST).await,
            }
            log::info!("{name}: the front end has gone");
            if lifetime == Lifetime::OneFrontEnd {
                return Ok(());
            }
        }
    }

    async fn serve_front_end(&self, start: VhostUserStart) -> Result<End, Error> {
        match &self.place {
            Place::Here => Ok(End::Gone(start.run().await)),
            Place::Thread => serve_on_thread(start, &self.cpus).await.map(End::Gone),
            Place::Crew(crew, member) => crew.serve(*member, start).await,
        }
    }
}

async fn serve_on_thread(start: VhostUserStart, cpus: &[u16]) -> Result<Served, Error> {
    let (sender, mut served) = ipc::channel(1);
    let kind = ActorKind::of(&start.device).map_or("device", ActorKind::name);
    let place = Workplace::of(&start.device, cpus.to_vec());
    let work = move || {
        let outcome = place.run(|helpers| start.run_with(helpers)).and_then(|served| served);
        // Nobody listens when the service has ended.
        let _ = sender.try_send(outcome);
    };
    let thread = std::thread::Builder::new().name(kind.into()).spawn(work);
    thread.map_err(Error::host("start a thread for a device"))?;
    Ok(served.recv().await.unwrap_or_else(|_| Err("the thread of the device panicked".into())))
}
