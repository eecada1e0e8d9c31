//! Takes reports of programs of a guest that crashed.

use std::io;

use proto::credentials::Secret;
use proto::{CRASH_PORT, MAX_CRASH_BYTES, v1};
use tonic::Status;

use crate::Guest;
use crate::calls::Calls;

const METHOD: &str = "/vmm.agent.v1.Crashes/Report";

/// Listens for the crashes of one guest.
#[derive(Debug)]
pub struct CrashListener {
    calls: Calls,
}

impl CrashListener {
    /// Listens beside the guest's socket.
    pub fn bind(guest: &Guest) -> io::Result<Self> {
        Ok(CrashListener { calls: Calls::bind(guest, CRASH_PORT, METHOD, MAX_CRASH_BYTES)? })
    }

    /// Gives every report of the guest's agent to `take`. One that it refuses is lost.
    pub async fn serve(
        &self,
        secret: &Secret,
        take: impl FnMut(v1::CrashReport) -> io::Result<()> + 'static,
    ) -> io::Result<()> {
        let mut take = take;
        let store = move |report: v1::CrashReport| {
            take(report)
                .map(|()| v1::CrashReply {})
                .map_err(|error| Status::unavailable(error.to_string()))
        };
        self.calls.serve(secret, store).await
    }
}
