//! The socket back end (virtio 1.3 section 5.10): an actor that connects sockets of the guest to
//! Unix sockets of the host, whole in user space.
//!
//! ```text
//!   guest connects to port P of the host ─► ConnectRequest ─► VMM ─► Unix socket PATH_P
//!   program of the host ─► Unix socket PATH ─ `CONNECT P\n` ─► port P of the guest ─► `OK Q\n`
//!
//!   transmit queue ──► one send each ──► socket of the host      what it does not take waits in a
//!   receive queue ◄── one receive for many buffers ◄── socket    buffer, which credit bounds
//! ```
//!
//! Data goes straight between the driver's buffers and sockets. Nothing waits for one connection:
//! what a slow program of the host does not take is kept, within the credit that the guest has, and
//! what a slow program of the guest does not take stays in the host's socket.
//!
//! Stream sockets are streams on the host. Sockets with messages (`SOCK_SEQPACKET`) are that on the
//! host, too; there an empty message cannot be told from the end, and is taken for it.
//!
//! # How connections end
//!
//! | Who ends                      | The other side sees                                         |
//! |-------------------------------|-------------------------------------------------------------|
//! | guest, one direction          | end of file, or `EPIPE`, after all data                     |
//! | guest, both directions        | end of file after all data; the guest then gets its RST     |
//! | guest resets                  | end of file                                                 |
//! | host, one direction           | SHUTDOWN for that direction, after all data                 |
//! | host program closes           | SHUTDOWN for both, after all data; the guest answers RST    |
//! | nobody listens on the host    | RST                                                         |
//! | guest breaks the rules        | RST to the guest, end of file on the host                   |
//!
//! # After a crash
//!
//! The connections die with the process. Its successor tells the driver so by a transport reset
//! event, and answers all that was sent before that event by RST: nothing is repeated.

mod arrivals;
mod connection;
mod credit;
mod failure;
mod greeting;
mod hub;
mod outgoing;
mod parts;
mod pool;
mod protocol;
mod receive;
mod server;
mod socket;
mod table;
mod transmit;

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;

use executor::Fd;
use ipc::Sender;
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use connection::SocketKind;
pub use parts::{ConnectRequest, Refused, VsockParts};

use self::hub::Hub;
use self::protocol::{EVENT, FEATURE_SEQPACKET, FEATURE_STREAM, RX, TX};
use self::server::{Notice, Queues};
use super::backend::{BackendContext, ConfigWrites, DeviceProfile};
use super::queue::{InflightRegion, RING_FEATURES};
use super::worker::{self, ActiveQueue, Device, Patience, Work};

/// The lowest context that a guest can have: 0 to 2 are the hypervisor, loopback and the host.
pub const FIRST_GUEST_CID: u64 = 3;
/// The highest one: 32 bits, and all of them set means any.
pub const LAST_GUEST_CID: u64 = u32::MAX as u64 - 1;

/// Connections unless asked otherwise.
pub const DEFAULT_CONNECTIONS: u16 = 2048;
/// The most connections: each has its part of [`BUFFERED_BYTES`], and less than 16 KiB makes bulk
/// data slow.
pub const MAX_CONNECTIONS: u16 = 16 << 10;
/// The most that all connections together may have waiting for slow programs of the host.
pub const BUFFERED_BYTES: u32 = 256 << 20;

/// The most that one connection may have waiting: four packets of Linux, which is also what it gives
/// its own sockets.
const MAX_BUFFER: u32 = 256 << 10;

/// Ports of the host that are given to its programs are from here on, as far from those that somebody
/// chose as from their end. Each back end starts somewhere in the first third: packets about a port
/// that a dead one gave away may still be on their way, and must not be taken for others.
const FIRST_HOST_PORT: u32 = 1 << 30;

/// Descriptors of the receive and transmit queues: with buffers of 4 KiB, as Linux gives them, 1 MiB
/// in each direction.
const QUEUE_SIZE: u16 = 256;
/// Descriptors of the event queue; Linux gives eight buffers.
const EVENT_QUEUE_SIZE: u16 = 16;

/// What is asked of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VsockOptions {
    /// The guest's context.
    pub cid: u64,
    /// The most connections at a time.
    pub connections: u16,
}

/// Why a device cannot be made.
#[derive(Debug, Error)]
pub enum VsockError {
    /// The context is reserved.
    #[error("{cid} is no context for a guest; those are {FIRST_GUEST_CID} to {LAST_GUEST_CID}")]
    Cid {
        /// What was asked for.
        cid: u64,
    },
    /// Too few connections, or too many.
    #[error("{count} is no limit of connections; it is 1 to {MAX_CONNECTIONS}")]
    Connections {
        /// What was asked for.
        count: u16,
    },
    /// A descriptor could not be used.
    #[error("cannot listen to programs of the host")]
    Listener(#[source] io::Error),
}

impl VsockOptions {
    /// The defaults.
    pub fn new(cid: u64) -> Self {
        Self { cid, connections: DEFAULT_CONNECTIONS }
    }

