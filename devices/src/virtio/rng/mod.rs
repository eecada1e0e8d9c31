//! The entropy back end (virtio 1.3 section 5.4): an actor that fills the driver's buffers with the
//! kernel's random numbers.
//!
//! ```text
//!   kick ─► available ring ─► getrandom straight into guest memory ─► used ring ─► interrupt
//!                 ▲
//!            rate limit
//! ```
//!
//! One call fills a bounded piece of a buffer and the buffer is given back with that: a driver that
//! wants more asks again. So no request keeps the thread for long, whatever its length. Whatever a
//! predecessor had taken is filled again; nobody has seen those numbers.

mod parts;

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use thiserror::Error;

pub use parts::RngParts;

use super::backend::{BackendContext, ConfigWrites, DeviceProfile};
use super::control::{Change, Effect, LimitedTraffic};
use super::queue::{Chain, GuestBuffers, InflightRegion, QueueError, RING_FEATURES, Side};
use super::worker::{self, ActiveQueue, Changes, Device, KickError, Rest, StopMode, Work};
use crate::log_limit::LogLimit;
use crate::rate_limit::{RateLimiter, RateLimits};

/// Virtio device type of an entropy source.
const DEVICE_TYPE: u16 = 4;
/// Descriptors of the queue: Linux has one buffer of at most a page under way.
const QUEUE_SIZE: u16 = 64;
/// Most bytes for one buffer: some 20 us of the kernel's generator, and much for its callers.
const MOST_BYTES: usize = 8 << 10;
/// Bytes before the driver gets them and other tasks run.
const BATCH_BYTES: usize = 8 * MOST_BYTES;
/// How long to leave a host alone that has no random numbers yet, or refuses them.
const TROUBLE_PAUSE: Duration = Duration::from_millis(100);

/// Why the queue cannot go on.
#[derive(Debug, Error)]
enum Failure {
    #[error(transparent)]
    Queue(#[from] QueueError),
    #[error("chain {head} has no byte to fill")]
    NothingToFill { head: u16 },
    #[error(transparent)]
    Kick(#[from] KickError),
}

/// An entropy source that is ready to run.
#[derive(Debug)]
pub struct RngBackend {
    limits: RateLimits,
    inflight: Option<InflightRegion>,
}

impl RngBackend {
    /// One that keeps to these limits: bytes, and buffers as operations.
    pub fn new(limits: RateLimits) -> Self {
        Self { limits, inflight: None }
    }

    /// Record what is in flight there, and take over what it says.
    #[must_use]
    pub fn with_inflight(mut self, region: InflightRegion) -> Self {
        self.inflight = Some(region);
        self
    }

    /// What the device looks like to a transport.
    pub fn profile() -> DeviceProfile {
        DeviceProfile {
            device_type: DEVICE_TYPE,
            features: RING_FEATURES,
            queue_sizes: vec![QUEUE_SIZE],
            config: Vec::new(),
            config_writes: ConfigWrites::Ignored,
        }
    }

    /// Serve the transport until it closes its request channel. Needs an executor on this thread.
    pub async fn run(self, context: BackendContext) {
        let source = Source {
            limit: RefCell::new(RateLimiter::new(self.limits, executor::now())),
            changes: Changes::default(),
            complaints: LogLimit::new(),
        };
        worker::serve(RngDevice(Rc::new(source)), self.inflight, context).await;
    }
}

/// What the device keeps to.
#[derive(Debug)]
struct Source {
    limit: RefCell<RateLimiter>,
    changes: Changes,
    complaints: LogLimit,
}

struct RngDevice(Rc<Source>);

impl Device for RngDevice {
    fn start(&mut self, _: u64, queues: Vec<ActiveQueue>) -> Result<Vec<Work>, String> {
        let serve = |active| -> Work { Box::pin(serve(self.0.clone(), active)) };
        Ok(queues.into_iter().map(serve).collect())
    }

    fn config(&self) -> Vec<u8> {
        Vec::new()
    }

    fn change(&mut self, change: &Change) -> Result<Effect, String> {
        match change {
            Change::RateLimits { traffic: LimitedTraffic::Both, limits } => {
                self.0.limit.borrow_mut().change(*limits, executor::now());
                self.0.changes.notify();
                Ok(Effect::Unseen)
            }
            _ => Err("an entropy source has one limit for all of it and nothing else".into()),
        }
    }
}

async fn serve(source: Rc<Source>, active: ActiveQueue) -> Vec<ActiveQueue> {
    let size = usize::from(active.queue.size());
    let memory = active.memory().clone();
    let mut server = Server {
        source,
        chain: Chain::new(memory.clone(), size),
        buffers: GuestBuffers::new(memory),
        active,
    };
    if let Err(failure) = server.serve().await {
        server.active.fail(failure.to_string()).await;
    }
    vec![server.active]
}

struct Server {
    source: Rc<Source>,
    active: ActiveQueue,
    chain: Chain,
    buffers: GuestBuffers,
}

impl Server {
    /// Until it is time to stop. Nothing is in flight between two rounds, so both ways to stop are
    /// one.
    async fn serve(&mut self) -> Result<(), Failure> {
        loop {
            if self.active.available().await?.is_some() {
                return Ok(());
            }
            let began = executor::now();
            let rest = self.fill_some()?;
            self.active.publish_taken_at(began);
            if self.take(rest).await.is_some() {
                return Ok(());
            }
            executor::yield_now().await;
        }
    }

    /// Fill buffers until there are no more, or enough for one round; says for how long to rest.
    fn fill_some(&mut self) -> Result<Rest, Failure> {
        let mut bytes = 0;
        while bytes < BATCH_BYTES {
            let rest = Rest::for_limit(&self.source.limit, &self.source.changes);
            if !rest.is_none() {
                return Ok(rest);
            }
            if !self.active.queue.pop(&mut self.chain)? {
                break;
            }
            let head = self.chain.head();
            if self.chain.writable_bytes() == 0 {
                return Err(Failure::NothingToFill { head });
            }
            self.buffers.fill(&self.chain, Side::Writable);
            match self.buffers.fill_random(MOST_BYTES) {
                Ok(filled) => {
                    self.source.limit.borrow_mut().charge(filled as u64);
                    self.active.metrics().moved(filled as u64);
                    self.active.queue.push_used(head, filled as u32);
                    bytes += filled;
                }
                Err(error) => {
                    self.source.complaints.warn(format_args!("no random numbers: {error}"));
                    self.active.queue.put_back(head);
                    return Ok(Rest::nap(TROUBLE_PAUSE));
                }
            }
        }
        Ok(Rest::None)
    }

    /// Take a rest, or hear that it is time to stop.
    async fn take(&mut self, mut rest: Rest) -> Option<StopMode> {
        poll_fn(|context| match self.active.poll_stop(context) {
            Some(mode) => Poll::Ready(Some(mode)),
            None => rest.poll(&self.source.changes, context).map(|()| None),
        })
        .await
    }
}

#[cfg(test)]
mod tests;
