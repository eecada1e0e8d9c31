//! Runs an assembled machine to its end: the control loop and the pumps around it.

use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use devices::legacy::cmos::Cmos;
use devices::legacy::serial::Serial;
use devices::legacy::watchdog::Watchdog;
use devices::legacy::{AfterPanic, Clock, HostClock, MachineEvent};
use devices::virtio::backend::BackendEvent;
use devices::virtio::parts::Parts;
use devices::virtio::pci::VirtioPciDevice;
use executor::{Either, Executor, TaskGroup, select};
use ipc::{Deadline, Receiver, Sender};

use super::assembly::{
    self, Assembly, DebugconDevice, Lines, RtcDevice, SerialDevice, WatchdogDevice,
};
use super::backends::{Attached, BackEndThread, BackEnds};
use super::consoles;
use super::directory::Directory;
use super::lifecycle::Machine;
use super::operator::{Operator, Size};
use super::supervisor::Supervisor;
use super::tracing::Tracing;
use super::vcpu::VcpuActor;
use super::{Error, Event, shares};
use crate::config::{MachineConfig, Placement, SeccompMode, SerialConfig};
use crate::control::{ControlSocket, EventHub, EventKind, Server};
use crate::error::Hint;
use crate::kvm;
use crate::outcome::{BuiltInSummary, Outcome};
use crate::sandbox;
use crate::serial_port::{Bridge, Bridged, Guest, Receive, SerialPort};
use crate::signals::Signals;
use crate::warden::{Enforcement, PolicySource, Warden, WardenEvent};

/// A vCPU says one thing: that it has crashed. Every one of them may.
const VCPU_EVENTS: usize = 64;
/// More descriptors than all but the largest machines have: 16 disks of 16 queues have 600.
const MANY_DESCRIPTORS: i32 = 1000;
/// Requests of clients that wait; each client has one at most.
const COMMANDS: usize = 8;
/// How long the beginning of a line waits for its end before it is shown.
const LINE_PATIENCE: Duration = Duration::from_millis(5);
/// What a kernel that panicked gets to save what it has to say, until it resets the machine.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// How long the warden may take to say why it could not make a process.
const WARDEN_PATIENCE: Duration = Duration::from_secs(5);

/// Builds the machine that `config` describes and runs it to its end.
pub(super) fn run(config: &MachineConfig) -> Result<Outcome, Error> {
    // First, while there is one thread and nothing is open.
    let mut warden = fork_warden(config)?;
    let signals = Signals::block().map_err(Error::host("take over the signals"))?;
    kvm::install_kick_handler().map_err(Error::host("install the handler of the kick signal"))?;
    let guest = if config.kernel.is_some() { Guest::Kernel } else { Guest::BuiltIn };
    let port = SerialPort::open(&config.serial, guest)?;
    let debugcon = match &config.debugcon {
        SerialConfig::Null => None,
        end => Some(SerialPort::open(end, Guest::Kernel).map_err(Error::Debugcon)?),
    };
    grow_descriptor_table().map_err(Error::host("make room for descriptors"))?;
    let control = config.control.as_deref().map(ControlSocket::bind).transpose()?;
    let spawner = warden.as_ref().map(|(warden, _)| warden.spawner().clone());
    let lines = Lines { serial: port.line(), debugcon: debugcon.as_ref().map(SerialPort::line) };
    let tracing = Tracing::start(config.trace.as_ref())?;
    let assembly = assembly::build(config, &lines, spawner.as_ref(), tracing.tracer())
        .map_err(|error| explained(error, warden.as_mut()))?;
    let mut executor = Executor::new(&executor::Config::default())?;
    let outside = Outside { port, debugcon, signals, control, tracing };
    executor.block_on(async {
        executor::spawn(sandbox::shed_beginnings()).detach();
        run_assembled(config, assembly, outside, warden).await
    })
}

/// What the outside has of a machine.
struct Outside {
    port: SerialPort,
    debugcon: Option<SerialPort>,
    signals: Signals,
    control: Option<ControlSocket>,
    tracing: Tracing,
}

/// The warden with what it says.
type WardenLink = (Warden, Receiver<WardenEvent>);

