//! What a virtio device is made of, and its way to the thread or process that serves it.
//!
//! ```text
//!   VMM: opens files, makes descriptors ──► DeviceParts ──┬── a thread: run
//!                                               │         └── a process: VirtioStart ──► run
//!                                          try_clone, for successors
//! ```
//!
//! Whoever runs machines handles all devices alike: [`DeviceParts`] is the one list of them.

use std::future::Future;
use std::io;

use executor::KernelThread;
use ipc::{Fd, Receiver, Sender};
use serde::{Deserialize, Serialize};

use super::backend::{BackendContext, BackendEvent, BackendRequest, DeviceProfile};
use super::balloon::BalloonParts;
use super::blk::BlockImage;
use super::console::ConsoleParts;
use super::control::{Change, ControlRequest};
use super::fs::FsParts;
use super::helpers::Helper;
use super::metrics::MetricsRegion;
use super::net::NetParts;
use super::p9::P9Parts;
use super::pmem::PmemParts;
use super::queue::InflightRegion;
use super::rng::RngParts;
use super::syncs::SyncWitness;
use super::vhost_user::remote::RemoteParts;
use super::vsock::VsockParts;
use crate::memory::{GuestMemory, MapOptions, MemoryLayout};

/// How what a device asks of the kernel gets there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Submission {
    /// By a system call, with all else that a turn of its executor has.
    #[default]
    BySystemCall,
    /// By a [thread of the kernel](executor::KernelThread) that looks for it.
    ByKernelThread {
        /// The processor that it runs on, if that matters.
        processor: Option<u32>,
    },
}

impl From<Submission> for executor::Submission {
    fn from(submission: Submission) -> Self {
        match submission {
            Submission::BySystemCall => Self::BySystemCall,
            Submission::ByKernelThread { processor } => {
                Self::ByKernelThread(KernelThread { processor, ..KernelThread::default() })
            }
        }
    }
}

/// How a device learns that direct transfers are complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum DirectIo {
    /// The host's device interrupts.
    #[default]
    Interrupts,
    /// It is [asked](executor::DirectIo::Polled) again and again.
    Polled,
}

impl From<DirectIo> for executor::DirectIo {
    fn from(direct_io: DirectIo) -> Self {
        match direct_io {
            DirectIo::Interrupts => Self::Interrupts,
            DirectIo::Polled => Self::Polled,
        }
    }
}

/// What the executor that runs a device has to be like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ExecutorNeeds {
    /// How operations get to the kernel.
    pub submission: Submission,
    /// How transfers that are direct complete.
    pub direct_io: DirectIo,
}

impl ExecutorNeeds {
    /// A configuration with that, and the rest of another one.
    #[must_use]
    pub fn of_executor(self, mut config: executor::Config) -> executor::Config {
        config.submission = self.submission.into();
        config.direct_io = self.direct_io.into();
        config
    }
}

/// What one kind of device is made of. All that had to be opened is open.
pub trait Parts: Sized {
    /// What the device looks like to a transport.
    fn profile(&self) -> DeviceProfile;

    /// The same parts again, for a successor.
    fn try_clone(&self) -> io::Result<Self>;

    /// A change was made: whoever starts from these parts starts with it.
    fn remember(&mut self, change: &Change) {
        let _ = change;
    }

    /// For whoever outlives back ends: what finds out whether the last sync of one failed as it died. None where
    /// nothing is synced, or no failure is forgotten. To be called before the first back end runs.
    fn sync_witness(&self) -> Option<io::Result<SyncWitness>> {
        None
    }

    /// What the executor that [runs](Parts::run) it has to be like.
    fn executor_needs(&self) -> ExecutorNeeds {
        ExecutorNeeds::default()
    }

    /// The most threads that it can be served by: its own and [helpers](super::helpers).
    fn threads(&self) -> u16 {
        1
    }

    /// The machine is over: lets go of what may outlast this process and its back ends, as a ring
    /// holds files until the kernel gets round to closing it.
    fn release(&self) {}

    /// Serves the transport until it closes its request channel. Needs an executor on this thread.
    /// The region is for as many queues as the profile names, of the largest of their sizes.
    fn run(
        self,
        inflight: Option<InflightRegion>,
        context: BackendContext,
    ) -> impl Future<Output = ()>;
}

