//! The virtio devices of the machine: their back ends, and their transports on the PCI bus.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread::JoinHandle;

use devices::memory::GuestMemory;
use devices::pci::PciRoot;
use devices::rate_limit::{RateLimit, RateLimits};
use devices::virtio::backend::{BackendContext, BackendEvent, BackendRequest, DeviceProfile};
use devices::virtio::blk::{Access, BlockImage, BlockSize, Caching, DiskOptions};
use devices::virtio::metrics::MetricsRegion;
use devices::virtio::parts::{DeviceParts, DirectIo, ExecutorNeeds, Parts, Submission};
use devices::virtio::pci::{Deadlines, Succession, VirtioPciDevice, VirtioPciParts};
use devices::virtio::queue::{FEATURE_RING_PACKED, InflightRegion};
use devices::virtio::rng::RngParts;
use devices::virtio::vhost_user::remote::{RemoteOptions, RemoteParts};
use executor::TaskGroup;
use ipc::{Receiver, Sender};
use trace::Ring;

use super::Error;
use super::directory::{DeviceHandle, SharedParts};
use super::host_sockets::HostSockets;
use super::supervisor::{Blueprint, Ward};
use super::tracing::Tracer;
use super::user_net::UserNet;
use super::workplace::Workplace;
use crate::config::{
    CpuList, DiskConfig, MachineConfig, QueueCount, RingFormat, RngConfig, VhostUserConfig,
};
use crate::kvm::{GsiRouter, Ioeventfds, Vm};
use crate::serial_port::Bridge;
use crate::warden::{ActorId, ActorKind, Spawner};

/// Requests under way to a back end: one from each vCPU at most is waited for by the transport.
pub(super) const REQUEST_CAPACITY: usize = 8;
/// Events of a back end that its transport has not taken yet.
pub(super) const EVENT_CAPACITY: usize = 16;

/// Changes that are asked of a device and not made yet.
pub(super) const CONTROL_CAPACITY: usize = 4;

/// A virtio device in its place.
#[derive(Debug)]
pub(super) struct Attached {
    pub(super) transport: Arc<VirtioPciDevice>,
    pub(super) events: Receiver<BackendEvent>,
    pub(super) thread: BackEndThread,
}

/// A device whose files are open.
#[derive(Debug)]
pub(super) struct OpenDevice {
    pub(super) name: String,
    pub(super) parts: DeviceParts,
    /// Processors of the host that it is served on; empty for any.
    pub(super) cpus: Vec<u16>,
}

impl OpenDevice {
    /// A device that is served anywhere.
    pub(super) fn new(name: impl Into<String>, parts: DeviceParts) -> Self {
        Self { name: name.into(), parts, cpus: Vec::new() }
    }

    /// The same on some processors of the host.
    pub(super) fn on(self, cpus: Option<&CpuList>) -> Self {
        Self { cpus: cpus.map_or_else(Vec::new, |cpus| cpus.numbers().to_vec()), ..self }
    }
}

/// All that the devices stand on.
#[derive(Debug, Default)]
pub(super) struct OpenDevices {
    rings: RingFormat,
    pub(super) devices: Vec<OpenDevice>,
    user_nets: Vec<UserNet>,
    host_sockets: Option<HostSockets>,
    bridges: Vec<Bridge>,
}

impl OpenDevices {
    /// Other handles of what they are made of.
    pub(super) fn keep(&self) -> std::io::Result<Vec<DeviceParts>> {
        self.devices.iter().map(|device| device.parts.try_clone()).collect()
    }

    /// What connects consoles to the host's ends of their ports.
    pub(super) fn take_bridges(&mut self) -> Vec<Bridge> {
        std::mem::take(&mut self.bridges)
    }

    /// The only device there is; what it needs beside it runs on the current executor.
    pub(super) fn only_device(self, helpers: &TaskGroup) -> Option<OpenDevice> {
        for user_net in self.user_nets {
            helpers.spawn(user_net.pump());
        }
        if let Some(host_sockets) = self.host_sockets {
            helpers.spawn(host_sockets.serve());
        }
        self.devices.into_iter().next()
    }
}