/// Forks the warden, if there is anything for it to watch over.
fn fork_warden(config: &MachineConfig) -> Result<Option<WardenLink>, Error> {
    if config.placement == Placement::SingleProcess || !config.has_devices() {
        // Back ends in this process read disks by mapping.
        devices::memory::survive_bus_errors().map_err(Error::host("handle bus errors"))?;
        return Ok(None);
    }
    let policies = PolicySource {
        folder: config.seccomp_policy_dir.clone(),
        enforcement: match config.seccomp {
            SeccompMode::Enforce => Enforcement::Enforce,
            SeccompMode::LogFailures => Enforcement::LogOnly,
        },
    };
    Ok(Some(Warden::fork(&policies, shares::users(&config.shares))?))
}

/// Why a device's process never began is known to the warden, which may say it a moment later.
fn explained(error: Error, warden: Option<&mut WardenLink>) -> Error {
    let (Error::NeverBegan, Some((_, events))) = (&error, warden) else { return error };
    let deadline = Deadline::after(WARDEN_PATIENCE);
    while let Ok(event) = events.recv_blocking(deadline) {
        if let WardenEvent::Failed { reason, .. } | WardenEvent::Unusable { reason } = event {
            return Error::Sandbox(reason);
        }
    }
    error
}

/// Makes room for all descriptors at once while there is one thread. With more, the kernel waits
/// for a grace period each time the table grows: 20 ms for 16 disks of 16 queues, measured.
fn grow_descriptor_table() -> std::io::Result<()> {
    let any = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC)?;
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let target = limit.map_or(MANY_DESCRIPTORS, |limit| {
        (limit.saturating_sub(1)).min(MANY_DESCRIPTORS as u64) as i32
    });
    drop(rustix::io::fcntl_dupfd_cloexec(&any, target)?);
    Ok(())
}

async fn run_assembled(
    config: &MachineConfig,
    assembly: Assembly,
    outside: Outside,
    warden: Option<WardenLink>,
) -> Result<Outcome, Error> {
    let Assembly { vcpus, spaces, serial, debugcon, rtc, power, watchdog, mut events, back_ends } =
        assembly;
    let Outside { port, debugcon: debugcon_port, signals, control, tracing } = outside;
    let SerialDevice { device: serial, unfinished_line } = serial;
    let mut signals = signals.listen().map_err(Error::host("listen to signals"))?;
    let connected = port.connect(Arc::new(SerialInput(Arc::clone(&serial))))?;

    let pumps = TaskGroup::new();
    let flush = Arc::clone(&serial);
    pumps.spawn(flush_unfinished_lines(unfinished_line, move || flush.flush()));
    let mut debug_line = None;
    if let (Some(DebugconDevice { device, unfinished_line }), Some(port)) =
        (debugcon, debugcon_port)
    {
        debug_line = Some((port.connect(Arc::new(Deaf)).map_err(Error::Debugcon)?, device.clone()));
        pumps.spawn(flush_unfinished_lines(unfinished_line, move || device.flush()));
    }
    pumps.spawn(ring_alarms(rtc));
    let watchdog = watchdog.map(|watchdog| start_watching(&pumps, watchdog));
    let hub = EventHub::new();
    let BackEnds { threads: attached, wards, user_nets, host_sockets, bridges, handles } =
        back_ends;
    let parts: Vec<_> = handles.iter().map(|handle| handle.parts.clone()).collect();
    let directory = Directory::new(handles, config, &hub);
    if let Some(host_sockets) = host_sockets {
        pumps.spawn(host_sockets.serve());
    }
    let bridges = bridges.into_iter().map(Bridge::connect).collect::<Result<Vec<_>, _>>();
    let bridges = bridges.map_err(Error::ConsoleEnd)?;
    let (resize, resized) = ipc::channel(1);
    if let Some(console) = consoles::on_terminal(&config.consoles, &directory.devices) {
        pumps.spawn(consoles::follow_window(Rc::clone(console), resized));
    }
    let terminals = bridges.iter().map(Bridged::terminal).chain([connected.terminal()]);
    let debug_terminal = debug_line.as_ref().and_then(|(line, _)| line.terminal());
    let terminal = terminals.chain([debug_terminal]).flatten().next();
    for user_net in user_nets {
        pumps.spawn(user_net.pump());
    }
    let mut threads = Vec::with_capacity(attached.len());
    for Attached { transport, events, thread } in attached {
        pumps.spawn(pump_back_end(transport, events));
        threads.push(thread);
    }
    let mut supervisor =
        warden.map(|warden| Supervisor::new(warden, wards, config.restart, &directory));
    let (commands, mut asked) = tracing.tracer().channel(COMMANDS, "operator", "command");
    let start = |socket| Server::start(socket, commands, Rc::clone(&hub));
    let server = control.map(start).transpose().map_err(Error::host("serve the control socket"))?;

    let (sender, mut crashes) = tracing.tracer().channel(VCPU_EVENTS, "machine", "crash");
    let size = Size { vcpus: vcpus.len() as u32, memory: config.memory.bytes() };
    let mut machine = Machine::new(spawn(config, vcpus, &spaces, &sender, &tracing)?, watchdog);
    // A sandbox that could not be had is usually known by now. If not, the machine ends when it is.
    let ready = supervisor.as_mut().map_or(Ok(()), Supervisor::catch_up);
    let outcome = if let Err(error) = ready {
        Err(error)
    } else {
        machine.run();
        hub.say(EventKind::Started);
        let machine = &mut machine;
        let mut operator =
            Operator { machine, directory: &directory, hub: &hub, power: &power, size };
        // One notice says it all.
        let end = signals.ending(terminal.as_deref(), || drop(resize.try_send(())));
        let end = wait_for_end(&mut events, &mut crashes, end, &hub, config);
        let ask = operator.run(&mut asked);
        let work = supervise(supervisor.as_mut());
        match select(pin!(end), select(pin!(ask), pin!(work))).await {
            Either::Left(outcome) => outcome,
            Either::Right(Either::Left(outcome)) => Ok(outcome),
            Either::Right(Either::Right(error)) => Err(error),
        }
    };
    // Whoever called does not wait for a guest that goes on.
    machine.stop().await;
    pumps.cancel_all().await;
    // It holds ends of the devices' channels.
    drop(directory);
    // The buses hold the transports, and these the senders that the back ends live by.
    match supervisor {
        Some(supervisor) => supervisor.finish(spaces).await,
        None => drop(spaces),
    }
    // What wakes them may wait in this thread's ring for a turn that does not come while it joins.
    executor::flush();
    threads.into_iter().for_each(BackEndThread::join);
    for parts in &parts {
        parts.lock().release();
    }
    serial.flush();
    for bridge in bridges {
        bridge.finish().await;
    }
    if let Some((line, device)) = debug_line {
        device.flush();
        line.finish().await;
    }
    tracing.finish();
    let summary = connected.finish().await;
    let outcome = outcome.map(|outcome| conclude(outcome, summary));
    if let Some(server) = server {
        hub.say(ended(outcome.as_ref()));
        server.finish().await;
    }
    outcome
}

