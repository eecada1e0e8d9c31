//! The console back end (virtio 1.3 section 5.3): an actor that moves bytes between guest memory and
//! the host's ends of its ports.
//!
//! ```text
//!   transmit:  kick ─► available ring ─► one write, gathered from guest memory ─► socket, file
//!   receive:   interrupt ◄─ used ring ◄─ one read under way, into guest memory ◄─ socket
//!   control:   DEVICE_READY, PORT_READY, PORT_OPEN ◄─► ADD, CONSOLE_PORT, NAME, OPEN, RESIZE
//! ```
//!
//! One task per queue, no byte copied here. A device with a console alone has no control queues: the driver
//! finds the size of the window in the configuration space, where all drivers agree on the order of
//! its fields. With other ports the features say multiport, and a resize is a message.
//!
//! # After a crash
//!
//! Buffers that were taken are used for the next bytes. What was written of a buffer is known unless
//! the end came during that very write, whose bytes may then come twice; bytes that were read and not
//! yet given to the driver are lost. What the driver said of its ports is kept outside the process. Where that
//! is lost as well, because all of the program that kept it has died, the driver is told of its ports once more, and they
//! are taken for open.

mod batch;
mod control;
pub mod driver;
mod failure;
mod parts;
mod port;
mod protocol;
mod receive;
mod state;
mod transmit;

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use ipc::Sender;

pub use failure::ConsoleError;
pub use parts::ConsoleParts;
pub use port::{PortEnd, PortRole};
pub use protocol::WindowSize;

use self::port::{OutputState, Owed, Port};
use self::protocol::{FEATURE_MULTIPORT, FEATURE_SIZE, QueueRole};
use self::state::{ConsoleState, PortState};
use super::backend::{BackendContext, BackendEvent, ConfigWrites, DeviceProfile};
use super::control::{Change, Effect};
use super::queue::{InflightRegion, RING_FEATURES};
use super::state_file::StateFile;
use super::worker::{self, ActiveQueue, Changes, Device, Work};
use crate::log_limit::LogLimit;

/// Most ports of a device.
pub const MAX_PORTS: usize = 16;
/// Longest name of a port: a file name is made of it.
pub const MAX_NAME_BYTES: usize = 64;

/// How long a reader of the last output may stand still when the machine has ended.
const STALL: Duration = Duration::from_secs(1);
/// How many times so long it may take in all: less than the machine waits for its devices.
const MOST_STALLS: usize = 4;

/// Descriptors of a port's queue. Linux gives a page for each to receive into.
const QUEUE_SIZE: u16 = 64;
/// The offset of reads and writes on what has none, or goes on where it stands.
const STREAM: u64 = u64::MAX;

/// A console that is ready to run.
#[derive(Debug)]
pub struct ConsoleBackend {
    parts: ConsoleParts,
    inflight: Option<InflightRegion>,
}

impl ConsoleBackend {
    /// Serve these ports.
    pub fn new(parts: ConsoleParts) -> Self {
        Self { parts, inflight: None }
    }

    /// Record what is in flight there, and take over what it says.
    #[must_use]
    pub fn with_inflight(mut self, region: InflightRegion) -> Self {
        self.inflight = Some(region);
        self
    }

    /// Serve the transport until it closes its request channel. Needs an executor on this thread.
    pub async fn run(self, context: BackendContext) {
        let ConsoleParts { ports, state } = self.parts;
        let window = state.load().map_or(WindowSize::default(), |state| state.window);
        let ports = ports.into_iter().map(|(role, end)| Port::new(role, end));
        let ports = match ports.collect::<std::io::Result<_>>() {
            Ok(ports) => ports,
            // The transport sees the channel close.
            Err(error) => return log::error!("the console cannot use its ports: {error}"),
        };
        let console = Console {
            ports,
            window: Cell::new(window),
            ports_in_use: Cell::new(PortsInUse::One),
            owes_look: Cell::new(true),
            heard: Cell::new(false),
            events: context.events.clone(),
            state,
            changes: Changes::default(),
            rested: Changes::default(),
            moved: Cell::default(),
            complaints: LogLimit::new(),
        };
        worker::serve(ConsoleDevice(Rc::new(console)), self.inflight, context).await;
    }
}

