//! A disk on its way to the process that serves it.

use ipc::{Fd, Receiver, Sender};
use serde::{Deserialize, Serialize};

use super::{BlockBackend, BlockImage};
use crate::memory::{GuestMemory, MapOptions, MemoryLayout};
use crate::virtio::backend::{BackendContext, BackendEvent, BackendRequest};
use crate::virtio::queue::InflightRegion;

/// All that a block back end in a process of its own needs; one message.
#[derive(Debug, Serialize, Deserialize)]
pub struct BlockStart {
    /// The disk.
    pub image: BlockImage,
    /// The guest's memory.
    pub memory: MemoryLayout,
    /// The memory of the [`InflightRegion`], which whoever starts back ends keeps.
    pub inflight: Fd,
    /// Requests of the transport. When it closes, the back end ends.
    pub requests: Receiver<BackendRequest>,
    /// Events for the transport.
    pub events: Sender<BackendEvent>,
}

impl BlockStart {
    /// Maps what is to be mapped and gets ready to run. The error is a sentence for the log.
    pub fn settle(self) -> Result<(BlockBackend, BackendContext), String> {
        let Self { image, memory, inflight, requests, events } = self;
        let memory = GuestMemory::from_layout(memory, MapOptions::default())
            .map_err(|error| error.to_string())?;
        let geometry = &image.geometry;
        let inflight =
            InflightRegion::attach(inflight.into(), geometry.queues, geometry.queue_size)
                .map_err(|error| error.to_string())?;
        let backend = BlockBackend::new(image).with_inflight(inflight);
        Ok((backend, BackendContext { memory, requests, events }))
    }
}
