//! The messages between a virtio transport and the back end behind it.
//!
//! ```text
//!             BackendRequest (calls with a deadline)
//!   transport ─────────────────────────────────────► back end
//!             ◄─────────────────────────────────────
//!                        BackendEvent
//! ```
//!
//! Everything is serde, and file descriptors are [`ipc::Fd`], so that the same back end runs as a
//! task, on a thread or in a process of its own.
//!
//! A back end is `async fn run(self, BackendContext)`; it ends when its request channel closes.

use ipc::{Fd, Receiver, Reply, Sender};
use serde::{Deserialize, Serialize};

use super::control::ControlRequest;
use super::helpers::Helper;
use super::metrics::MetricsRegion;
use crate::memory::GuestMemory;

/// What a back end offers, fixed for the life of the device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceProfile {
    /// Virtio device type (virtio 1.3 section 5), for example 2 for a block device.
    pub device_type: u16,
    /// Feature bits the back end offers. The transport adds and removes the bits that belong to it.
    pub features: u64,
    /// Largest size of each queue; the length is the number of queues.
    pub queue_sizes: Vec<u16>,
    /// The device configuration space as it is at the start.
    pub config: Vec<u8>,
    /// What happens with the driver's writes to the configuration space.
    pub config_writes: ConfigWrites,
}

impl DeviceProfile {
    /// What an in-flight record of the device has to be made for: queues, and the size of the largest.
    pub fn inflight_size(&self) -> (u16, u16) {
        let size = self.queue_sizes.iter().copied().max().unwrap_or_default();
        (self.queue_sizes.len() as u16, size)
    }
}

/// What happens with the driver's writes to the device configuration space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConfigWrites {
    /// The transport drops them.
    Ignored,
    /// They become [`BackendRequest::WriteConfig`], followed by [`BackendRequest::ReadConfig`].
    Forwarded,
}

/// A request of the transport. Each carries the port for its answer.
#[derive(Debug, Serialize, Deserialize)]
pub enum BackendRequest {
    /// The driver is ready: start to serve these queues.
    Activate {
        /// Negotiated feature bits.
        features: u64,
        /// Enabled queues only, in ascending order of their indices.
        queues: Vec<QueueSetup>,
        /// An error is a sentence for the log; the device then says `NEEDS_RESET`.
        reply: Reply<Result<(), String>>,
    },
    /// Quiesce and forget all guest state. Answered when no I/O touches guest memory any more.
    /// Also valid, and answered at once, when the device is not active.
    Reset {
        /// Answered when the device is as it was before its first activation.
        reply: Reply<()>,
    },
    /// Finish what is in flight, stop serving the queues, say where they stand.
    Pause {
        /// One state for each active queue.
        reply: Reply<Vec<QueueState>>,
    },
    /// Go on after [`BackendRequest::Pause`].
    Resume {
        /// Answered when the queues are served again.
        reply: Reply<()>,
    },
    /// Finish what is in flight, let go of the queues, say where they stood. What the driver has set
    /// stays, and so do the in-flight records of queues that are not served, or that hold buffers which
    /// were taken and not used: these come first when the queue is served again.
    Detach {
        /// One state for each queue that was active.
        reply: Reply<Vec<QueueState>>,
    },
    /// Read the device configuration space.
    ReadConfig {
        /// First byte.
        offset: u32,
        /// Number of bytes.
        length: u32,
        /// The bytes; shorter where the space ends.
        reply: Reply<Vec<u8>>,
    },
    /// The driver wrote to the device configuration space.
    WriteConfig {
        /// First byte.
        offset: u32,
        /// The bytes; at most eight.
        data: Vec<u8>,
        /// Answered when the write has its effect.
        reply: Reply<()>,
    },
}

/// How a queue lies in guest memory and how it is signalled.
#[derive(Debug, Serialize, Deserialize)]
pub struct QueueSetup {
    /// Queue index of the device.
    pub index: u16,
    /// Number of descriptors. A power of two for [`RingLayout::Split`].
    pub size: u16,
    /// Guest address of the descriptor table (packed: of the descriptor ring).
    pub descriptor_table: u64,
    /// Guest address of the available ring (packed: of the driver event suppression structure).
    pub available_ring: u64,
    /// Guest address of the used ring (packed: of the device event suppression structure).
    pub used_ring: u64,
    /// Eventfd that the driver's notifications signal. Its counter may be non-zero at the start.
    pub kick: Fd,
    /// Eventfd to write for an interrupt; none when the driver mapped no vector to the queue.
    pub call: Option<Fd>,
    /// Format of the rings.
    pub layout: RingLayout,
    /// Where to go on when the queue was served before, for the same driver; none starts at the beginning, with a
    /// driver that has said nothing yet.
    pub state: Option<QueueState>,
}

/// Format of a virtqueue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RingLayout {
    /// Virtio 1.3 section 2.7.
    Split,
    /// Virtio 1.3 section 2.8.
    Packed,
}

/// Where a queue stands, enough for another back end to go on with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueState {
    /// Queue index of the device.
    pub index: u16,
    /// Where the rings stand.
    pub position: RingPosition,
}

/// Where the two sides of a ring stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RingPosition {
    /// A split ring: free-running indices.
    Split {
        /// Next entry of the available ring to take.
        next_available: u16,
        /// Next entry of the used ring to fill.
        next_used: u16,
    },
    /// A packed ring: bit 15 of each is the wrap counter, the rest the position.
    Packed {
        /// Next descriptor to take.
        next_available: u16,
        /// Next descriptor to write as used.
        next_used: u16,
    },
}

impl RingPosition {
    /// Whether nothing was given back yet, as far as indices that wrap can tell.
    pub fn is_beginning(self) -> bool {
        match self {
            Self::Split { next_used, .. } => next_used == 0,
            Self::Packed { next_used, .. } => next_used == 1 << 15,
        }
    }
}

/// What a back end says of its own accord.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum BackendEvent {
    /// The device configuration space is now this; the driver gets an interrupt.
    ConfigChanged {
        /// The whole space, of the same length as in the [`DeviceProfile`].
        config: Vec<u8>,
    },
    /// The driver gets an interrupt as if the device configuration space had changed.
    LookAtConfig,
    /// A queue is broken beyond repair; the device stops until the driver resets it.
    NeedsReset {
        /// The queue that is broken.
        queue: u16,
        /// What the driver did, for the log.
        reason: String,
    },
}

/// What a back end gets when it starts.
#[derive(Debug)]
pub struct BackendContext {
    /// The guest's memory.
    pub memory: GuestMemory,
    /// Requests of the transport. When it closes, the back end ends.
    pub requests: Receiver<BackendRequest>,
    /// Requests of others than the transport; may be closed.
    pub controls: Receiver<ControlRequest>,
    /// Events for the transport.
    pub events: Sender<BackendEvent>,
    /// Where the queues count what they do.
    pub metrics: Option<MetricsRegion>,
    /// Where it writes down what it does.
    pub trace: Option<trace::Ring>,
    /// Threads that it may use beside its own.
    pub helpers: Vec<Helper>,
}
