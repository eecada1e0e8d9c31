//! A back end in a process of its own, as far as it can tell.

use std::cell::Cell;
use std::rc::Rc;

use devices::memory::GuestMemory;
use devices::virtio::backend::{BackendContext, BackendEvent, BackendRequest};
use devices::virtio::control::ControlRequest;
use executor::Executor;
use executor::sim::Sim;
use ipc::{Answer, Message, Receiver, Reply, Sender};

use crate::model::Running;

/// Requests that the transport may have under way, events that may wait for it.
const CAPACITY: usize = 8;

/// A back end and its transport's ends of all channels.
pub struct Actor {
    /// What it runs on.
    pub executor: Executor,
    requests: Option<Sender<BackendRequest>>,
    /// What it tells its transport.
    pub events: Receiver<BackendEvent>,
    controls: Sender<ControlRequest>,
    ended: Rc<Cell<bool>>,
}

impl Actor {
    /// Starts a back end; `make` gets what all of them get.
    pub fn start(
        sim: &Sim,
        memory: &GuestMemory,
        make: impl FnOnce(BackendContext) -> Running,
    ) -> Self {
        let (requests, receiver) = ipc::channel(CAPACITY);
        let (sender, events) = ipc::channel(CAPACITY);
        let (controls, control) = ipc::channel(CAPACITY);
        let context = BackendContext {
            memory: memory.clone(),
            requests: receiver,
            controls: control,
            events: sender,
            metrics: None,
            trace: None,
            helpers: Vec::new(),
        };
        let mut executor = sim.executor();
        let ended = Rc::new(Cell::new(false));
        let tell = Rc::clone(&ended);
        let mut running = None;
        executor.block_on(async { running = Some(make(context)) });
        executor.block_on(async {
            let whole = async move {
                if let Some(running) = running {
                    running.await;
                }
                tell.set(true);
            };
            executor::spawn(whole).detach();
        });
        Self { executor, requests: Some(requests), events, controls, ended }
    }

    /// Sends a request of the transport.
    pub fn ask<R: Message>(&self, make: impl FnOnce(Reply<R>) -> BackendRequest) -> Answer<R> {
        let (reply, answer) = Reply::pair();
        if let Some(requests) = &self.requests {
            requests.try_send(make(reply)).expect("one request at a time");
        }
        answer
    }

    /// Sends a request of somebody else; it may be too many.
    pub fn control(&self, request: ControlRequest) {
        let _ = self.controls.try_send(request);
    }

    /// The transport goes away.
    pub fn close(&mut self) {
        self.requests = None;
    }

    /// Whether it came to its end by itself.
    pub fn has_ended(&self) -> bool {
        self.ended.get()
    }
}
