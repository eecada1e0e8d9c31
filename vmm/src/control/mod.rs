//! The control socket of a running machine: what is said there, and both ends of it.
//!
//! ```text
//!   vmm ctl ──line──► client task ──Command──► control loop (machine/operator.rs)
//!           ◄─line───     │       ◄──reply────
//!                         └── EventHub ◄── control loop, supervisor
//! ```
//!
//! A line of JSON each: first the server's [`Hello`], then a [`Request`] and its [`Frame`] in turns,
//! or after [`Request::Events`] one frame after the other. `docs/ctl.md` is the reference.
//!
//! The server is tasks of the control loop. What a client sends is bounded in length, in number of
//! clients and in time; what it does not read in time is dropped, and the client with it. Only the
//! owner of the machine and root are listened to.

mod client;
mod events;
mod lines;
mod protocol;
mod server;
mod socket;

pub use client::{Client, ClientError};
pub use events::{EventHub, Subscription};
pub use protocol::{
    Answer, DeviceStatus, Event, EventKind, Frame, Hello, LinkTo, MachineState, PROTOCOL, Refusal,
    Request, Service, Status, Traffic,
};
pub use server::{Command, Server};
pub use socket::{ControlSocket, SocketError};
