//! The virtio devices as those see them who control the machine: their names, who serves them, and
//! the way to ask something of them.
//!
//! The supervisor keeps it true; the operator reads it.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use devices::virtio::control::{Change, ControlRequest};
use devices::virtio::metrics::MetricsRegion;
use devices::virtio::parts::{DeviceParts, Parts};
use devices::virtio::pci::VirtioPciDevice;
use ipc::{CallError, Deadline, Sender};

use super::death_record::DeathRecord;
use crate::config::{MachineConfig, ShareProtocol};
use crate::control::{DeviceStatus, EventHub, EventKind, Refusal, Service};
use crate::warden::ActorKind;

/// How long a change may take, the replacement of a dead process included.
const CHANGE_DEADLINE: Duration = Duration::from_secs(5);

/// What a device is made of, for successors and for those who change it.
#[derive(Debug, Clone)]
pub(super) struct SharedParts(Arc<Mutex<DeviceParts>>);

impl SharedParts {
    pub(super) fn new(parts: DeviceParts) -> Self {
        Self(Arc::new(Mutex::new(parts)))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, DeviceParts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the machine hands over of each device.
#[derive(Debug)]
pub(super) struct DeviceHandle {
    pub(super) name: String,
    pub(super) parts: SharedParts,
    pub(super) transport: Arc<VirtioPciDevice>,
    pub(super) metrics: MetricsRegion,
    /// For one on a thread. Those of processes come and go.
    pub(super) controls: Option<Sender<ControlRequest>>,
}

/// A device.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) id: String,
    user_id: Option<String>,
    handle: DeviceHandle,
    service: Cell<Service>,
    controls: RefCell<Option<Sender<ControlRequest>>>,
    pid: Cell<Option<i32>>,
    restarts: Cell<u32>,
    /// Counts who served it: a change has to be remembered before the next one starts.
    generation: Cell<u64>,
    waiting: RefCell<Vec<Waker>>,
    hub: Rc<EventHub>,
}

impl Device {
    pub(super) fn transport(&self) -> &Arc<VirtioPciDevice> {
        &self.handle.transport
    }

    pub(super) fn metrics(&self) -> &MetricsRegion {
        &self.handle.metrics
    }

    pub(super) fn parts(&self) -> &SharedParts {
        &self.handle.parts
    }

    pub(super) fn restarts(&self) -> u32 {
        self.restarts.get()
    }

    pub(super) fn status(&self) -> DeviceStatus {
        DeviceStatus {
            id: self.id.clone(),
            user_id: self.user_id.clone(),
            name: self.handle.name.clone(),
            service: self.service.get(),
            pid: self.pid.get(),
            restarts: self.restarts.get(),
        }
    }

    /// A process was asked for, and gets what is sent here once it is there.
    pub(super) fn attended(&self, controls: Sender<ControlRequest>, restarts: u32) {
        *self.controls.borrow_mut() = Some(controls);
        self.service.set(Service::Process);
        self.restarts.set(restarts);
        self.turn();
    }

    /// The process is there.
    pub(super) fn started(&self, pid: i32) {
        self.pid.set(Some(pid));
        let (device, restarts) = (self.id.clone(), self.restarts.get());
        self.hub.say(match restarts {
            0 => EventKind::DeviceStarted { device, pid },
            _ => EventKind::DeviceReplaced { device, pid, restarts },
        });
    }

    /// The process is gone, and another one will come.
    pub(super) fn died(&self, record: &DeathRecord) {
        self.controls.take();
        self.pid.set(None);
        self.service.set(Service::Replacing);
        let (device, record) = (self.id.clone(), record.clone());
        let DeathRecord { pid, reason, last_messages } = record;
        self.hub.say(EventKind::DeviceDied { device, pid, reason, last_messages });
        self.turn();
    }

    /// Nobody will serve it any more.
    pub(super) fn given_up(&self, reason: &str) {
        self.controls.take();
        self.pid.set(None);
        self.service.set(Service::GivenUp);
        let (device, reason) = (self.id.clone(), reason.to_owned());
        self.hub.say(EventKind::DeviceGivenUp { device, reason });
        self.turn();
    }

    fn turn(&self) {
        self.generation.set(self.generation.get() + 1);
        for waker in self.waiting.take() {
            waker.wake();
        }
    }

