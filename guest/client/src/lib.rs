//! The host's half of the guest agent's protocol.
//!
//! ```text
//!   ReadyListener   the guest says that its agent serves
//!   Guest           connections to ports of the guest, through the socket of its vsock device
//!   Session         calls to the agent, and raw streams
//!   run             one command: its streams, signals, exit status
//! ```
//!
//! All of it runs on [`executor`]. A guest is hostile: what it sends is bounded and checked.
#![forbid(unsafe_code)]

mod activity;
mod command;
mod copy;
mod guest;
mod ready;
mod session;

pub use activity::Activity;
pub use command::{Command, Ending, Event, HostStreams, Run, StartError, run};
pub use guest::{ConnectError, Guest};
pub use ready::ReadyListener;
pub use session::{CallError, Session};