/// The parts of a device of any kind.
#[derive(Debug, Serialize, Deserialize)]
pub enum DeviceParts {
    /// A disk.
    Blk(BlockImage),
    /// A network.
    Net(NetParts),
    /// Sockets.
    Vsock(VsockParts),
    /// A console.
    Console(ConsoleParts),
    /// A source of entropy.
    Rng(RngParts),
    /// A memory balloon.
    Balloon(BalloonParts),
    /// A shared directory.
    Fs(FsParts),
    /// A shared directory, over 9P.
    P9(P9Parts),
    /// Persistent memory.
    Pmem(PmemParts),
    /// A device that another program serves.
    Remote(RemoteParts),
}

/// Does the same with each kind.
macro_rules! each {
    ($device:expr, $parts:ident => $then:expr) => {
        match $device {
            DeviceParts::Blk($parts) => $then,
            DeviceParts::Net($parts) => $then,
            DeviceParts::Vsock($parts) => $then,
            DeviceParts::Console($parts) => $then,
            DeviceParts::Rng($parts) => $then,
            DeviceParts::Balloon($parts) => $then,
            DeviceParts::Fs($parts) => $then,
            DeviceParts::P9($parts) => $then,
            DeviceParts::Pmem($parts) => $then,
            DeviceParts::Remote($parts) => $then,
        }
    };
}

impl Parts for DeviceParts {
    fn profile(&self) -> DeviceProfile {
        each!(self, parts => parts.profile())
    }

    fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Blk(parts) => Self::Blk(parts.try_clone()?),
            Self::Net(parts) => Self::Net(parts.try_clone()?),
            Self::Vsock(parts) => Self::Vsock(parts.try_clone()?),
            Self::Console(parts) => Self::Console(parts.try_clone()?),
            Self::Rng(parts) => Self::Rng(parts.try_clone()?),
            Self::Balloon(parts) => Self::Balloon(parts.try_clone()?),
            Self::Fs(parts) => Self::Fs(parts.try_clone()?),
            Self::P9(parts) => Self::P9(parts.try_clone()?),
            Self::Pmem(parts) => Self::Pmem(parts.try_clone()?),
            Self::Remote(parts) => Self::Remote(parts.try_clone()?),
        })
    }

    fn remember(&mut self, change: &Change) {
        each!(self, parts => parts.remember(change));
    }

    fn sync_witness(&self) -> Option<io::Result<SyncWitness>> {
        each!(self, parts => parts.sync_witness())
    }

    fn executor_needs(&self) -> ExecutorNeeds {
        each!(self, parts => parts.executor_needs())
    }

    fn threads(&self) -> u16 {
        each!(self, parts => parts.threads())
    }

    fn release(&self) {
        each!(self, parts => parts.release());
    }

    async fn run(self, inflight: Option<InflightRegion>, context: BackendContext) {
        each!(self, parts => parts.run(inflight, context).await);
    }
}

/// All that a back end in a process of its own needs; one message.
#[derive(Debug, Serialize, Deserialize)]
pub struct VirtioStart {
    /// What it serves.
    pub device: DeviceParts,
    /// The guest's memory.
    pub memory: MemoryLayout,
    /// The memory of the [`InflightRegion`], which whoever starts back ends keeps.
    pub inflight: Fd,
    /// The memory of the [`MetricsRegion`], which outlives the back end as well.
    pub metrics: Fd,
    /// The memory of a [`trace::Ring`], if what it does is to be written down.
    pub trace: Option<Fd>,
    /// Requests of the transport. When it closes, the back end ends.
    pub requests: Receiver<BackendRequest>,
    /// Requests of others.
    pub controls: Receiver<ControlRequest>,
    /// Events for the transport.
    pub events: Sender<BackendEvent>,
}

impl VirtioStart {
    /// Maps what is to be mapped and serves the device, with such help. An error is a sentence for the log.
    pub async fn run(self, helpers: Vec<Helper>) -> Result<(), String> {
        let Self { device, memory, inflight, metrics, trace, requests, controls, events } = self;
        let memory = GuestMemory::from_layout(memory, MapOptions::default())
            .map_err(|error| error.to_string())?;
        let (queues, size) = device.profile().inflight_size();
        let inflight = InflightRegion::attach(inflight.into(), queues, size)
            .map_err(|error| error.to_string())?;
        let metrics = MetricsRegion::attach(metrics.into(), queues)
            .map_err(|error| format!("cannot attach to the metrics' memory: {error}"))?;
        let metrics = Some(metrics);
        let trace = trace.map(|file| trace::Ring::attach(file.into())).transpose();
        let trace =
            trace.map_err(|error| format!("cannot attach to the trace's memory: {error}"))?;
        let context =
            BackendContext { memory, requests, controls, events, metrics, trace, helpers };
        device.run(Some(inflight), context).await;
        Ok(())
    }
}