    /// Makes a change, and has successors start with it.
    pub(super) async fn change(&self, change: Change) -> Result<(), Refusal> {
        let end = Instant::now() + CHANGE_DEADLINE;
        loop {
            let generation = self.generation.get();
            let controls = self.controls.borrow().clone();
            let Some(controls) = controls else {
                if self.service.get() == Service::GivenUp {
                    return Err(Refusal::new(format!("{} has no process any more", self.id))
                        .hint("its guest and this command need another machine"));
                }
                self.next_generation(generation, end).await?;
                continue;
            };
            let make = |reply| ControlRequest::Change { change: change.clone(), reply };
            match controls.call(make, Deadline::at(end)).await {
                Ok(Ok(())) => {
                    self.handle.parts.lock().remember(&change);
                    // A successor that was made meanwhile has not heard of it.
                    if self.generation.get() == generation {
                        return Ok(());
                    }
                }
                Ok(Err(reason)) => return Err(Refusal::new(format!("{}: {reason}", self.id))),
                Err(CallError::TimedOut) => return Err(self.silent()),
                Err(CallError::PeerDied | CallError::Closed | CallError::Refused) => {
                    self.next_generation(generation, end).await?;
                }
            }
        }
    }

    fn silent(&self) -> Refusal {
        Refusal::new(format!("{} does not answer for {CHANGE_DEADLINE:?}", self.id))
            .hint("`vmm ctl SOCK status` shows who serves it; try again")
    }

    async fn next_generation(&self, known: u64, end: Instant) -> Result<(), Refusal> {
        let changed = poll_fn(|context| {
            if self.generation.get() != known {
                return Poll::Ready(());
            }
            self.waiting.borrow_mut().push(context.waker().clone());
            Poll::Pending
        });
        let left = end.saturating_duration_since(Instant::now());
        executor::timeout(left, changed).await.map_err(|_| self.silent())
    }
}

/// All devices, in the order of the PCI bus.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) devices: Vec<Rc<Device>>,
}

impl Directory {
    /// Names them: by kind and number, and as the user does.
    pub(super) fn new(
        handles: Vec<DeviceHandle>,
        config: &MachineConfig,
        hub: &Rc<EventHub>,
    ) -> Self {
        let mut counts: HashMap<&str, usize> = HashMap::new();
        let devices = handles.into_iter().map(|mut handle| {
            let kind = kind(&handle.parts.lock());
            let count = counts.entry(kind).or_default();
            let number = *count;
            *count += 1;
            let controls = handle.controls.take();
            Rc::new(Device {
                id: format!("{kind}{number}"),
                user_id: user_id(config, kind, number),
                service: Cell::new(match controls {
                    Some(_) => Service::Thread,
                    None => Service::Replacing,
                }),
                controls: RefCell::new(controls),
                handle,
                pid: Cell::new(None),
                restarts: Cell::new(0),
                generation: Cell::new(0),
                waiting: RefCell::default(),
                hub: Rc::clone(hub),
            })
        });
        Self { devices: devices.collect() }
    }

    /// The device of this id; the user's ids come first.
    pub(super) fn find(&self, id: &str) -> Result<&Rc<Device>, Refusal> {
        let users = self.devices.iter().find(|device| device.user_id.as_deref() == Some(id));
        let found = users.or_else(|| self.devices.iter().find(|device| device.id == id));
        found.ok_or_else(|| {
            let ids: Vec<&str> = self.devices.iter().map(|device| device.id.as_str()).collect();
            let refusal = Refusal::new(format!("there is no device `{id}`"));
            match crate::config::nearest(id, &ids) {
                Some(near) => refusal.hint(format!("did you mean `{near}`?")),
                None if ids.is_empty() => refusal.hint("this machine has no virtio devices"),
                None => refusal.hint(format!("the devices are {}", ids.join(", "))),
            }
        })
    }
}

/// What devices of a kind are called.
fn kind(parts: &DeviceParts) -> &'static str {
    match ActorKind::of(parts) {
        Some(ActorKind::Blk) => "disk",
        Some(kind) => kind.name(),
        None => "vhost-user",
    }
}

fn user_id(config: &MachineConfig, kind: &str, number: usize) -> Option<String> {
    let id = match kind {
        "disk" => config.disks.get(number)?.id.as_ref(),
        "net" => config.nets.get(number)?.id.as_ref(),
        "fs" | "p9" => {
            let protocol = if kind == "fs" { ShareProtocol::Fs } else { ShareProtocol::P9 };
            let mut shares = config.shares.iter().filter(|share| share.protocol == protocol);
            return Some(shares.nth(number)?.tag.as_str().to_owned());
        }
        _ => None,
    };
    id.map(|id| id.as_str().to_owned())
}
