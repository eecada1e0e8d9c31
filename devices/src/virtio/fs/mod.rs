//! The file system back end (virtio 1.3 section 5.11): an actor that serves a directory of the host
//! to the driver, in the words of FUSE.
//!
//! ```text
//!   kick ─► request ─┬─ names, attributes ─► the tree, on the spot ──────────────┐
//!                    └─ data ─► read or write straight on guest memory ──────────┤ one visit to
//!   interrupt ◄── used ring ◄── answers ◄── completions ◄────────────────────────┘ the kernel
//! ```
//!
//! The first queue is for urgent requests, of which there is one kind: what the driver forgets. The
//! others are for all else. One task serves each; they share the [`fileserver::Tree`].
//!
//! # What is left to the driver
//!
//! Locks, which are the driver's own: other machines with the same directory do not see them. `FLUSH`,
//! `ACCESS` and `BMAP` are answered with `ENOSYS`, after which Linux does without. `IOCTL` and `POLL`
//! have no meaning for files of another machine. `SYNCFS` may take longer than a device may be silent,
//! so a driver's `sync` reaches the host's memory, and its `fsync` the disk.
//!
//! # Directories that come and go
//!
//! A device may begin with nothing in its root. Then directories are shared in it by [`Change::Share`] and
//! taken away again while the driver is there; what it has open in one that is gone is stale (`ESTALE`).
//!
//! # After a crash
//!
//! What the driver knows and has open is in a ledger ([`fileserver::Ledger`]) that the VMM keeps. What
//! was in flight is repeated; requests that must not be done twice are noted there, with their
//! answers. A file that was removed while it was open has no name to find it by again: `ESTALE`.

mod answer;
mod grants;
mod names;
mod options;
mod parts;
pub mod protocol;
mod request;
mod server;
mod session;

use std::cell::RefCell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use fileserver::{Access, Grant, Ledger, Shape, Tree};

pub use options::{Acl, Cache, FsOptions, Writeback};
pub use parts::{FsError, FsParts};

use self::parts::Root;
use self::session::Session;
use super::backend::{BackendContext, ConfigWrites, DeviceProfile};
use super::blk::{IoStrategy, Storage};
use super::control::{Change, Effect};
use super::queue::{InflightRegion, RING_FEATURES};
use super::worker::{self, ActiveQueue, Device, Patience, Work};

/// Descriptors of a queue: a request of 256 pages takes 260 where there are no indirect ones.
const QUEUE_SIZE: u16 = 1024;

/// What suits the files of a directory, which is none to look at by reading it.
pub(super) fn strategy(directory: BorrowedFd<'_>) -> IoStrategy {
    match Storage::of(directory) {
        Storage::Memory => IoStrategy::InMemory,
        Storage::PageCache | Storage::Direct | Storage::Silent => IoStrategy::Adaptive,
    }
}

/// Requests that can be under way.
fn shape(options: &FsOptions) -> Shape {
    Shape { places: usize::from(QUEUE_SIZE) * (usize::from(options.queues) + 1), fids: 0 }
}

fn profile(options: &FsOptions) -> DeviceProfile {
    // The tag, with zeros behind it, and the number of queues for requests.
    let mut config = vec![0; FsOptions::MAX_TAG];
    let length = options.tag.len().min(FsOptions::MAX_TAG);
    config[..length].copy_from_slice(&options.tag.as_bytes()[..length]);
    config.extend(u32::from(options.queues).to_le_bytes());
    DeviceProfile {
        device_type: protocol::DEVICE_TYPE,
        features: RING_FEATURES,
        queue_sizes: vec![QUEUE_SIZE; usize::from(options.queues) + 1],
        config,
        config_writes: ConfigWrites::Ignored,
    }
}

/// A directory that is ready to be served.
#[derive(Debug)]
pub struct FsBackend {
    session: Session,
    strategy: IoStrategy,
    patience: Patience,
    inflight: Option<InflightRegion>,
}

impl FsBackend {
    /// Serve directories, going on where the ledger says. Needs an executor on this thread.
    fn new(
        root: Root,
        ledger: &OwnedFd,
        options: FsOptions,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let ledger = Ledger::attach(ledger, shape(&options))?;
        let ids = options.ids.clone();
        let (tree, strategy) = match root {
            Root::Directory(directory) => {
                let directory = OwnedFd::from(directory);
                let strategy = strategy(directory.as_fd());
                let access = if options.read_only { Access::ReadOnly } else { Access::ReadWrite };
                (Tree::of_directory(Grant { directory, access }, ids, ledger)?, strategy)
            }
            Root::Grants(grants) => {
                let mut tree = Tree::of_grants(ids, ledger);
                for place in grants {
                    match place {
                        Some(shared) => grants::share(&mut tree, &shared)?,
                        None => tree.skip_grant(),
                    }
                }
                (tree, IoStrategy::Adaptive)
            }
        };
        Ok(Self {
            session: Session::new(tree, options),
            strategy,
            patience: Patience::for_this_host().for_sleepers(),
            inflight: None,
        })
    }

    /// Record what is in flight there, and take over what it says.
    #[must_use]
    pub fn with_inflight(mut self, region: InflightRegion) -> Self {
        self.inflight = Some(region);
        self
    }

    /// Serve the transport until it closes its request channel.
    pub async fn run(self, context: BackendContext) {
        let Self { session, strategy, patience, inflight } = self;
        let config = profile(&session.options).config;
        let session = Rc::new(RefCell::new(session));
        let shared = Rc::new(Shared { session, strategy, patience, config });
        worker::serve(FsDevice { shared }, inflight, context).await;
    }
}

/// What the queues share.
struct Shared {
    session: Rc<RefCell<Session>>,
    strategy: IoStrategy,
    patience: Patience,
    config: Vec<u8>,
}

struct FsDevice {
    shared: Rc<Shared>,
}

impl Device for FsDevice {
    fn start(&mut self, _: u64, queues: Vec<ActiveQueue>) -> Result<Vec<Work>, String> {
        let serve = |queue| -> Work { Box::pin(server::serve(self.shared.clone(), queue)) };
        Ok(queues.into_iter().map(serve).collect())
    }

    fn config(&self) -> Vec<u8> {
        self.shared.config.clone()
    }

    fn change(&mut self, change: &Change) -> Result<Effect, String> {
        grants::change(&mut self.shared.session.borrow_mut().tree, change)
    }

    fn reset(&mut self) {
        self.shared.session.borrow_mut().end();
    }
}

/// Reads a request, a header and what is behind it, as the server does; for fuzzing.
#[cfg(any(test, feature = "fuzzing"))]
pub fn read_request(bytes: &[u8]) {
    use zerocopy::FromBytes;
    let Ok((header, rest)) = protocol::InHeader::read_from_prefix(bytes) else { return };
    if let Ok(request) = request::Request::decode(&header, rest) {
        let _ = (request.is_noted(), format!("{request:?}"));
    }
}

#[cfg(test)]
mod tests;
