//! The block back end (virtio 1.3 section 5.2): an actor that moves data between guest memory and a
//! file.
//!
//! ```text
//!   kick ─► avail ring ─► request ─► one read or write straight on guest memory ─┐
//!                                                                                │ one visit to
//!   interrupt ◄─ used ring ◄─ status byte ◄─ completions ◄───────────────────────┘ the kernel
//! ```
//!
//! One task per queue; each drains all that is there, hands it to the kernel at once, and publishes
//! all that has completed at once. A request that is one transfer takes one operation; transfers
//! that end early go on where they stopped, unaligned direct I/O goes through a bounce buffer,
//! discards take one operation a range.
//!
//! # Durability
//!
//! The device is write-back when the driver takes `FLUSH`: a flush completes after an `fdatasync`
//! that started after the flush was taken, so it covers every write that completed before the driver
//! sent it. Writes that are still under way then are not covered; the specification does not ask for
//! it (virtio 1.3 section 5.2.6.2). After a sync that failed every later one fails. Without `FLUSH`, or when the driver clears `writeback`, each
//! write is followed by an `fdatasync` before it completes.
//!
//! # After a crash
//!
//! What was in flight is repeated from the in-flight record. All requests can be repeated: until a
//! write is published as used, the driver relies neither on the old nor on the new contents. Whoever
//! starts the successor must first see the dead process gone, so that its own writes are over.

mod error;
mod image;
mod protocol;
mod request;
mod server;
mod strategy;
mod traced;
mod trial;
mod view;
mod way;

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::AsFd;
use std::pin::pin;
use std::rc::Rc;

use executor::{Fd, select};

pub use super::file_lock::Holder;
pub use error::BlkError;
pub use image::{
    Access, BlockImage, BlockSize, Caching, DEFAULT_QUEUE_SIZE, DiskOptions, ID_LENGTH, MAX_QUEUES,
    SECTOR_SIZE,
};
pub use strategy::{IoStrategy, Storage};
pub use traced::describe_request;

use self::image::Geometry;
use self::protocol::CacheMode;
use self::view::View;
use super::backend::{BackendContext, ConfigWrites, DeviceProfile};
use super::control::{Change, Effect, LimitedTraffic};
use super::file_lock;
use super::parts::{DirectIo, ExecutorNeeds, Parts};
use super::queue::InflightRegion;
use super::syncs::{Failed, SyncWitness, Syncs};
use super::worker::{self, ActiveQueue, Changes, Device, Patience, Work};
use crate::log_limit::LogLimit;
use crate::rate_limit::RateLimiter;

/// A disk that is ready to run.
#[derive(Debug)]
pub struct BlockBackend {
    image: BlockImage,
    strategy: IoStrategy,
    /// Whether the file is read from a mapping where it can be.
    mapped: bool,
    patience: Patience,
    inflight: Option<InflightRegion>,
}

impl Parts for BlockImage {
    fn profile(&self) -> DeviceProfile {
        let geometry = &self.geometry;
        DeviceProfile {
            device_type: protocol::DEVICE_TYPE,
            features: protocol::features(geometry),
            queue_sizes: vec![geometry.queue_size; usize::from(geometry.queues)],
            config: protocol::config(geometry, CacheMode::WriteBack),
            config_writes: ConfigWrites::Forwarded,
        }
    }

    fn try_clone(&self) -> io::Result<Self> {
        let (file, geometry) = (self.file.try_clone()?, self.geometry.clone());
        Ok(Self { file, geometry, limits: self.limits, executor: self.executor })
    }

    fn remember(&mut self, change: &Change) {
        match change {
            Change::Size { bytes } => self.geometry.size = *bytes,
            Change::RateLimits { limits, .. } => self.limits = *limits,
            Change::Link(_)
            | Change::Window(_)
            | Change::Balloon { .. }
            | Change::Share(_)
            | Change::Unshare { .. } => {}
        }
    }