/// Opens what the devices stand on.
pub(super) fn open(config: &MachineConfig) -> Result<OpenDevices, Error> {
    let mut open = OpenDevices { rings: config.rings, ..OpenDevices::default() };
    for disk in &config.disks {
        open.devices.push(open_disk(disk, config)?);
    }
    for net in &config.nets {
        let (device, user_net) = super::networks::open(net)?;
        open.devices.push(device.on(net.cpus.as_ref()));
        open.user_nets.extend(user_net);
    }
    if let Some(vsock) = &config.vsock {
        let (device, host_sockets) = super::host_sockets::open(vsock)?;
        open.devices.push(device.on(vsock.cpus.as_ref()));
        open.host_sockets = Some(host_sockets);
    }
    let consoles = super::consoles::open(&config.consoles)?;
    open.devices.extend(consoles.devices);
    open.bridges = consoles.bridges;
    open.devices.extend(rng(config.rng));
    let balloon = config.balloon.as_ref();
    open.devices.extend(balloon.map(|asked| super::balloon::open(asked, config.pages)));
    for share in &config.shares {
        open.devices.push(super::shares::open(share)?.on(share.cpus.as_ref()));
    }
    for remote in &config.vhost_user {
        open.devices.push(open_remote(remote, config)?);
    }
    Ok(open)
}

fn rng(config: RngConfig) -> Option<OpenDevice> {
    let bytes = match config {
        RngConfig::Absent => return None,
        RngConfig::Unlimited => None,
        RngConfig::Limited(bytes) => Some(RateLimit::per_second(bytes)),
    };
    let limits = RateLimits { bytes, operations: None };
    Some(OpenDevice::new("rng", DeviceParts::Rng(RngParts::new(limits))))
}

fn open_remote(remote: &VhostUserConfig, config: &MachineConfig) -> Result<OpenDevice, Error> {
    let kind = remote.kind;
    let options = RemoteOptions {
        kind,
        socket: remote.socket.clone(),
        queues: remote.queues.unwrap_or_else(|| QueueCount::for_cpus(config.cpus)).get(),
        tag: remote.tag.as_ref().map(|tag| tag.as_str().to_owned()),
        mac: remote.mac,
    };
    let parts = RemoteParts::open(options).map_err(Error::Remote)?;
    let name = format!("vhost-user {} at {}", kind.name(), remote.socket.display());
    Ok(OpenDevice::new(name, DeviceParts::Remote(parts)))
}

fn open_disk(disk: &DiskConfig, config: &MachineConfig) -> Result<OpenDevice, Error> {
    let options = DiskOptions {
        access: if disk.read_only { Access::ReadOnly } else { Access::ReadWrite },
        caching: if disk.direct { Caching::Direct } else { Caching::PageCache },
        executor: ExecutorNeeds {
            submission: match disk.sqpoll_cpu {
                None if !disk.sqpoll => Submission::BySystemCall,
                processor => Submission::ByKernelThread { processor },
            },
            direct_io: if disk.iopoll { DirectIo::Polled } else { DirectIo::Interrupts },
        },
        block_size: match disk.block_size.bytes() {
            4096 => BlockSize::Bytes4096,
            _ => BlockSize::Bytes512,
        },
        queues: disk.queues_for(config.cpus).get(),
        threads: disk.threads.get(),
        id: disk.id.as_ref().map(|id| id.as_str().to_owned()),
        limits: RateLimits {
            bytes: disk.limit_bytes.map(|bytes| RateLimit::per_second(bytes.get())),
            operations: disk.limit_ops.map(RateLimit::per_second),
        },
        ..DiskOptions::new(&disk.path)
    };
    let image = BlockImage::open(&options).map_err(Error::Disk)?;
    let name = format!("disk {}", disk.path.display());
    Ok(OpenDevice::new(name, DeviceParts::Blk(image)).on(disk.cpus.as_ref()))
}

