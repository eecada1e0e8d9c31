//! What all virtio back ends share: the message loop, the life of the queues, who may sleep when.
//!
//! ```text
//!                     Activate              Pause
//!        Idle ──────────────────► Active ─────────► Paused
//!          ▲                       │  ▲                │
//!          │        Reset          │  └────────────────┘
//!          ├───────────────────────┘      Resume       │
//!          └───────────────────────────────────────────┘
//!                                     Reset
//! ```
//!
//! A back end implements [`Device`]: it turns [`ActiveQueue`]s into futures that serve them, one for
//! each independent queue or group of queues. [`serve`] runs these as tasks on the executor of the
//! thread and answers the transport. It uses nothing but what it is given, so that it runs the same
//! on a thread and in a process of its own.

mod active;
mod asides;
mod paced;
mod pacing;
mod rest;
mod stop;
mod tries;

use std::cell::RefCell;
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;

use executor::{Either, TaskGroup, select};
use ipc::{Receiver, Reply, Sender};

use active::Notes;
pub use active::{ActiveQueue, KickError, Signalled};
pub(crate) use paced::{Interrupts, PacedQueue, Requests, serve_paced};
pub use pacing::{Next, Pacing, Patience};
pub(crate) use rest::{Changes, Rest};
pub use stop::{Stop, StopMode};
pub(crate) use tries::Tries;

use super::backend::{BackendContext, BackendEvent, BackendRequest, QueueSetup, QueueState};
use super::control::{Change, ControlRequest, Effect, Statistics};
use super::metrics::MetricsRegion;
use super::queue::InflightRegion;
use super::tracing::DeviceTrace;
use crate::memory::GuestMemory;

/// Serves queues until their [`Stop`] says so, and gives them back with nothing in flight.
pub type Work = Pin<Box<dyn Future<Output = Vec<ActiveQueue>>>>;

/// What a back end does beyond what all of them do.
pub trait Device {
    /// Serve these queues: when the driver is ready and when the device goes on after a pause. An
    /// error is a sentence for the log.
    fn start(&mut self, features: u64, queues: Vec<ActiveQueue>) -> Result<Vec<Work>, String>;

    /// The device configuration space as it is now.
    fn config(&self) -> Vec<u8>;

    /// What it is made of, for a trace; nothing, if nobody can replay it.
    fn made(&self) -> Vec<u8> {
        Vec::new()
    }

    /// The driver wrote to the device configuration space.
    fn write_config(&mut self, offset: u32, data: &[u8]) {
        let _ = (offset, data);
    }

    /// The driver reset the device; whatever it had set is as at the beginning.
    fn reset(&mut self) {}

    /// The machine has ended, and queues are served for the last time: what the driver has handed over
    /// may still be worth something.
    fn end(&mut self) -> impl Future<Output = ()> {
        std::future::ready(())
    }

    /// Somebody else than the driver wants the device to be different. An error is a sentence for
    /// whoever asked.
    fn change(&mut self, change: &Change) -> Result<Effect, String> {
        let _ = change;
        Err("this device has nothing of that kind to change".into())
    }

    /// What it has done.
    fn statistics(&self) -> Statistics {
        Statistics::None
    }

    /// Say what it has done; later, if somebody else has to be asked first.
    fn report(&mut self, reply: Reply<Statistics>) {
        reply.send(self.statistics());
    }
}

/// Run a back end until the transport closes its request channel. Needs an executor on this
/// thread.
pub async fn serve(device: impl Device, inflight: Option<InflightRegion>, context: BackendContext) {
    serve_share(device, inflight, Share::All, context).await;
}

/// Which queues of its device a back end has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Share {
    /// All of them.
    All,
    /// Some: whoever has them served forgets what the device as a whole has in flight.
    Some,
}

/// [`serve`], perhaps as one of several that have a device together.
pub(crate) async fn serve_share(
    mut device: impl Device,
    inflight: Option<InflightRegion>,
    share: Share,
    context: BackendContext,
) {
    let BackendContext { memory, mut requests, mut controls, events, metrics, trace, .. } = context;
    let trace = DeviceTrace::begin(trace.as_ref());
    trace.made(|| device.made());
    let memory = Rc::new(memory);
    let state = State::Idle;
    let mut queues = Queues { memory, events, inflight, share, metrics, trace, state };
    loop {
        let request = match select(pin!(requests.recv()), pin!(next(&mut controls))).await {
            Either::Left(Ok(request)) => request,
            Either::Left(Err(_)) => break,
            Either::Right(request) => {
                obey(&mut device, request, &queues).await;
                continue;
            }
        };
        match request {
            BackendRequest::Activate { features, queues: setups, reply } => {
                queues.trace.activated(features, &setups);
                reply.send(queues.activate(&mut device, features, setups));
            }
            BackendRequest::Reset { reply } => {
                queues.reset().await;
                device.reset();
                queues.trace.reset();
                reply.send(());
            }
            BackendRequest::Pause { reply } => {
                let states = queues.pause().await;
                queues.trace.paused();
                reply.send(states);
            }
            BackendRequest::Resume { reply } => {
                queues.trace.resumed();
                queues.resume(&mut device).await;
                reply.send(());
            }
            BackendRequest::Detach { reply } => {
                let states = queues.detach().await;
                queues.trace.detached();
                reply.send(states);
            }
            BackendRequest::ReadConfig { offset, length, reply } => {
                reply.send(part(&device.config(), offset, length));
            }
            BackendRequest::WriteConfig { offset, data, reply } => {
                queues.trace.config_written(offset, &data);
                device.write_config(offset, &data);
                reply.send(());
            }
        }
    }
    // The transport is gone. What the guest has been promised nothing about may still be written.
    device.end().await;
    queues.quiesce(StopMode::Drain).await;
}