    fn sync_witness(&self) -> Option<io::Result<SyncWitness>> {
        let forgets = self.geometry.failed_syncs() == Failed::IsForgotten;
        (forgets && self.access() == Access::ReadWrite).then(|| SyncWitness::of(self.file()))
    }

    fn executor_needs(&self) -> ExecutorNeeds {
        self.executor
    }

    fn release(&self) {
        file_lock::release(self.file());
    }

    async fn run(self, inflight: Option<InflightRegion>, context: BackendContext) {
        BlockBackend { inflight, ..BlockBackend::new(self) }.run(context).await;
    }
}

impl BlockBackend {
    /// Serve `image`.
    pub fn new(image: BlockImage) -> Self {
        Self {
            strategy: IoStrategy::probe(image.file()),
            image,
            mapped: true,
            patience: Patience::for_this_host(),
            inflight: None,
        }
    }

    /// Record what is in flight there, and take over what it says. The region is for as many queues
    /// of the size that [`BlockBackend::profile`] names.
    #[must_use]
    pub fn with_inflight(mut self, region: InflightRegion) -> Self {
        self.inflight = Some(region);
        self
    }

    /// How reads and writes reach the file.
    #[must_use]
    pub fn with_strategy(mut self, strategy: IoStrategy) -> Self {
        self.strategy = strategy;
        self
    }

    /// Never read from a mapping of the file.
    #[must_use]
    pub fn without_mapping(mut self) -> Self {
        self.mapped = false;
        self
    }

    /// For how long a queue's task looks for more work before it sleeps.
    #[must_use]
    pub fn with_patience(mut self, patience: Patience) -> Self {
        self.patience = patience;
        self
    }

    /// What the device looks like to a transport.
    pub fn profile(&self) -> DeviceProfile {
        self.image.profile()
    }

    /// Serve the transport until it closes its request channel. Needs an executor on this thread.
    pub async fn run(self, context: BackendContext) {
        let BlockImage { file, geometry, limits, executor } = self.image;
        let file = match executor.direct_io {
            DirectIo::Interrupts => Fd::new(file),
            DirectIo::Polled => Fd::polled(file),
        };
        let file = match file {
            Ok(file) => file,
            Err(error) => {
                // The transport sees the channel close.
                log::error!("the block back end cannot use its file: {error}");
                return;
            }
        };
        let view = match self.strategy {
            IoStrategy::Adaptive | IoStrategy::InMemory if self.mapped => {
                View::of(file.as_fd(), geometry.size)
            }
            IoStrategy::Adaptive | IoStrategy::InMemory | IoStrategy::Ring => None,
        };
        let disk = Disk {
            file,
            view,
            syncs: Syncs::new(geometry.failed_syncs(), self.inflight.as_ref()),
            geometry: RefCell::new(geometry),
            limiter: RefCell::new(RateLimiter::new(limits, executor::now())),
            changes: Rc::default(),
            strategy: self.strategy,
            patience: self.patience,
            writeback: Cell::new(CacheMode::WriteBack),
            mode: Cell::new(CacheMode::WriteBack),
            complaints: LogLimit::new(),
        };
        let disk = Rc::new(disk);
        let device = BlockDevice { disk: disk.clone(), record: self.inflight.clone() };
        let serving = worker::serve(device, self.inflight, context);
        match &disk.view {
            Some(view) => drop(select(pin!(serving), pin!(view.tidy(view::REST))).await),
            None => serving.await,
        }
    }
}

/// What the queues of a disk share.
#[derive(Debug)]
struct Disk {
    file: Fd,
    /// For reads without system calls; of what the file was at first.
    view: Option<View>,
    syncs: Syncs,
    /// Its size can change.
    geometry: RefCell<Geometry>,
    limiter: RefCell<RateLimiter>,
    /// Notified when the limits are others.
    changes: Rc<Changes>,
    strategy: IoStrategy,
    patience: Patience,
    /// `writeback` of the configuration space.
    writeback: Cell<CacheMode>,
    /// What writes go by now.
    mode: Cell<CacheMode>,
    complaints: LogLimit,
}

