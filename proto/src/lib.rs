//! What host and guest agent say to each other: gRPC messages, and the frames around raw streams.
//!
//! ```text
//!   host ──8888──▶ agent    gRPC, service vmm.agent.v1.Agent: control
//!   host ──8889──▶ agent    one raw byte stream per connection, after a ticket
//!   host ◀──7777── agent    gRPC, service vmm.agent.v1.Host: the agent is ready
//!   host ◀──9999── agent    gRPC, service vmm.agent.v1.Logs: what the guest logs
//!   host ◀──7779── agent    gRPC, service vmm.agent.v1.Crashes: programs that crashed
//! ```
//!
//! docs/agent.md describes the protocol in words.
#![forbid(unsafe_code)]

pub mod credentials;
pub mod mounts;
pub mod streams;

/// The messages and clients of version 1, as generated from `vmm/agent/v1/*.proto`.
#[allow(missing_docs, clippy::pedantic, clippy::all, unreachable_pub)]
pub mod v1 {
    tonic::include_proto!("vmm.agent.v1");
}

/// The vsock port on which the agent serves gRPC.
pub const CONTROL_PORT: u32 = 8888;
/// The vsock port on which the agent takes raw streams.
pub const STREAM_PORT: u32 = 8889;
/// The vsock port on which the host hears that an agent is ready.
pub const READY_PORT: u32 = 7777;

/// The vsock port on which the host takes what a guest logs.
pub const LOG_PORT: u32 = 9999;

/// The vsock port on which the host takes reports of crashes.
pub const CRASH_PORT: u32 = 7779;

/// The longest report of a crash: the minidump, and some names beside it.
pub const MAX_CRASH_BYTES: usize = (4 << 20) + (64 << 10);

/// The longest gRPC message that either side reads. A command line is at most 2 MiB in Linux.
pub const MAX_MESSAGE_BYTES: usize = 4 << 20;
