//! The 9P back end (Linux' `virtio_9p.h`; the virtio specification names the device and says no more): an actor
//! that serves a directory of the host to the driver over 9P2000.L.
//!
//! ```text
//!   kick ─► message ─┬─ names, attributes ─► p9::Session, on the spot ───────────┐
//!                    └─ data ─► read or write straight on guest memory ──────────┤ one visit to
//!   interrupt ◄── used ring ◄── answers ◄── completions ◄────────────────────────┘ the kernel
//! ```
//!
//! One queue: each chain is a message and the room for its answer. The protocol is that of [`p9`], and what
//! is behind it that of virtio-fs.
//!
//! # After a crash
//!
//! What the driver knows is in a ledger ([`fileserver::Ledger`]) that the VMM keeps. Messages have tags that
//! are used again at once, so what was noted of one is known by the order in which the queue took it. Lost are
//! locks, extended attributes that are half read or written (`ESTALE`), and files without a name (`ESTALE`).

mod parts;
mod server;

use std::cell::RefCell;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use fileserver::{Access, Grant, Ids, Ledger, Shape, Tree};
use p9::{Session, SessionOptions};
use serde::{Deserialize, Serialize};

pub use p9::Acl;
pub use parts::{P9Error, P9Parts};

use super::backend::{BackendContext, ConfigWrites, DeviceProfile};
use super::blk::IoStrategy;
use super::fs::strategy;
use super::queue::{InflightRegion, RING_FEATURES};
use super::worker::{self, ActiveQueue, Device, Patience, Work};

/// `VIRTIO_ID_9P`
const DEVICE_TYPE: u16 = 9;
/// `VIRTIO_9P_MOUNT_TAG`: the configuration has a tag.
const MOUNT_TAG: u64 = 1 << 0;
/// What Linux' driver has room for in one message, 500 KiB of pages, without indirect descriptors.
const QUEUE_SIZE: u16 = 128;

/// What is shared how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct P9Options {
    /// What a driver mounts it by: 1 to 36 bytes, as with virtio-fs.
    pub tag: String,
    /// Whether a driver gets at access control lists.
    pub acl: Acl,
    /// Whose files are whose.
    pub ids: Ids,
    /// What a driver may do.
    pub access: Access,
}

impl P9Options {
    /// The most bytes of a tag: drivers take 255 and more, virtio-fs has room for so many.
    pub const MAX_TAG: usize = 36;

    /// A writable directory with nothing but defaults.
    pub fn new(tag: impl Into<String>) -> Self {
        let (acl, ids, access) = (Acl::default(), Ids::default(), Access::ReadWrite);
        Self { tag: tag.into(), acl, ids, access }
    }
}

/// Requests that can be under way, and fids.
const fn shape() -> Shape {
    p9::shape(QUEUE_SIZE as usize)
}

fn profile(options: &P9Options) -> DeviceProfile {
    let mut config = (options.tag.len() as u16).to_le_bytes().to_vec();
    config.extend(options.tag.as_bytes());
    DeviceProfile {
        device_type: DEVICE_TYPE,
        features: RING_FEATURES | MOUNT_TAG,
        queue_sizes: vec![QUEUE_SIZE],
        config,
        config_writes: ConfigWrites::Ignored,
    }
}

/// A directory that is ready to be served.
#[derive(Debug)]
struct P9Backend {
    session: Session,
    config: Vec<u8>,
    strategy: IoStrategy,
    inflight: Option<InflightRegion>,
}

impl P9Backend {
    /// Serve a directory, going on where the ledger says. Needs an executor on this thread.
    fn new(
        directory: OwnedFd,
        ledger: &OwnedFd,
        options: &P9Options,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let ledger = Ledger::attach(ledger, shape())?;
        let strategy = strategy(directory.as_fd());
        let root = Grant { directory, access: options.access };
        let tree = Tree::of_directory(root, options.ids.clone(), ledger)?;
        let session = Session::new(tree, SessionOptions { acl: options.acl, ..Default::default() });
        Ok(Self { session, config: profile(options).config, strategy, inflight: None })
    }

    /// Serve the transport until it closes its request channel.
    async fn run(self, context: BackendContext) {
        let Self { session, config, strategy, inflight } = self;
        let session = Rc::new(RefCell::new(session));
        let patience = Patience::for_this_host().for_sleepers();
        let shared = Rc::new(Shared { session, strategy, patience, config });
        worker::serve(P9Device { shared }, inflight, context).await;
    }
}

/// What outlives an activation.
struct Shared {
    session: Rc<RefCell<Session>>,
    strategy: IoStrategy,
    patience: Patience,
    config: Vec<u8>,
}

struct P9Device {
    shared: Rc<Shared>,
}

impl Device for P9Device {
    fn start(&mut self, _: u64, queues: Vec<ActiveQueue>) -> Result<Vec<Work>, String> {
        let serve = |queue| -> Work { Box::pin(server::serve(self.shared.clone(), queue)) };
        Ok(queues.into_iter().map(serve).collect())
    }

    fn config(&self) -> Vec<u8> {
        self.shared.config.clone()
    }

    fn reset(&mut self) {
        self.shared.session.borrow_mut().end();
    }
}

#[cfg(test)]
mod tests;