/// What the built-in guest said last is part of how it ended.
fn conclude(outcome: Outcome, summary: Option<BuiltInSummary>) -> Outcome {
    match (outcome, summary) {
        (Outcome::Shutdown, Some(summary)) => Outcome::BuiltIn(summary),
        // The built-in guest says by a panic that a check failed; a panic on request is just that.
        (Outcome::GuestPanic, Some(summary)) if summary.failed > 0 => Outcome::BuiltIn(summary),
        (outcome, _) => outcome,
    }
}

fn ended(outcome: Result<&Outcome, &Error>) -> EventKind {
    let (exit, status) = match outcome {
        Ok(outcome) => (outcome.name(), outcome.exit_code()),
        Err(error) => ("error", error.exit_code()),
    };
    EventKind::Ended { exit: exit.to_owned(), status }
}

async fn supervise(supervisor: Option<&mut Supervisor>) -> Error {
    match supervisor {
        Some(supervisor) => supervisor.run().await,
        None => std::future::pending().await,
    }
}

fn spawn(
    config: &MachineConfig,
    vcpus: Vec<crate::kvm::Vcpu>,
    spaces: &Arc<super::vcpu::AddressSpaces>,
    events: &Sender<Event>,
    tracing: &Tracing,
) -> Result<Vec<VcpuActor>, Error> {
    vcpus
        .into_iter()
        .map(|vcpu| {
            let cpus = config.cpu_affinity.as_ref().and_then(|all| all.of(vcpu.id()));
            VcpuActor::spawn(vcpu, Arc::clone(spaces), events.clone(), tracing.tracer(), cpus)
        })
        .collect::<Result<_, _>>()
        .map_err(Error::host("start a vCPU thread"))
}

