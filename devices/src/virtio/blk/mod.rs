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
//! All tasks are on one thread, or, if a disk asks for it, each queue's is on one of several (`spread`).
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
mod spread;
mod strategy;
mod traced;
mod trial;
mod view;
mod way;

use std::cell::RefCell;
use std::io;
use std::os::fd::AsFd;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

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
use super::worker::{self, ActiveQueue, Changes, Device, Patience, Share, Work};
use crate::log_limit::LogLimit;
use crate::rate_limit::RateLimiter;

/// A disk that is ready to run.
#[derive(Debug)]
pub struct BlockBackend {
    image: BlockImage,
    strategy: IoStrategy,
    /// Whether the file is read from a mapping where it can be.
    mapped: bool,
    /// None is what suits the host.
    patience: Option<Patience>,
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
        let further = self.further.iter().map(ipc::Fd::try_clone).collect::<Result<_, _>>()?;
        Ok(Self { file, further, geometry, limits: self.limits, executor: self.executor })
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

    fn threads(&self) -> u16 {
        1 + self.further.len() as u16
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
            patience: None,
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
        self.patience = Some(patience);
        self
    }

    /// What the device looks like to a transport.
    pub fn profile(&self) -> DeviceProfile {
        self.image.profile()
    }

    /// Serve the transport until it closes its request channel. Needs an executor on this thread.
    ///
    /// The queues are spread over this thread and as many helpers as the disk has use for. A trace has one
    /// writer: with one, this thread serves all of them.
    pub async fn run(self, mut context: BackendContext) {
        let record = self.inflight.clone();
        let mut helpers = std::mem::take(&mut context.helpers);
        helpers.truncate(if context.trace.is_some() { 0 } else { self.image.further.len() });
        let mut seeds = self.seeds(helpers.len()).into_iter();
        let Some(first) = seeds.next() else { return };
        if helpers.is_empty() {
            return first.serve(record, context).await;
        }
        let team = helpers.into_iter().zip(seeds).collect();
        if let Err(error) = spread::serve(first, team, record, context).await {
            // The transport sees the channel close.
            log::error!("the block back end cannot go on: {error}");
        }
    }

    /// What grows to a disk on this thread and so many others.
    fn seeds(self, others: usize) -> Vec<Seed> {
        let BlockImage { file, further, geometry, limits, executor } = self.image;
        let common = Arc::new(Common {
            syncs: Syncs::new(geometry.failed_syncs(), self.inflight.as_ref()),
            writeback: Mode::new(),
            mode: Mode::new(),
            complaints: LogLimit::new(),
        });
        let view = match self.strategy {
            IoStrategy::Adaptive | IoStrategy::InMemory if self.mapped => {
                View::of(file.as_fd(), geometry.size)
            }
            IoStrategy::Adaptive | IoStrategy::InMemory | IoStrategy::Ring => None,
        };
        let mut limiter = RateLimiter::new(limits, executor::now());
        let further = further.into_iter().take(others).map(|file| {
            let view = view.as_ref().and_then(|view| view.another(file.as_fd(), geometry.size));
            (Post::Further, file, view, limiter.share())
        });
        let further = further.collect::<Vec<_>>();
        let post = if further.is_empty() { Post::Only } else { Post::First };
        let first = (post, file, view, limiter);
        let seed = |(post, file, view, limiter)| Seed {
            post,
            file,
            view,
            limiter,
            common: Arc::clone(&common),
            geometry: geometry.clone(),
            direct_io: executor.direct_io,
            strategy: self.strategy,
            patience: self.patience,
        };
        std::iter::once(first).chain(further).map(seed).collect()
    }
}

/// Whether others serve queues of the same disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Post {
    /// None.
    Only,
    /// There are, and this one speaks for all of them.
    First,
    /// There are, and another one speaks.
    Further,
}

/// What a thread makes its [`Disk`] of.
#[derive(Debug)]
struct Seed {
    post: Post,
    file: ipc::Fd,
    view: Option<View>,
    limiter: RateLimiter,
    common: Arc<Common>,
    geometry: Geometry,
    direct_io: DirectIo,
    strategy: IoStrategy,
    patience: Option<Patience>,
}

impl Seed {
    /// Serves queues until the request channel closes.
    async fn serve(self, record: Option<InflightRegion>, context: BackendContext) {
        let file = match self.direct_io {
            DirectIo::Interrupts => Fd::new(self.file),
            DirectIo::Polled => Fd::polled(self.file),
        };
        let file = match file {
            Ok(file) => file,
            Err(error) => {
                // The transport sees the channel close.
                log::error!("the block back end cannot use its file: {error}");
                return;
            }
        };
        let disk = Disk {
            file,
            view: self.view,
            common: self.common,
            geometry: RefCell::new(self.geometry),
            limiter: RefCell::new(self.limiter),
            changes: Rc::default(),
            strategy: self.strategy,
            patience: self.patience.unwrap_or_else(Patience::for_this_host),
        };
        let disk = Rc::new(disk);
        let device = BlockDevice { disk: disk.clone(), post: self.post, record: record.clone() };
        let share = if self.post == Post::Only { Share::All } else { Share::Some };
        let serving = worker::serve_share(device, record, share, context);
        match &disk.view {
            Some(view) => drop(select(pin!(serving), pin!(view.tidy(view::REST))).await),
            None => serving.await,
        }
    }
}

