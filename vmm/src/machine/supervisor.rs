//! Keeps the back ends in their processes alive: watches, buries, replaces, gives up.
//!
//! ```text
//!   warden ──Died──► supervisor ──Spawn──► warden ──clone──► successor
//!                        │                                      ▲
//!                        ├── Start: the disk, memory, in-flight record, channels ──┘
//!                        └── a thread: transport.replace_backend ──Activate──► successor
//! ```
//!
//! The supervisor never waits for what it supervises: it sends, and reads events. The one call that
//! waits for answers of a successor runs on a thread of its own.

use std::collections::HashMap;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use devices::memory::GuestMemory;
use devices::virtio::backend::{BackendEvent, BackendRequest};
use devices::virtio::control::ControlRequest;
use devices::virtio::metrics::MetricsRegion;
use devices::virtio::parts::{Parts, VirtioStart};
use devices::virtio::pci::VirtioPciDevice;
use devices::virtio::queue::InflightRegion;
use devices::virtio::syncs::SyncWitness;
use executor::{Either, Instant, TaskGroup, select};
use ipc::link::Link;
use ipc::{CallError, Deadline, Receiver, Sender, Tap};

use super::Error;
use super::backends::{CONTROL_CAPACITY, EVENT_CAPACITY, REQUEST_CAPACITY};
use super::control::pump_back_end;
use super::death_record::{self, DeathRecord, Witness};
use super::directory::{Device, Directory, SharedParts};
use super::lives::{Life, Lives, Verdict};
use super::shares;
use super::tracing::Tracer;
use super::vcpu::AddressSpaces;
use crate::config::RestartLimit;
use crate::error::Report;
use crate::warden::{
    Actor, ActorId, ActorKind, ActorLink, Death, LogPipe, Spawner, Start, Warden, WardenEvent,
};
use trace::Ring;

/// How often a back end is asked whether it still answers.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);
/// How long it may take to answer: as long as a vCPU waits for it.
const HEARTBEAT_DEADLINE: Duration = Duration::from_secs(5);
/// How long back ends may take to end in good order with their machine.
const FAREWELL: Duration = Duration::from_secs(5);

/// What a back end is made of, kept to make it again.
#[derive(Debug)]
pub(super) struct Blueprint {
    pub(super) kind: ActorKind,
    /// Processors of the host; empty for any.
    pub(super) cpus: Vec<u16>,
    pub(super) name: String,
    pub(super) parts: SharedParts,
    pub(super) inflight: InflightRegion,
    pub(super) witness: Option<SyncWitness>,
    pub(super) metrics: MetricsRegion,
    pub(super) memory: GuestMemory,
    /// What the device is called in a trace.
    pub(super) actor: String,
    pub(super) trace: Option<Ring>,
    pub(super) tracer: Tracer,
}

/// A back end in a process.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) id: ActorId,
    link: Link,
    pub(super) requests: Sender<BackendRequest>,
    /// The same, for questions that are not worth a record.
    heartbeats: Sender<BackendRequest>,
    controls: Sender<ControlRequest>,
    events: Receiver<BackendEvent>,
    tap: Tap,
    log: LogPipe,
}

impl Blueprint {
    /// Starts the first process, from a thread without an executor.
    pub(super) fn start(&self, id: ActorId, spawner: &Spawner) -> Result<Process, Error> {
        self.send_off(id, spawner.spawn_blocking(id, self.as_actor())?)
    }

    /// How many requests all its processes have finished.
    fn requests(&self) -> u64 {
        let queues = self.metrics.read();
        queues.iter().fold(0, |sum, queue| sum.wrapping_add(queue.requests))
    }

    fn as_actor(&self) -> Actor {
        let parts = self.parts.lock();
        let (privileges, executor) = (shares::device_privileges(&parts), parts.executor_needs());
        let (cpus, threads) = (self.cpus.clone(), parts.threads());
        Actor { kind: self.kind, privileges, cpus, threads, executor }
    }

