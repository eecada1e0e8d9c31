//! The persistent memory back end (virtio 1.3 section 5.19): an actor that flushes a file which the
//! guest has as memory.
//!
//! ```text
//!   guest ──loads and stores──► a slot of its own ──► the file's pages on the host
//!   guest ──flush──► request queue ──► fdatasync
//! ```
//!
//! Whoever runs the machine maps the file where [`PmemParts`] say; the back end has only the file.
//! It is no part of the guest memory that devices reach: other devices refuse buffers in it.
//!
//! # After a crash
//!
//! Flushes that were under way are done again. Once one has failed none succeeds any more, here or in
//! a successor: the kernel takes pages that it could not write for clean, and the next sync of these
//! says that all is well.

mod failure;
mod file;
mod flush;
mod protocol;

use std::io;
use std::os::fd::AsFd;
use std::rc::Rc;

use executor::Fd;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

pub use file::{PmemError, PmemFile};

use super::backend::{BackendContext, ConfigWrites, DeviceProfile};
pub use super::blk::Access;
use super::file_lock;
use super::parts::Parts;
use super::queue::{InflightRegion, RING_FEATURES};
use super::syncs::{Failed, SyncWitness, Syncs};
use super::worker::{self, ActiveQueue, Device, Work};
use crate::log_limit::LogLimit;
use crate::memory::GuestAddress;

/// Linux has a flush under way for each processor that waits for one.
const QUEUE_SIZE: u16 = 64;

/// A file, and where the guest has it.
#[derive(Debug, Serialize, Deserialize)]
pub struct PmemParts {
    file: ipc::Fd,
    access: Access,
    start: GuestAddress,
    length: u64,
}

impl PmemParts {
    /// `file` is mapped at `start`, for so many bytes.
    pub fn new(file: &PmemFile, start: GuestAddress, length: u64) -> io::Result<Self> {
        Ok(Self { file: file.duplicate()?, access: file.access(), start, length })
    }
}

impl Parts for PmemParts {
    fn profile(&self) -> DeviceProfile {
        DeviceProfile {
            device_type: protocol::DEVICE_TYPE,
            features: RING_FEATURES,
            queue_sizes: vec![QUEUE_SIZE],
            config: protocol::config(self.start.0, self.length),
            config_writes: ConfigWrites::Ignored,
        }
    }

    fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { file: self.file.try_clone()?, ..*self })
    }

    fn sync_witness(&self) -> Option<io::Result<SyncWitness>> {
        (self.access == Access::ReadWrite).then(|| SyncWitness::of(self.file.as_fd()))
    }

    fn release(&self) {
        file_lock::release(self.file.as_fd());
    }

    async fn run(self, inflight: Option<InflightRegion>, context: BackendContext) {
        let config = protocol::config(self.start.0, self.length);
        let file = match Fd::new(self.file) {
            Ok(file) => file,
            // The transport sees the channel close.
            Err(error) => return log::error!("the pmem back end cannot use its file: {error}"),
        };
        let memory = Rc::new(Memory {
            file,
            access: self.access,
            syncs: Syncs::new(Failed::IsForgotten, inflight.as_ref()),
            complaints: LogLimit::new(),
        });
        worker::serve(PmemDevice { memory, config }, inflight, context).await;
    }
}

/// What the queue works on.
#[derive(Debug)]
struct Memory {
    file: Fd,
    access: Access,
    syncs: Syncs,
    complaints: LogLimit,
}

impl Memory {
    /// What was written before is on the disk after this.
    async fn sync(&self) -> io::Result<()> {
        if self.syncs.have_failed() {
            return Err(Errno::IO.into());
        }
        self.syncs.begin();
        self.syncs.end(self.file.fdatasync().await)
    }
}

struct PmemDevice {
    memory: Rc<Memory>,
    config: Vec<u8>,
}

impl Device for PmemDevice {
    fn start(&mut self, _features: u64, queues: Vec<ActiveQueue>) -> Result<Vec<Work>, String> {
        let serve = |queue| -> Work { Box::pin(flush::serve(self.memory.clone(), queue)) };
        Ok(queues.into_iter().map(serve).collect())
    }

    fn config(&self) -> Vec<u8> {
        self.config.clone()
    }
}

#[cfg(test)]
mod tests;