    fn check(self) -> Result<(), VsockError> {
        if !(FIRST_GUEST_CID..=LAST_GUEST_CID).contains(&self.cid) {
            return Err(VsockError::Cid { cid: self.cid });
        }
        if !(1..=MAX_CONNECTIONS).contains(&self.connections) {
            return Err(VsockError::Connections { count: self.connections });
        }
        Ok(())
    }

    /// What each connection may have waiting for the host.
    fn buffer(self) -> u32 {
        (BUFFERED_BYTES / u32::from(self.connections)).min(MAX_BUFFER)
    }
}

/// Sockets that listen, and who makes others.
#[derive(Debug)]
struct Sockets {
    listeners: [(Fd, SocketKind); 2],
    connects: Sender<ConnectRequest>,
}

/// A device that is ready to run.
#[derive(Debug)]
pub struct VsockBackend {
    options: VsockOptions,
    sockets: Sockets,
    patience: Patience,
    inflight: Option<InflightRegion>,
}

impl VsockBackend {
    /// A device with these listening sockets. Needs an executor on this thread.
    pub fn new(
        options: VsockOptions,
        stream: ipc::Fd,
        seqpacket: ipc::Fd,
        connects: Sender<ConnectRequest>,
    ) -> Result<Self, VsockError> {
        options.check()?;
        let attach = |socket: ipc::Fd| Fd::new(socket).map_err(VsockError::Listener);
        let listeners =
            [(attach(stream)?, SocketKind::Stream), (attach(seqpacket)?, SocketKind::Seqpacket)];
        let sockets = Sockets { listeners, connects };
        Ok(Self { options, sockets, patience: Patience::for_this_host(), inflight: None })
    }

    /// Record what is in flight there, and take over what it says.
    #[must_use]
    pub fn with_inflight(mut self, region: InflightRegion) -> Self {
        self.inflight = Some(region);
        self
    }

    /// Serve the transport until it closes its request channel.
    pub async fn run(self, context: BackendContext) {
        let Self { options, sockets, patience, inflight } = self;
        let (hub, notice, began_here) = (None, Rc::default(), false);
        let device = VsockDevice { options, sockets, patience, hub, notice, began_here };
        worker::serve(device, inflight, context).await;
    }
}

/// What a device of these looks like to a transport.
fn profile(options: &VsockOptions) -> DeviceProfile {
    DeviceProfile {
        device_type: protocol::DEVICE_TYPE,
        features: FEATURE_STREAM | FEATURE_SEQPACKET | RING_FEATURES,
        queue_sizes: vec![QUEUE_SIZE, QUEUE_SIZE, EVENT_QUEUE_SIZE],
        config: config(options),
        config_writes: ConfigWrites::Ignored,
    }
}

/// `struct virtio_vsock_config`.
fn config(options: &VsockOptions) -> Vec<u8> {
    options.cid.to_le_bytes().into()
}

struct VsockDevice {
    options: VsockOptions,
    sockets: Sockets,
    patience: Patience,
    /// The connections, from the driver's start to its reset; a pause keeps them.
    hub: Option<Rc<RefCell<Hub>>>,
    /// What the driver has to hear, which a pause does not spare it.
    notice: Rc<Cell<Notice>>,
    /// The driver began here: it has no connections but these.
    began_here: bool,
}

impl Device for VsockDevice {
    fn start(&mut self, features: u64, queues: Vec<ActiveQueue>) -> Result<Vec<Work>, String> {
        if queues.iter().any(|active| active.index() == TX && !active.goes_on()) {
            // Another driver, whose front end may not have said that the last one is gone.
            self.reset();
            self.began_here = true;
        }
        let [receive, transmit, event] = match <[ActiveQueue; 3]>::try_from(queues) {
            Ok(queues) => queues,
            // A driver that only looks at the device, as boot loaders do.
            Err(some) => return Ok(vec![Box::pin(server::rest(some))]),
        };
        debug_assert_eq!([receive.index(), transmit.index(), event.index()], [RX, TX, EVENT]);
        if self.hub.is_none() && !self.began_here {
            // A successor has none of the connections that the driver knows.
            self.notice.set(Notice::TransportReset);
        }
        let VsockOptions { cid, connections } = self.options;
        let buffer = self.options.buffer();
        let seqpacket = features & FEATURE_SEQPACKET != 0;
        let hub = self.hub.get_or_insert_with(|| {
            Hub::new(cid, usize::from(connections), buffer, seqpacket, &self.sockets)
        });
        let queues = Queues { receive, transmit, event };
        Ok(vec![Box::pin(server::serve(hub.clone(), queues, self.notice.clone(), self.patience))])
    }

    fn config(&self) -> Vec<u8> {
        config(&self.options)
    }

    fn reset(&mut self) {
        // Programs of the host see their connections end.
        self.hub = None;
        self.notice.set(Notice::None);
        self.began_here = false;
    }
}

#[cfg(test)]
mod tests;