    /// Sends a process what it works on. It need not run yet.
    fn send_off(&self, id: ActorId, actor: ActorLink) -> Result<Process, Error> {
        let doing = "hand a device to its process";
        let (heartbeats, request_receiver) = ipc::channel(REQUEST_CAPACITY);
        let (controls, control_receiver) = ipc::channel(CONTROL_CAPACITY);
        let (event_sender, events) = ipc::channel(EVENT_CAPACITY);
        // Control traffic only: what a guest reads and writes goes through none of these.
        let tap = death_record::traced_tap(&self.tracer, &self.actor);
        let requests = heartbeats.clone().tapped(&tap, "request");
        let controls = controls.tapped(&tap, "control");
        let events = events.tapped(&tap, "event");
        let inflight = self.inflight.file().try_clone_to_owned().map_err(Error::host(doing))?;
        let metrics = self.metrics.file().try_clone_to_owned().map_err(Error::host(doing))?;
        let trace = self.trace.as_ref().map(|ring| ring.file().try_clone_to_owned()).transpose();
        let start = VirtioStart {
            trace: trace.map_err(Error::host(doing))?.map(Into::into),
            device: self.parts.lock().try_clone().map_err(Error::host(doing))?,
            memory: self.memory.layout().map_err(super::RamError::from)?,
            inflight: inflight.into(),
            metrics: metrics.into(),
            requests: request_receiver,
            controls: control_receiver,
            events: event_sender,
        };
        actor.sender.try_send(Start::Virtio(Box::new(start))).map_err(|_| Error::NeverBegan)?;
        let ActorLink { link, log, .. } = actor;
        Ok(Process { id, link, requests, heartbeats, controls, events, tap, log })
    }
}

/// A device with its process, as the machine hands it over.
#[derive(Debug)]
pub(super) struct Ward {
    pub(super) blueprint: Blueprint,
    pub(super) transport: Arc<VirtioPciDevice>,
    pub(super) process: Process,
}

/// One device under supervision.
struct Charge {
    blueprint: Arc<Blueprint>,
    transport: Arc<VirtioPciDevice>,
    lives: Lives,
    /// Requests that were finished before the process that serves it now, or did last.
    inherited: u64,
    device: Rc<Device>,
    /// Of the process that serves it now, or did last.
    witness: Option<Witness>,
}

impl Charge {
    /// What the life was good for that has just ended.
    fn judge(&self, death: &Death) -> Life {
        let is_fruitless = death.is_own_doing() && self.blueprint.requests() == self.inherited;
        if is_fruitless { Life::Fruitless } else { Life::Other }
    }

    /// The device stays without a back end, and its driver is told.
    fn give_up(self, reason: &str) {
        self.device.given_up(reason);
        self.blueprint.inflight.clear();
        let (transport, reason) = (self.transport, reason.to_owned());
        // A vCPU may wait there for the dead process, and it is this thread that tells it.
        let work = {
            let (transport, reason) = (Arc::clone(&transport), reason.clone());
            move || transport.give_up(reason)
        };
        if std::thread::Builder::new().name("give-up".into()).spawn(work).is_err() {
            transport.give_up(reason);
        }
    }
}