fn profile(ports: &[(PortRole, PortEnd)], window: WindowSize) -> DeviceProfile {
    // A driver without multiport takes the first port for a console.
    let multiport = ports.iter().any(|(role, _)| *role != PortRole::Console) || ports.len() > 1;
    let mut queue_sizes = vec![QUEUE_SIZE; 2];
    if multiport {
        queue_sizes.extend([control::QUEUE_SIZE; 2]);
        queue_sizes.extend(vec![QUEUE_SIZE; 2 * (ports.len() - 1)]);
    }
    DeviceProfile {
        device_type: protocol::DEVICE_TYPE,
        features: FEATURE_SIZE | if multiport { FEATURE_MULTIPORT } else { 0 } | RING_FEATURES,
        queue_sizes,
        config: protocol::config(window, ports.len()),
        config_writes: ConfigWrites::Ignored,
    }
}

/// Which ports the driver uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PortsInUse {
    /// The first, which is always open.
    One,
    /// All of which it says that they are open.
    Many,
}

/// What the queues of a console share.
#[derive(Debug)]
struct Console {
    ports: Vec<Port>,
    window: Cell<WindowSize>,
    ports_in_use: Cell<PortsInUse>,
    /// The driver has not been told to look at the window's size.
    owes_look: Cell<bool>,
    /// The driver has said something on the control queue, and what followed of it is known.
    heard: Cell<bool>,
    events: Sender<BackendEvent>,
    state: StateFile<ConsoleState>,
    /// Notified when ports open and close, and when the driver has to be told something.
    changes: Changes,
    /// Notified when a port has nothing more to transmit.
    rested: Changes,
    /// Writes that have moved something.
    moved: Cell<u64>,
    complaints: LogLimit,
}

impl Console {
    fn is_open(&self, port: &Port) -> bool {
        self.ports_in_use.get() == PortsInUse::One || port.open.get()
    }

    /// For the log.
    fn name_of(&self, port: usize) -> String {
        match &self.ports[port].role {
            PortRole::Console => "console".into(),
            PortRole::Named(name) => format!("console port {name}"),
        }
    }

    fn owe_size(&self, port: &Port) {
        if port.role == PortRole::Console && port.ready.get() && self.window.get().is_known() {
            port.owe(Owed::RESIZE);
        }
    }

    /// Linux looks at the size in the configuration space when that changes, and not when it starts.
    fn have_driver_look(&self, features: u64) {
        let in_config = features & (FEATURE_SIZE | FEATURE_MULTIPORT) == FEATURE_SIZE;
        if in_config && self.window.get().is_known() && self.owes_look.replace(false) {
            // If the channel is full, the next change of the size says it.
            let _ = self.events.try_send(BackendEvent::LookAtConfig);
        }
    }

    fn config(&self) -> Vec<u8> {
        protocol::config(self.window.get(), self.ports.len())
    }

    /// Keeps the state for a successor.
    fn store(&self) {
        let mut state = ConsoleState::new(self.window.get());
        state.heard = self.heard.get().into();
        for (kept, port) in state.ports.iter_mut().zip(&self.ports) {
            *kept = port.state();
        }
        if let Err(error) = self.state.store(&state) {
            self.complaints.warn(format_args!("console: cannot keep the state: {error}"));
        }
    }

    /// A driver is there: the same as before, or another that has said nothing yet. What it says of the ports
    /// holds for as long as the queue that it says it with, and what was written of a buffer for as long as
    /// that buffer's.
    fn meet_driver(&self, features: u64, queues: &[ActiveQueue]) {
        let says =
            |active: &&ActiveQueue| QueueRole::of(active.index()) == QueueRole::ControlTransmit;
        let multiport = features & FEATURE_MULTIPORT != 0;
        match queues.iter().find(says).filter(|_| multiport) {
            Some(active) if active.goes_on() => {
                self.take_over();
                if !self.heard.get() && !active.state().position.is_beginning() {
                    self.begin_anew();
                }
            }
            // Front ends may have one queue served after the other: who is there will be known.
            None if multiport => self.take_over(),
            _ => self.forget_driver(),
        }
        for active in queues.iter().filter(|active| !active.goes_on()) {
            if let QueueRole::Transmit(port) = QueueRole::of(active.index())
                && let Some(port) = self.ports.get(port)
            {
                port.written.set(0);
            }
        }
        self.store();
    }

