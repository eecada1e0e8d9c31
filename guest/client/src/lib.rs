//! The host's half of the guest agent's protocol.
//!
//! ```text
//!   ReadyListener   the guest says that its agent serves
//!   LogListener     what the guest logs
//!   CrashListener   programs of the guest that crashed
//!   Guest           connections to ports of the guest, through the socket of its vsock device
//!   Session         calls to the agent, and raw streams
//!   run             one command: its streams, signals, exit status
//!   publish, expose ports of the guest here, and ports of this host there
//!   fetch, store    files out of the guest and into it
//! ```
//!
//! All of it runs on [`executor`]. A guest is hostile: what it sends is bounded and checked.
#![forbid(unsafe_code)]

mod activity;
mod calls;
mod command;
mod copy;
mod crashes;
mod files;
mod guest;
mod listener;
mod logs;
mod ports;
mod ready;
mod session;

pub use activity::Activity;
pub use command::{Command, Ending, Event, HostStreams, Run, StartError, run};
pub use crashes::CrashListener;
pub use files::{CopyError, Incoming, Place, fetch, store};
pub use guest::{ConnectError, Guest};
pub use logs::LogListener;
pub use ports::{Forward, ForwardError, expose, listening, publish};
pub use ready::ReadyListener;
pub use session::{CallError, Session};

/// Whether a socket's answer says that a connection is there, for the fuzzer.
#[cfg(feature = "fuzzing")]
pub fn is_acceptance(line: &[u8]) -> bool {
    guest::is_ok(line)
}