/// Waits until the first of those that wait is due; for ever when none waits.
async fn next_due(mourned: &[(Instant, Charge)]) {
    match mourned.iter().map(|(at, _)| *at).min() {
        Some(at) => executor::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Supervises all devices of a machine.
pub(super) struct Supervisor {
    warden: Warden,
    events: Receiver<WardenEvent>,
    charges: HashMap<ActorId, Charge>,
    /// Those whose process is dead, and when they get the next one.
    mourned: Vec<(Instant, Charge)>,
    next_id: u64,
    /// What runs beside the loop for the devices; it holds ends of their channels.
    tasks: TaskGroup,
    /// What carries the warden's events.
    carrier: TaskGroup,
}

impl Supervisor {
    /// Takes over devices whose processes have been started.
    pub(super) fn new(
        (warden, events): (Warden, Receiver<WardenEvent>),
        wards: Vec<Ward>,
        limit: RestartLimit,
        directory: &Directory,
    ) -> Self {
        let (tasks, carrier) = (TaskGroup::new(), TaskGroup::new());
        carrier.spawn(warden.link().drive());
        let (charges, next_id) = (HashMap::new(), wards.len() as u64);
        let mourned = Vec::new();
        let mut supervisor = Self { warden, events, charges, mourned, next_id, tasks, carrier };
        // In the same order: with a warden each device has a process.
        for (ward, device) in wards.into_iter().zip(&directory.devices) {
            let Ward { blueprint, transport, process } = ward;
            let lives = Lives::new(limit, executor::now());
            let device = Rc::clone(device);
            let blueprint = Arc::new(blueprint);
            let (inherited, witness) = (0, None);
            let charge = Charge { blueprint, transport, lives, inherited, device, witness };
            supervisor.attend(charge, process);
        }
        supervisor
    }

    /// Runs what a living process needs beside it, and watches it from now on.
    fn attend(&mut self, mut charge: Charge, process: Process) {
        let Process { id, link, heartbeats, controls, events, tap, log, .. } = process;
        let witness = Witness::new(&charge.blueprint.name, tap, log);
        self.tasks.spawn(witness.clone().listen());
        charge.witness = Some(witness);
        charge.inherited = charge.blueprint.requests();
        charge.device.attended(controls, charge.lives.restarts());
        self.tasks.spawn(async move { link.drive().await });
        self.tasks.spawn(pump_back_end(Arc::clone(&charge.transport), events));
        self.tasks.spawn(heartbeat(id, heartbeats, self.warden.spawner().clone()));
        self.charges.insert(id, charge);
    }

    /// Takes the events that are there; an error ends the machine.
    pub(super) fn catch_up(&mut self) -> Result<(), Error> {
        while let Ok(event) = self.events.try_recv() {
            if let Some(error) = self.act_on(event) {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Supervises until it cannot: the error says why not.
    pub(super) async fn run(&mut self) -> Error {
        loop {
            let due = next_due(&self.mourned);
            let next = select(pin!(self.events.recv()), pin!(due)).await;
            match next {
                Either::Left(Ok(event)) => {
                    if let Some(error) = self.act_on(event) {
                        return error;
                    }
                }
                Either::Left(Err(_)) => return Error::WardenDied,
                Either::Right(()) => {}
            }
            self.replace_due().await;
        }
    }

    /// Takes an event; an error ends the machine.
    fn act_on(&mut self, event: WardenEvent) -> Option<Error> {
        match event {
            WardenEvent::Started { id, pid } => {
                if let Some(charge) = self.charges.get(&id) {
                    charge.device.started(pid);
                    log::info!("{}: served by process {pid}", charge.blueprint.name);
                }
            }
            WardenEvent::Died { id, death } => self.bury(id, &death),
            WardenEvent::Failed { id, reason } => match self.charges.remove(&id) {
                // What runs goes on without this device.
                Some(charge) if charge.lives.restarts() > 0 => charge.give_up(&reason),
                _ => return Some(Error::Sandbox(reason)),
            },
            WardenEvent::Unusable { reason } => return Some(Error::Sandbox(reason)),
        }
        None
    }

    fn bury(&mut self, id: ActorId, death: &Death) {
        let Some(mut charge) = self.charges.remove(&id) else { return };
        let record = match &charge.witness {
            Some(witness) => witness.record(death),
            None => DeathRecord::of(death),
        };
        charge.device.died(&record);
        let name = &charge.blueprint.name;
        let now = executor::now();
        let life = charge.judge(death);
        match charge.lives.died(now, life) {
            Verdict::Restart { after } => {
                let number = charge.lives.restarts() + 1;
                log::warn!("{name}: {record}; successor {number} takes over");
                record.log_messages(name);
                self.mourned.push((now + after, charge));
            }
            Verdict::GiveUp => {
                let reason = match life {
                    Life::Fruitless => {
                        "process after process ends before it has finished a request"
                    }
                    Life::Other => "its process ended and is not started again",
                };
                log::error!("{name}: {record}; given up: {reason}");
                record.log_messages(name);
                charge.give_up(reason);
            }
        }
    }

    /// Starts successors for those that have waited long enough.
    async fn replace_due(&mut self) {
        let now = executor::now();
        let due = self.mourned.extract_if(.., |(at, _)| *at <= now).collect::<Vec<_>>();
        for (_, charge) in due {
            self.replace(charge).await;
        }
    }

    async fn replace(&mut self, mut charge: Charge) {
        let id = ActorId(self.next_id);
        self.next_id += 1;
        let actor = match self.warden.spawner().spawn(id, charge.blueprint.as_actor()).await {
            Ok(actor) => actor,
            Err(error) => return charge.give_up(&Report::new(&error).one_line()),
        };
        charge.lives.reborn(executor::now());
        match charge.blueprint.send_off(id, actor) {
            Ok(process) => {
                hand_over(&charge, &process, self.warden.spawner().clone());
                self.attend(charge, process);
            }
            Err(error) => {
                // It is dead already, or will be: then there is a next one, or the end.
                let reason = Report::new(&error).one_line();
                log::warn!("{}: {reason}", charge.blueprint.name);
                let _ = self.warden.spawner().kill(id).await;
                charge.witness = None;
                self.charges.insert(id, charge);
            }
        }
    }

    /// Ends all processes: the back ends by themselves, when nothing holds an end of their channels
    /// any more, then the warden.
    pub(super) async fn finish(mut self, spaces: Arc<AddressSpaces>) {
        let mut living = self.charges.len();
        self.tasks.cancel_all().await;
        self.charges.clear();
        self.mourned.clear();
        drop(spaces);
        let farewell = async {
            while living > 0 {
                match self.events.recv().await {
                    Ok(WardenEvent::Died { .. }) => living -= 1,
                    Ok(_) => {}
                    Err(_) => return,
                }
            }
        };
        if executor::timeout(FAREWELL, farewell).await.is_err() {
            log::warn!("{living} back ends did not end in time and are ended");
        }
        self.carrier.cancel_all().await;
    }
}

/// Turns the transport to a successor. On a thread of its own, because the transport waits for
/// the successor's answers.
fn hand_over(charge: &Charge, process: &Process, spawner: Spawner) {
    let (blueprint, transport) = (Arc::clone(&charge.blueprint), Arc::clone(&charge.transport));
    let (id, requests) = (process.id, process.requests.clone());
    let work = move || {
        if let Some(witness) = &blueprint.witness {
            // Its predecessor may have died before it could tell what came of a flush.
            witness.settle(&blueprint.inflight);
        }
        let void = || blueprint.inflight.clear();
        if let Err(reason) = transport.replace_backend(requests, void) {
            // Its death brings the next one, or the end.
            log::warn!("{}: the successor does not take over: {reason}", blueprint.name);
            let _ = spawner.kill_blocking(id);
        }
    };
    if let Err(error) = std::thread::Builder::new().name("take-over".into()).spawn(work) {
        charge.transport.give_up(format_args!("no thread to bring the successor in: {error}"));
    }
}

/// Asks a back end again and again whether it is there, and ends it when it does not answer.
async fn heartbeat(id: ActorId, requests: Sender<BackendRequest>, spawner: Spawner) {
    loop {
        executor::sleep(HEARTBEAT_INTERVAL).await;
        let ask = |reply| BackendRequest::ReadConfig { offset: 0, length: 0, reply };
        match requests.call(ask, Deadline::after(HEARTBEAT_DEADLINE)).await {
            Ok(_) | Err(CallError::Refused) => {}
            Err(CallError::TimedOut) => {
                log::warn!("a back end does not answer for {HEARTBEAT_DEADLINE:?} and is ended");
                let _ = spawner.kill(id).await;
                return;
            }
            Err(CallError::PeerDied | CallError::Closed) => return,
        }
    }
}