struct BlockDevice {
    disk: Rc<Disk>,
    /// Where a successor finds what the driver chose: not every transport says it once more.
    record: Option<InflightRegion>,
}

/// The choice in the record.
const WRITE_THROUGH: u64 = 1;

impl BlockDevice {
    fn choose(&self, mode: CacheMode) {
        self.disk.writeback.set(mode);
        if let Some(record) = &self.record {
            record.keep_choice(if mode == CacheMode::WriteThrough { WRITE_THROUGH } else { 0 });
        }
    }

    /// Go by what the driver chose while a predecessor was there. Whatever it is, writes are never durable
    /// later than the driver thinks.
    fn take_over(&self, queues: &[ActiveQueue]) {
        let chosen = self.record.as_ref().map_or(0, InflightRegion::choice);
        if chosen == WRITE_THROUGH && queues.iter().any(ActiveQueue::goes_on) {
            self.disk.writeback.set(CacheMode::WriteThrough);
        }
    }

    /// Virtio 1.3 section 5.2.5: the byte counts if negotiated, else having a flush does.
    fn choose_mode(&self, features: u64) {
        let mode = if features & protocol::FEATURE_CONFIG_WCE != 0 {
            self.disk.writeback.get()
        } else if features & protocol::FEATURE_FLUSH != 0 {
            CacheMode::WriteBack
        } else {
            CacheMode::WriteThrough
        };
        self.disk.mode.set(mode);
    }
}

impl BlockDevice {
    /// Requests under way keep the places that they were checked for: what is behind the end of
    /// the file by now fails.
    fn resize(&self, bytes: u64) -> Result<Effect, String> {
        let mut geometry = self.disk.geometry.borrow_mut();
        let block = geometry.block_size.bytes();
        if bytes == 0 || !bytes.is_multiple_of(block.into()) {
            return Err(format!("the size of this disk is a multiple of {block} bytes"));
        }
        let had = std::mem::replace(&mut geometry.size, bytes);
        Ok(if had == bytes { Effect::Unseen } else { Effect::Config })
    }
}

impl Device for BlockDevice {
    fn made(&self) -> Vec<u8> {
        traced::state(&self.disk.geometry.borrow())
    }

    fn start(&mut self, features: u64, queues: Vec<ActiveQueue>) -> Result<Vec<Work>, String> {
        self.take_over(&queues);
        self.choose_mode(features);
        let serve = |queue| -> Work { Box::pin(server::serve(self.disk.clone(), queue)) };
        Ok(queues.into_iter().map(serve).collect())
    }

    fn config(&self) -> Vec<u8> {
        protocol::config(&self.disk.geometry.borrow(), self.disk.writeback.get())
    }

    fn write_config(&mut self, offset: u32, data: &[u8]) {
        if let (protocol::CONFIG_WRITEBACK, [value]) = (offset, data) {
            let mode = match value {
                0 => CacheMode::WriteThrough,
                _ => CacheMode::WriteBack,
            };
            self.choose(mode);
            // Only a driver that negotiated it writes here.
            self.disk.mode.set(mode);
        }
    }

    fn change(&mut self, change: &Change) -> Result<Effect, String> {
        match change {
            Change::Size { bytes } => self.resize(*bytes),
            Change::RateLimits { traffic: LimitedTraffic::Both, limits } => {
                self.disk.limiter.borrow_mut().change(*limits, executor::now());
                self.disk.changes.notify();
                Ok(Effect::Unseen)
            }
            Change::RateLimits { .. } => {
                Err("the limits of a disk are for both directions together".into())
            }
            Change::Link(_)
            | Change::Window(_)
            | Change::Balloon { .. }
            | Change::Share(_)
            | Change::Unshare { .. } => {
                Err("a disk has no link, no window, no balloon and no directories".into())
            }
        }
    }

    fn reset(&mut self) {
        self.choose(CacheMode::WriteBack);
    }
}

#[cfg(test)]
mod tests;