/// The devices, each with its back end.
#[derive(Debug, Default)]
pub(super) struct BackEnds {
    /// Those on threads.
    pub(super) threads: Vec<Attached>,
    /// Those in sandboxed processes.
    pub(super) wards: Vec<Ward>,
    /// What carries the frames of user-mode networks.
    pub(super) user_nets: Vec<UserNet>,
    /// What connects a vsock to programs of the host.
    pub(super) host_sockets: Option<HostSockets>,
    /// The host's ends of consoles.
    pub(super) bridges: Vec<Bridge>,
    /// All of them, for those who control the machine.
    pub(super) handles: Vec<DeviceHandle>,
}

/// Starts the back ends and puts the devices on the bus. With a `spawner` each back end gets a
/// process, else a thread.
pub(super) fn start(
    open: OpenDevices,
    vm: &Vm,
    memory: &GuestMemory,
    root: &PciRoot,
    spawner: Option<&Spawner>,
    tracer: &Tracer,
) -> Result<BackEnds, Error> {
    let OpenDevices { rings, devices, user_nets, host_sockets, bridges } = open;
    let mut back_ends = BackEnds { user_nets, host_sockets, bridges, ..BackEnds::default() };
    if devices.is_empty() {
        return Ok(back_ends);
    }
    let (msi, kicks) = (vm.gsi_router()?, Arc::new(vm.ioeventfds()));
    let bus = DeviceBus { root, rings, msi, kicks };
    let mut names = ActorNames::default();
    for (index, device) in devices.into_iter().enumerate() {
        let actor = names.next(&device.parts);
        let trace = tracer.ring(&actor).map_err(Error::host("make memory for a trace"))?;
        let notes = Traced { tracer: tracer.clone(), actor, trace };
        match (spawner, ActorKind::of(&device.parts)) {
            (Some(spawner), Some(kind)) => {
                let id = ActorId(index as u64);
                let (ward, handle) =
                    start_process((id, kind), device, memory, spawner, notes, &bus)?;
                back_ends.wards.push(ward);
                back_ends.handles.push(handle);
            }
            // Who talks to another program that has all of the guest's memory needs no sandbox besides.
            _ => {
                let (attached, handle) = start_thread(device, memory, notes, &bus)?;
                back_ends.threads.push(attached);
                back_ends.handles.push(handle);
            }
        }
    }
    Ok(back_ends)
}

/// What a device is called in a trace, and where it writes it.
struct Traced {
    tracer: Tracer,
    actor: String,
    trace: Option<Ring>,
}

/// Names of devices by kind and number: `blk0`.
#[derive(Default)]
struct ActorNames(HashMap<&'static str, usize>);

impl ActorNames {
    fn next(&mut self, parts: &DeviceParts) -> String {
        let kind = ActorKind::of(parts).map_or("vhost-user", ActorKind::name);
        let count = self.0.entry(kind).or_default();
        *count += 1;
        format!("{kind}{}", *count - 1)
    }
}

fn start_process(
    (id, kind): (ActorId, ActorKind),
    device: OpenDevice,
    memory: &GuestMemory,
    spawner: &Spawner,
    traced: Traced,
    bus: &DeviceBus<'_>,
) -> Result<(Ward, DeviceHandle), Error> {
    let OpenDevice { name, parts, cpus } = device;
    let profile = parts.profile();
    let (queues, size) = profile.inflight_size();
    let inflight = InflightRegion::create(queues, size)?;
    let metrics = metrics(queues)?;
    let witness = parts.sync_witness().transpose().unwrap_or_else(|error| {
        log::warn!("{name}: a flush that fails as its process dies will not be noticed: {error}");
        None
    });
    let parts = SharedParts::new(parts);
    let blueprint = Blueprint {
        kind,
        cpus,
        name: name.clone(),
        parts: parts.clone(),
        inflight,
        witness,
        metrics: metrics.clone(),
        memory: memory.clone(),
        actor: traced.actor,
        trace: traced.trace,
        tracer: traced.tracer,
    };
    let process = blueprint.start(id, spawner)?;
    let requests = process.requests.clone();
    let transport = bus.attach(name.clone(), profile, requests, Succession::Expected)?;
    let handle =
        DeviceHandle { name, parts, transport: Arc::clone(&transport), metrics, controls: None };
    Ok((Ward { blueprint, transport, process }, handle))
}

fn metrics(queues: u16) -> Result<MetricsRegion, Error> {
    MetricsRegion::create(queues).map_err(Error::host("make memory for metrics"))
}

/// What a device needs to be put on the PCI bus.
struct DeviceBus<'a> {
    root: &'a PciRoot,
    rings: RingFormat,
    msi: GsiRouter,
    kicks: Arc<Ioeventfds>,
}

