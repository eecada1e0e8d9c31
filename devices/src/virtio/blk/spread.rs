//! The queues of one disk on several threads.
//!
//! ```text
//!                                      ┌──► worker::serve_share: queues 0, N, 2N...     this thread
//!   transport ── BackendRequest ──► spread ─► worker::serve_share: queues 1, N + 1...   a helper
//!   others ───── ControlRequest ──►    └──► ...
//! ```
//!
//! Each thread has the disk once more, with an open file, a mapping and a ring of its own, and none waits for
//! another one to serve a request. What has to be the same for all of them is in `Common`, and
//! in the limits if there are any. What they are asked goes to all of them, and all have to answer, so that
//! one that hangs is noticed as a disk that hangs.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use executor::{Either, join, join_all, select};
use ipc::{CallError, Deadline, Message, Receiver, Reply, Sender};
use thiserror::Error;

use super::{Common, Seed};
use crate::virtio::backend::{BackendContext, BackendRequest, QueueSetup, QueueState};
use crate::virtio::control::{Change, ControlRequest, Statistics};
use crate::virtio::helpers::{Helper, HelperGone};
use crate::virtio::queue::InflightRegion;
use crate::virtio::worker::next;

/// One request of each kind is passed on at a time.
const CAPACITY: usize = 1;

/// Who waits for an answer has a deadline for it; here there is none before that.
const LONG: Duration = Duration::from_hours(24 * 365);

