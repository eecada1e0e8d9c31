//! The vhost-user transport: a device in a process of its own, for the virtual machines of others.
//!
//! ```text
//!   front end (QEMU, cloud-hypervisor, ...)            this process
//!     driver's set-up ──── messages on a socket ────►  session ── BackendRequest ──► back end
//!     guest's memory, eventfds, in-flight record ───►                                   │
//!          ▲                                                                            │
//!          └──────────── rings in the guest's memory, kicks and interrupts ◄────────────┘
//! ```
//!
//! A front end says what it knows of the rings one thing at a time, and may change any of it while others
//! are served. Whenever what is served changes, the back end is paused, with nothing in flight, and
//! begins anew where it stands: no back end has to know of this protocol.
//!
//! The record of what is in flight is the [`InflightRegion`] that our own machines keep, in memory that
//! the front end keeps for a successor: a front end that connects again hands it back.
//!
//! All messages are untrusted. <https://qemu-project.gitlab.io/qemu/interop/vhost-user.html>

mod back_end;
mod connection;
pub mod driven;
pub mod front_end;
mod message;
mod regions;
pub mod remote;
mod requests;
mod rings;
mod served;
mod session;
mod wire;

use ipc::Fd;
use serde::{Deserialize, Serialize};

use self::connection::Connection;
use self::session::Session;
use super::helpers::Helper;
use super::parts::{DeviceParts, Parts};
use super::queue::InflightRegion;

/// All that is needed to serve one front end; one message.
#[derive(Debug, Serialize, Deserialize)]
pub struct VhostUserStart {
    /// What is served.
    pub device: DeviceParts,
    /// The memory of an [`InflightRegion`] for front ends that bring none.
    pub inflight: Fd,
    /// The connection.
    pub connection: Fd,
}

impl VhostUserStart {
    /// Serves the front end until it goes away. An error is a sentence for the log.
    pub async fn run(self) -> Result<(), String> {
        self.run_with(Vec::new()).await
    }

    /// The same, with such help.
    pub async fn run_with(self, helpers: Vec<Helper>) -> Result<(), String> {
        let Self { device, inflight, connection } = self;
        let (queues, size) = device.profile().inflight_size();
        let inflight = InflightRegion::attach(inflight.into(), queues, size)
            .map_err(|error| error.to_string())?;
        let connection = Connection::new(connection).map_err(|error| error.to_string())?;
        Session::new(connection, device, inflight, helpers).run().await
    }
}

#[cfg(test)]
mod tests;
