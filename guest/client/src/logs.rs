//! Takes what a guest logs.

use std::io;

use proto::credentials::Secret;
use proto::{LOG_PORT, v1};
use tonic::Status;

use crate::Guest;
use crate::calls::Calls;

/// The longest batch that is read: an agent sends some 4 KiB, and a record more.
const MAX_BATCH_BYTES: usize = 64 << 10;
const METHOD: &str = "/vmm.agent.v1.Logs/Collect";

/// Listens for the logs of one guest.
#[derive(Debug)]
pub struct LogListener {
    calls: Calls,
}

impl LogListener {
    /// Listens beside the guest's socket.
    pub fn bind(guest: &Guest) -> io::Result<Self> {
        Ok(LogListener { calls: Calls::bind(guest, LOG_PORT, METHOD, MAX_BATCH_BYTES)? })
    }

    /// Gives every batch of the guest's agent to `take`; what that refuses, the guest sends again later.
    pub async fn serve(
        &self,
        secret: &Secret,
        take: impl FnMut(v1::LogBatch) -> io::Result<()> + 'static,
    ) -> io::Result<()> {
        let mut take = take;
        let store = move |batch: v1::LogBatch| {
            take(batch).map(|()| v1::LogReply {}).map_err(|error| {
                log::warn!("cannot keep what the guest logs: {error}");
                Status::unavailable("it cannot be kept")
            })
        };
        self.calls.serve(secret, store).await
    }
}