/// Why a disk cannot be served any more.
#[derive(Debug, Error)]
pub(super) enum SpreadError {
    #[error(transparent)]
    Gone(#[from] HelperGone),
    #[error("a thread does not serve its queues any more: {0}")]
    Silent(#[from] CallError),
}

/// Serves a disk on this thread and with helpers, until the transport closes its channel.
pub(super) async fn serve(
    first: Seed,
    team: Vec<(Helper, Seed)>,
    record: Option<InflightRegion>,
    context: BackendContext,
) -> Result<(), SpreadError> {
    let BackendContext { memory, mut requests, mut controls, events, metrics, .. } = context;
    let mut spread =
        Spread { common: Arc::clone(&first.common), record: record.clone(), threads: Vec::new() };
    // Closed when all threads have let go of it.
    let (busy, mut all_done) = ipc::channel::<()>(1);
    let mut part = || {
        let (thread, requests, controls) = Thread::new();
        spread.threads.push(thread);
        BackendContext {
            memory: memory.clone(),
            requests,
            controls,
            events: events.clone(),
            metrics: metrics.clone(),
            trace: None,
            helpers: Vec::new(),
        }
    };
    let own = first.serve(record.clone(), part());
    for (helper, seed) in team {
        let (context, record, busy) = (part(), record.clone(), busy.clone());
        helper.give(move || async move {
            seed.serve(record, context).await;
            drop(busy);
        })?;
    }
    drop((busy, events));
    let speak = async {
        let spoken = spread.serve(&mut requests, &mut controls).await;
        // All threads finish what they have.
        drop(spread);
        // Nobody sends: it can only be closed.
        let _ = all_done.recv().await;
        spoken
    };
    let ((), spoken) = join(own, speak).await;
    spoken
}

/// A thread's ends.
struct Thread {
    requests: Sender<BackendRequest>,
    controls: Sender<ControlRequest>,
}

impl Thread {
    fn new() -> (Self, Receiver<BackendRequest>, Receiver<ControlRequest>) {
        let (requests, request_receiver) = ipc::channel(CAPACITY);
        let (controls, control_receiver) = ipc::channel(CAPACITY);
        (Self { requests, controls }, request_receiver, control_receiver)
    }

    async fn ask<R: Message>(
        &self,
        make: impl FnOnce(Reply<R>) -> BackendRequest,
    ) -> Result<R, CallError> {
        self.requests.call(make, Deadline::after(LONG)).await
    }
}

/// What speaks for all threads.
struct Spread {
    common: Arc<Common>,
    record: Option<InflightRegion>,
    /// This one first.
    threads: Vec<Thread>,
}

impl Spread {
    async fn serve(
        &self,
        requests: &mut Receiver<BackendRequest>,
        controls: &mut Receiver<ControlRequest>,
    ) -> Result<(), SpreadError> {
        loop {
            match select(pin!(requests.recv()), pin!(next(controls))).await {
                Either::Left(Ok(request)) => self.pass_on(request).await?,
                Either::Left(Err(_)) => return Ok(()),
                Either::Right(control) => self.obey(control).await?,
            }
        }
    }

    async fn pass_on(&self, request: BackendRequest) -> Result<(), SpreadError> {
        match request {
            BackendRequest::Activate { features, queues, reply } => {
                reply.send(self.activate(features, queues).await?);
            }
            BackendRequest::Reset { reply } => {
                self.reset().await?;
                reply.send(());
            }
            BackendRequest::Pause { reply } => {
                let states = self.all(|reply| BackendRequest::Pause { reply }).await?;
                reply.send(in_order(&states));
            }
            BackendRequest::Resume { reply } => {
                self.all(|reply| BackendRequest::Resume { reply }).await?;
                reply.send(());
            }
            BackendRequest::Detach { reply } => {
                let states = self.all(|reply| BackendRequest::Detach { reply }).await?;
                reply.send(in_order(&states));
            }
            BackendRequest::ReadConfig { offset, length, reply } => {
                let read = |reply| BackendRequest::ReadConfig { offset, length, reply };
                let mut spaces = self.all(read).await?;
                reply.send(spaces.swap_remove(0));
            }
            BackendRequest::WriteConfig { offset, data, reply } => {
                // What comes of it is there for all.
                let write = |reply| BackendRequest::WriteConfig { offset, data, reply };
                self.threads[0].ask(write).await?;
                reply.send(());
            }
        }
        Ok(())
    }

    async fn activate(
        &self,
        features: u64,
        queues: Vec<QueueSetup>,
    ) -> Result<Result<(), String>, SpreadError> {
        let goes_on = queues.iter().any(|queue| self.goes_on(queue));
        self.common.begin(features, goes_on, self.record.as_ref());
        let count = self.threads.len();
        let mut shares = (0..count).map(|_| Vec::new()).collect::<Vec<_>>();
        for queue in queues {
            shares[usize::from(queue.index) % count].push(queue);
        }
        let begun = join_all(self.threads.iter().zip(shares).map(|(thread, queues)| {
            thread.ask(move |reply| BackendRequest::Activate { features, queues, reply })
        }));
        let begun = begun.await.into_iter().collect::<Result<Vec<_>, _>>()?;
        let outcome = begun.into_iter().collect::<Result<(), String>>();
        if outcome.is_err() {
            // Those who have begun must not go on: the device needs a reset now.
            self.reset().await?;
        }
        Ok(outcome)
    }

    /// As `ActiveQueue::goes_on` will say, before there is one.
    fn goes_on(&self, setup: &QueueSetup) -> bool {
        let record = self.record.as_ref().and_then(|region| region.record(setup.index));
        let is_live = record.is_some_and(|record| record.is_live(setup.size, setup.layout));
        setup.state.is_some() || is_live
    }

    async fn reset(&self) -> Result<(), SpreadError> {
        self.all(|reply| BackendRequest::Reset { reply }).await?;
        if let Some(record) = &self.record {
            record.clear();
        }
        Ok(())
    }

    async fn obey(&self, control: ControlRequest) -> Result<(), SpreadError> {
        match control {
            ControlRequest::Change { change, reply } => reply.send(self.change(&change).await?),
            // None has counted anything that the metrics do not have.
            ControlRequest::Statistics { reply } => reply.send(Statistics::None),
        }
        Ok(())
    }

    /// Changes are made by all. This thread is the last, and tells the driver when they hold.
    async fn change(&self, change: &Change) -> Result<Result<(), String>, SpreadError> {
        for thread in self.threads.iter().rev() {
            let make = |reply| ControlRequest::Change { change: change.clone(), reply };
            let changed = thread.controls.call(make, Deadline::after(LONG)).await?;
            if changed.is_err() {
                // What one refuses all do.
                return Ok(changed);
            }
        }
        Ok(Ok(()))
    }

    /// Asks all threads at the same time; their answers in order.
    async fn all<R: Message>(
        &self,
        make: impl Fn(Reply<R>) -> BackendRequest,
    ) -> Result<Vec<R>, CallError> {
        let make = &make;
        join_all(self.threads.iter().map(|thread| thread.ask(make))).await.into_iter().collect()
    }
}

fn in_order(states: &[Vec<QueueState>]) -> Vec<QueueState> {
    let mut states = states.concat();
    states.sort_unstable_by_key(|state| state.index);
    states
}
