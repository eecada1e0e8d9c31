//! The back end behind a connection: the same as behind any other transport.

use std::time::Duration;

use executor::TaskGroup;
use ipc::{Deadline, Message, Receiver, Reply, Sender};

use crate::memory::GuestMemory;
use crate::virtio::backend::{BackendContext, BackendEvent, BackendRequest};
use crate::virtio::control::ControlRequest;
use crate::virtio::helpers::Helper;
use crate::virtio::parts::{DeviceParts, Parts};
use crate::virtio::queue::InflightRegion;

/// How long a back end may take for what is in flight: a disk that hangs may come back.
const PATIENCE: Duration = Duration::from_mins(1);

/// A back end that runs.
pub(super) struct BackEnd {
    requests: Sender<BackendRequest>,
    /// Nobody asks for changes.
    _controls: Sender<ControlRequest>,
    pub(super) events: Receiver<BackendEvent>,
    task: TaskGroup,
}

impl BackEnd {
    pub(super) fn start(
        device: DeviceParts,
        memory: GuestMemory,
        inflight: InflightRegion,
        helpers: Vec<Helper>,
    ) -> Self {
        let (requests, receiver) = ipc::channel(1);
        let (controls_sender, controls) = ipc::channel(1);
        let (event_sender, events) = ipc::channel(8);
        let context = BackendContext {
            memory,
            requests: receiver,
            controls,
            events: event_sender,
            metrics: None,
            trace: None,
            helpers,
        };
        let task = TaskGroup::new();
        task.spawn(device.run(Some(inflight), context));
        Self { requests, _controls: controls_sender, events, task }
    }

    /// Asks it for something. An error is a sentence for the log.
    pub(super) async fn call<R: Message>(
        &self,
        make: impl FnOnce(Reply<R>) -> BackendRequest,
    ) -> Result<R, String> {
        let answer = self.requests.call(make, Deadline::after(PATIENCE)).await;
        answer.map_err(|error| format!("asking the back end: {error}"))
    }

    /// Tells it what the driver wrote to the configuration space.
    pub(super) async fn write_config(&self, offset: u32, data: Vec<u8>) -> Result<(), String> {
        self.call(|reply| BackendRequest::WriteConfig { offset, data, reply }).await
    }

    /// Its configuration space, so many bytes of it.
    pub(super) async fn read_config(&self, offset: u32, length: u32) -> Result<Vec<u8>, String> {
        self.call(|reply| BackendRequest::ReadConfig { offset, length, reply }).await
    }

    /// Ends it, when nothing is in flight any more.
    pub(super) async fn end(self) {
        let Self { requests, events, task, .. } = self;
        drop((requests, events));
        task.wait().await;
    }
}