    /// Go by what the driver told a predecessor.
    fn take_over(&self) {
        if let Some(state) = self.state.load() {
            self.heard.set(state.heard != 0);
            for (kept, port) in state.ports.iter().zip(&self.ports) {
                port.set_state(*kept);
            }
        }
    }

    /// Whatever a driver said of the ports is as at the beginning.
    fn forget_driver(&self) {
        self.heard.set(false);
        let kept = self.state.load();
        for (index, port) in self.ports.iter().enumerate() {
            // The queue of its buffer may go on.
            let written = kept.map_or(0, |state| state.ports[index].written);
            port.set_state(PortState { written, ..PortState::default() });
        }
    }

    /// A driver that was heard by somebody who is forgotten does not begin by itself: Linux answers to ports that it
    /// has already as to new ones, but says no more which of them are open.
    fn begin_anew(&self) {
        log::info!(
            "console: nobody knows what the driver said before: its ports are taken for open"
        );
        self.heard.set(true);
        for port in &self.ports {
            port.open.set(true);
            port.owe(Owed::ADD);
        }
        self.store();
    }
}

struct ConsoleDevice(Rc<Console>);

impl Device for ConsoleDevice {
    fn start(&mut self, features: u64, queues: Vec<ActiveQueue>) -> Result<Vec<Work>, String> {
        let console = &self.0;
        console.meet_driver(features, &queues);
        let multiport = features & FEATURE_MULTIPORT != 0;
        console.ports_in_use.set(if multiport { PortsInUse::Many } else { PortsInUse::One });
        console.have_driver_look(features);
        let ports = if multiport { console.ports.len() } else { 1 };
        let mut works: Vec<Work> = Vec::new();
        for active in queues {
            let console = console.clone();
            works.push(match QueueRole::of(active.index()) {
                QueueRole::Receive(port) if port < ports => {
                    Box::pin(receive::serve(console, port, active))
                }
                QueueRole::Transmit(port) if port < ports => {
                    Box::pin(transmit::serve(console, port, active))
                }
                QueueRole::ControlReceive if multiport => {
                    Box::pin(control::receive(console, active))
                }
                QueueRole::ControlTransmit if multiport => {
                    Box::pin(control::transmit(console, active))
                }
                _ => {
                    let index = active.index();
                    return Err(format!("queue {index} does not exist with these features"));
                }
            });
        }
        Ok(works)
    }

    fn config(&self) -> Vec<u8> {
        self.0.config()
    }

    /// A guest that writes and powers off has its last buffers still in the queue.
    async fn end(&mut self) {
        let console = &self.0;
        for port in &console.ports {
            if port.output_state.get() == OutputState::Idle {
                // Until it has looked once more.
                port.output_state.set(OutputState::Busy);
            }
        }
        console.changes.notify();
        let rested = poll_fn(|context| {
            if console.ports.iter().any(|port| port.output_state.get() == OutputState::Busy) {
                console.rested.register(context);
                return Poll::Pending;
            }
            Poll::Ready(())
        });
        let mut rested = pin!(rested);
        for _ in 0..MOST_STALLS {
            let before = console.moved.get();
            let in_time = executor::timeout(STALL, rested.as_mut()).await.is_ok();
            if in_time || console.moved.get() == before {
                // A reader that has stalled loses the rest.
                break;
            }
        }
    }

    fn change(&mut self, change: &Change) -> Result<Effect, String> {
        let Change::Window(size) = change else {
            return Err("a console has nothing to change but the size of its window".into());
        };
        let console = &self.0;
        if !console.ports.iter().any(|port| port.role == PortRole::Console) {
            return Err("named ports have no window".into());
        }
        if console.window.replace(*size) == *size {
            return Ok(Effect::Unseen);
        }
        console.ports.iter().for_each(|port| console.owe_size(port));
        console.store();
        console.changes.notify();
        Ok(Effect::Config)
    }

    fn reset(&mut self) {
        for port in &self.0.ports {
            port.set_state(PortState::default());
        }
        self.0.owes_look.set(true);
        self.0.heard.set(false);
        self.0.store();
    }
}

#[cfg(test)]
mod tests;
