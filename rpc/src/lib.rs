//! gRPC on our executor: hyper's HTTP/2 over sockets of [`executor::Fd`], tonic's framing on top.
//!
//! ```text
//!   handlers (async fns, need not be Send)         generated clients
//!        ▲ unary(request, handler)                      │ tower Service
//!   serve(socket, dispatch)                        Channel::open(socket)
//!        └──────── hyper::server::http2 ◀── bytes ──────┘ hyper::client::http2
//! ```
//!
//! One connection is one task and a task per call, all on the thread that called. There is no other
//! runtime and no timer: who is on the other side of these sockets is on the same machine, and the
//! socket says when it is gone.
#![forbid(unsafe_code)]

mod client;
mod relay;
mod server;
mod socket;
mod tcp;

pub use client::Channel;
pub use relay::relay;
pub use server::{Request, Response, is_authorized, serve, serve_few, unary, unimplemented};
pub use socket::Socket;
pub use tcp::connect_tcp;

/// What calls and answers are made of.
pub trait Message: prost::Message + Default + Send + 'static {}

impl<M: prost::Message + Default + Send + 'static> Message for M {}

/// Runs hyper's futures as tasks of the executor on this thread.
#[derive(Clone, Copy, Debug)]
struct Tasks;

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        executor::spawn(future).detach();
    }
}

/// Why a connection ended early or could not begin.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// HTTP/2 could not be agreed on.
    #[error("cannot speak HTTP/2 with the other side")]
    Handshake(#[source] hyper::Error),
    /// The connection broke, or the peer broke the protocol.
    #[error("the HTTP/2 connection failed")]
    Connection(#[source] hyper::Error),
}