impl DeviceBus<'_> {
    fn attach(
        &self,
        name: String,
        mut profile: DeviceProfile,
        requests: Sender<BackendRequest>,
        succession: Succession,
    ) -> Result<Arc<VirtioPciDevice>, Error> {
        if self.rings == RingFormat::Split {
            profile.features &= !FEATURE_RING_PACKED;
        }
        let transport = Arc::new(VirtioPciDevice::new(VirtioPciParts {
            name,
            profile,
            requests,
            deadlines: Deadlines::default(),
            succession,
            msi: &self.msi,
            kicks: self.kicks.clone(),
        })?);
        self.root.attach(transport.clone())?;
        Ok(transport)
    }
}

/// A back end on a thread of its own. It ends when its transport is dropped.
#[derive(Debug)]
pub(super) struct BackEndThread {
    thread: JoinHandle<()>,
}

impl BackEndThread {
    /// Waits for the end of the thread. The transport must be gone.
    pub(super) fn join(self) {
        if self.thread.join().is_err() {
            log::error!("a back end thread panicked");
        }
    }
}

fn start_thread(
    device: OpenDevice,
    memory: &GuestMemory,
    traced: Traced,
    bus: &DeviceBus<'_>,
) -> Result<(Attached, DeviceHandle), Error> {
    let OpenDevice { name, parts, cpus } = device;
    let place = Workplace::of(&parts, cpus);
    let profile = parts.profile();
    let (requests, request_receiver) = ipc::channel(REQUEST_CAPACITY);
    let (control_sender, controls) = ipc::channel(CONTROL_CAPACITY);
    let metrics = metrics(profile.queue_sizes.len() as u16)?;
    // What it is made of goes to the thread; changes of it are checked with another handle.
    let known = parts.try_clone().map_err(Error::host("duplicate a device's files"))?;
    let (event_sender, events) = ipc::channel(EVENT_CAPACITY);
    let Traced { tracer, actor, trace } = traced;
    let requests = tracer.sender(requests, &actor, "request");
    let control_sender = tracer.sender(control_sender, &actor, "control");
    let event_sender = tracer.sender(event_sender, &actor, "event");
    let context = BackendContext {
        memory: memory.clone(),
        requests: request_receiver,
        controls,
        events: event_sender,
        metrics: Some(metrics.clone()),
        trace,
        helpers: Vec::new(),
    };
    let thread = std::thread::Builder::new()
        .name(actor)
        .spawn(move || {
            let work = |helpers| parts.run(None, BackendContext { helpers, ..context });
            if let Err(reason) = place.run(work) {
                // The transport sees its channel closed and says that it needs a reset.
                log::error!("a back end cannot start: {reason}");
            }
        })
        .map_err(Error::host("start a back end thread"))?;
    let transport = bus.attach(name.clone(), profile, requests, Succession::None)?;
    let handle = DeviceHandle {
        name,
        parts: SharedParts::new(known),
        transport: Arc::clone(&transport),
        metrics,
        controls: Some(control_sender),
    };
    Ok((Attached { transport, events, thread: BackEndThread { thread } }, handle))
}