/// What all threads of a disk share.
#[derive(Debug)]
struct Common {
    syncs: Syncs,
    /// `writeback` of the configuration space.
    writeback: Mode,
    /// What writes go by now.
    mode: Mode,
    complaints: LogLimit,
}

/// A [`CacheMode`] for several threads: write-back at first.
#[derive(Debug)]
struct Mode(AtomicBool);

impl Mode {
    fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    fn set(&self, mode: CacheMode) {
        self.0.store(mode == CacheMode::WriteThrough, Ordering::Release);
    }

    #[inline]
    fn get(&self) -> CacheMode {
        if self.0.load(Ordering::Acquire) { CacheMode::WriteThrough } else { CacheMode::WriteBack }
    }
}

/// The choice in the record.
const WRITE_THROUGH: u64 = 1;

impl Common {
    /// The driver is ready. If it goes on with queues, by what it chose while a predecessor was there: whatever that
    /// is, writes are never durable later than the driver thinks.
    fn begin(&self, features: u64, goes_on: bool, record: Option<&InflightRegion>) {
        let chosen = record.map_or(0, InflightRegion::choice);
        if chosen == WRITE_THROUGH && goes_on {
            self.writeback.set(CacheMode::WriteThrough);
        }
        self.choose_mode(features);
    }

    /// Virtio 1.3 section 5.2.5: the byte counts if negotiated, else having a flush does.
    fn choose_mode(&self, features: u64) {
        let mode = if features & protocol::FEATURE_CONFIG_WCE != 0 {
            self.writeback.get()
        } else if features & protocol::FEATURE_FLUSH != 0 {
            CacheMode::WriteBack
        } else {
            CacheMode::WriteThrough
        };
        self.mode.set(mode);
    }
}

/// What the queues of a disk share that are on one thread.
#[derive(Debug)]
struct Disk {
    file: Fd,
    /// For reads without system calls; of what the file was at first.
    view: Option<View>,
    common: Arc<Common>,
    /// Its size can change.
    geometry: RefCell<Geometry>,
    limiter: RefCell<RateLimiter>,
    /// Notified when the limits are others.
    changes: Rc<Changes>,
    strategy: IoStrategy,
    patience: Patience,
}

struct BlockDevice {
    disk: Rc<Disk>,
    post: Post,
    /// Where a successor finds what the driver chose: not every transport says it once more.
    record: Option<InflightRegion>,
}

impl BlockDevice {
    fn choose(&self, mode: CacheMode) {
        self.disk.common.writeback.set(mode);
        if let Some(record) = &self.record {
            record.keep_choice(if mode == CacheMode::WriteThrough { WRITE_THROUGH } else { 0 });
        }
    }

    /// Requests under way keep the places that they were checked for: what is behind the end of
    /// the file by now fails.
    fn resize(&self, bytes: u64) -> Result<Effect, String> {
        let mut geometry = self.disk.geometry.borrow_mut();
        let block = geometry.block_size.bytes();
        if bytes == 0 || !bytes.is_multiple_of(block.into()) {
            return Err(format!("the size of this disk is a multiple of {block} bytes"));
        }
        let had = std::mem::replace(&mut geometry.size, bytes);
        let is_seen = had != bytes && self.post != Post::Further;
        Ok(if is_seen { Effect::Config } else { Effect::Unseen })
    }
}

impl Device for BlockDevice {
    fn made(&self) -> Vec<u8> {
        traced::state(&self.disk.geometry.borrow())
    }

    fn start(&mut self, features: u64, queues: Vec<ActiveQueue>) -> Result<Vec<Work>, String> {
        if self.post == Post::Only {
            let goes_on = queues.iter().any(ActiveQueue::goes_on);
            self.disk.common.begin(features, goes_on, self.record.as_ref());
        }
        let serve = |queue| -> Work { Box::pin(server::serve(self.disk.clone(), queue)) };
        Ok(queues.into_iter().map(serve).collect())
    }

    fn config(&self) -> Vec<u8> {
        protocol::config(&self.disk.geometry.borrow(), self.disk.common.writeback.get())
    }

    fn write_config(&mut self, offset: u32, data: &[u8]) {
        if let (protocol::CONFIG_WRITEBACK, [value]) = (offset, data) {
            let mode = match value {
                0 => CacheMode::WriteThrough,
                _ => CacheMode::WriteBack,
            };
            self.choose(mode);
            // Only a driver that negotiated it writes here.
            self.disk.common.mode.set(mode);
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