/// The control loop: returns with the first thing that ends the machine.
async fn wait_for_end(
    events: &mut Receiver<MachineEvent>,
    crashes: &mut Receiver<Event>,
    signal: impl Future<Output = std::io::Result<i32>>,
    hub: &EventHub,
    config: &MachineConfig,
) -> Result<Outcome, Error> {
    let guest = pin!(guest_ends(events, hub, config));
    let crash = pin!(crashes.recv());
    match select(guest, select(crash, pin!(signal))).await {
        Either::Left(outcome) => Ok(outcome),
        Either::Right(Either::Left(Ok(Event::Crash { reason }))) => Ok(Outcome::Crash { reason }),
        Either::Right(Either::Left(Err(_))) => {
            Ok(Outcome::Crash { reason: "all vCPU threads ended".into() })
        }
        Either::Right(Either::Right(signal)) => {
            signal.map(Outcome::Signal).map_err(Error::host("read signals"))
        }
    }
}

async fn guest_ends(
    events: &mut Receiver<MachineEvent>,
    hub: &EventHub,
    config: &MachineConfig,
) -> Outcome {
    loop {
        match events.recv().await {
            Ok(MachineEvent::Shutdown) => return Outcome::Shutdown,
            Ok(MachineEvent::Reset) => return Outcome::Reset,
            Ok(MachineEvent::Watchdog) => {
                log::error!("the watchdog fired: the guest did not show in time that it lives");
                hub.say(EventKind::Watchdog);
                return Outcome::Watchdog(config.watchdog.unwrap_or_default());
            }
            Ok(MachineEvent::GuestPanic { then: AfterPanic::Stopped }) => {
                if config.pstore.is_some() {
                    // It tells of its panic first, and saves what it has to say afterwards.
                    let _ = executor::timeout(LAST_WORDS, events.recv()).await;
                }
                return Outcome::GuestPanic;
            }
            Ok(MachineEvent::GuestPanic { then: AfterPanic::CrashKernel }) => {
                log::warn!("the guest's kernel panicked and starts its crash kernel");
                hub.say(EventKind::GuestPanic);
            }
            // The devices hold the senders, and the machine holds the devices.
            Err(_) => std::future::pending().await,
        }
    }
}

/// Shows the beginnings of lines that do not end, as prompts are.
async fn flush_unfinished_lines(mut notices: Receiver<()>, flush: impl Fn()) {
    while notices.recv().await.is_ok() {
        executor::sleep(LINE_PATIENCE).await;
        flush();
    }
}

/// Raises the real-time clock's interrupts when they are due.
async fn ring_alarms(rtc: RtcDevice) {
    let RtcDevice { device, mut alarm_changed } = rtc;
    loop {
        let due = pin!(wait_until_due(&device));
        match select(due, pin!(alarm_changed.recv())).await {
            Either::Left(()) => device.run_timer(),
            Either::Right(Ok(())) => {}
            Either::Right(Err(_)) => return,
        }
    }
}

fn start_watching(pumps: &TaskGroup, watchdog: WatchdogDevice) -> Arc<Watchdog> {
    let device = Arc::clone(&watchdog.device);
    pumps.spawn(watch(watchdog));
    device
}

/// Lets the watchdog fire when it is time.
async fn watch(watchdog: WatchdogDevice) {
    let WatchdogDevice { device, mut due_changed } = watchdog;
    loop {
        let due = pin!(async {
            match device.due() {
                Some(left) => executor::sleep(left).await,
                None => std::future::pending().await,
            }
        });
        match select(due, pin!(due_changed.recv())).await {
            Either::Left(()) => device.run_timer(),
            Either::Right(Ok(())) => {}
            Either::Right(Err(_)) => return,
        }
    }
}

async fn wait_until_due(device: &Cmos) {
    match device.next_alarm() {
        Some(due) => executor::sleep(due.saturating_sub(HostClock::default().wall())).await,
        None => std::future::pending().await,
    }
}

/// Hands what a back end says to its transport.
pub(super) async fn pump_back_end(
    transport: Arc<VirtioPciDevice>,
    mut events: Receiver<BackendEvent>,
) {
    while let Ok(event) = events.recv().await {
        transport.handle_event(event);
    }
}

/// The serial device as the receiver of what is typed.
struct SerialInput(Arc<Serial>);

impl Receive for SerialInput {
    fn receive(&self, bytes: &[u8]) -> usize {
        self.0.input(bytes)
    }

    fn is_listening(&self) -> bool {
        self.0.is_listening()
    }
}

/// What has an output only.
struct Deaf;

impl Receive for Deaf {
    fn receive(&self, bytes: &[u8]) -> usize {
        bytes.len()
    }

    fn is_listening(&self) -> bool {
        false
    }
}