/// The next request of others than the transport, of whom there may be none.
pub(crate) async fn next(controls: &mut Receiver<ControlRequest>) -> ControlRequest {
    match controls.recv().await {
        Ok(request) => request,
        Err(_) => std::future::pending().await,
    }
}

async fn obey(device: &mut impl Device, request: ControlRequest, queues: &Queues) {
    match request {
        ControlRequest::Change { change, reply } => {
            let changed = device.change(&change);
            queues.trace.made(|| device.made());
            if changed == Ok(Effect::Config) {
                let event = BackendEvent::ConfigChanged { config: device.config() };
                // A closed channel ends the message loop next.
                let _ = queues.events.send(event).await;
            }
            reply.send(changed.map(|_| ()));
        }
        ControlRequest::Statistics { reply } => device.report(reply),
    }
}

fn part(config: &[u8], offset: u32, length: u32) -> Vec<u8> {
    let start = (offset as usize).min(config.len());
    let end = start.saturating_add(length as usize).min(config.len());
    config[start..end].to_vec()
}

enum State {
    Idle,
    Active(Running),
    Paused { features: u64, queues: Vec<ActiveQueue> },
}

/// Tasks that serve queues.
struct Running {
    features: u64,
    stop: Stop,
    tasks: TaskGroup,
    /// Where tasks leave their queues when they end.
    parked: Rc<RefCell<Vec<ActiveQueue>>>,
}

struct Queues {
    memory: Rc<GuestMemory>,
    events: Sender<BackendEvent>,
    inflight: Option<InflightRegion>,
    share: Share,
    metrics: Option<MetricsRegion>,
    trace: DeviceTrace,
    state: State,
}

impl Queues {
    fn activate(
        &mut self,
        device: &mut impl Device,
        features: u64,
        setups: Vec<QueueSetup>,
    ) -> Result<(), String> {
        if !matches!(self.state, State::Idle) {
            return Err("the device is active already".into());
        }
        let stop = Stop::new();
        let activated = setups
            .into_iter()
            .map(|setup| {
                let record = self.inflight.as_ref().map(|region| {
                    region.record(setup.index).ok_or_else(|| {
                        format!("queue {} has no place in the in-flight record", setup.index)
                    })
                });
                let record = record.transpose()?;
                let metrics = self.metrics.as_ref().and_then(|region| region.queue(setup.index));
                let metrics = metrics.unwrap_or_default();
                let (memory, events) = (&self.memory, &self.events);
                let notes = Notes { metrics, trace: self.trace.clone() };
                ActiveQueue::new(memory, features, setup, record, notes, events, &stop)
            })
            .collect::<Result<Vec<_>, String>>()
            .and_then(|queues| run(device, features, queues, stop));
        match activated {
            Ok(running) => {
                self.state = State::Active(running);
                Ok(())
            }
            Err(reason) => {
                // The device needs a reset now; nothing of these queues is to be taken over.
                self.forget();
                Err(reason)
            }
        }
    }

    async fn reset(&mut self) {
        let queues = self.quiesce(StopMode::Abort).await;
        for queue in queues {
            queue.retire();
        }
        self.forget();
    }

    async fn pause(&mut self) -> Vec<QueueState> {
        let features = match &self.state {
            State::Idle => return Vec::new(),
            State::Active(running) => running.features,
            State::Paused { features, .. } => *features,
        };
        let queues = self.quiesce(StopMode::Drain).await;
        let states = queues.iter().map(ActiveQueue::state).collect();
        self.state = State::Paused { features, queues };
        states
    }

    async fn detach(&mut self) -> Vec<QueueState> {
        let queues = self.quiesce(StopMode::Drain).await;
        let states = queues.iter().map(ActiveQueue::state).collect();
        for queue in queues {
            queue.let_go();
        }
        states
    }

    async fn resume(&mut self, device: &mut impl Device) {
        let (features, mut queues) = match std::mem::replace(&mut self.state, State::Idle) {
            State::Paused { features, queues } => (features, queues),
            other => {
                self.state = other;
                return;
            }
        };
        let stop = Stop::new();
        for queue in &mut queues {
            queue.resume(&stop);
        }
        let first = queues.first().map_or(0, ActiveQueue::index);
        match run(device, features, queues, stop) {
            Ok(running) => self.state = State::Active(running),
            Err(reason) => {
                let event = BackendEvent::NeedsReset { queue: first, reason };
                // A closed channel ends the message loop next.
                let _ = self.events.send(event).await;
            }
        }
    }

    /// Stop all tasks; the queues that they served, in order, with nothing in flight.
    async fn quiesce(&mut self, mode: StopMode) -> Vec<ActiveQueue> {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Idle => Vec::new(),
            State::Paused { queues, .. } => queues,
            State::Active(running) => {
                running.stop.stop(mode);
                running.tasks.wait().await;
                let mut queues = running.parked.take();
                queues.sort_unstable_by_key(ActiveQueue::index);
                queues
            }
        }
    }

    fn forget(&self) {
        if let (Share::All, Some(inflight)) = (self.share, &self.inflight) {
            inflight.clear();
        }
    }
}

fn run(
    device: &mut impl Device,
    features: u64,
    queues: Vec<ActiveQueue>,
    stop: Stop,
) -> Result<Running, String> {
    let works = device.start(features, queues)?;
    let tasks = TaskGroup::new();
    let parked: Rc<RefCell<Vec<ActiveQueue>>> = Rc::default();
    for work in works {
        let parked = parked.clone();
        tasks.spawn(async move {
            let queues = work.await;
            parked.borrow_mut().extend(queues);
        });
    }
    Ok(Running { features, stop, tasks, parked })
}
