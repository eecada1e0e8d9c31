//! Calls to the agent of one guest.

use std::io;
use std::time::Duration;

use executor::{Fd, IoBuf, RecvFlags, SendFlags};
use proto::credentials::Secret;
use proto::streams::{Answer, StreamError, Ticket};
use proto::v1::agent_client::AgentClient;
use proto::{CONTROL_PORT, MAX_MESSAGE_BYTES, STREAM_PORT};
use rpc::Channel;
use tonic::Status;

use crate::{ConnectError, Guest};

/// What the agent may take to accept a stream.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a call had no result.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// There was no connection.
    #[error("cannot reach the guest's agent")]
    Connect(#[source] ConnectError),
    /// The connection did not become one for calls.
    #[error("cannot talk with the guest's agent")]
    Channel(#[source] rpc::Error),
    /// The agent, or the connection to it, said no.
    #[error("the guest's agent refused: {}", .0.message())]
    Refused(Box<Status>),
    /// A raw stream could not begin.
    #[error("cannot open a stream to the guest")]
    Stream(#[source] StreamError),
    /// A raw stream broke at its beginning.
    #[error("a stream to the guest broke")]
    StreamBroke(#[source] io::Error),
    /// The agent's answer lacks something.
    #[error("the guest's agent gave an answer without {0}")]
    Incomplete(&'static str),
}

impl From<Status> for CallError {
    fn from(status: Status) -> Self {
        CallError::Refused(Box::new(status))
    }
}

/// A control connection. What was started through it ends with it.
#[derive(Clone, Debug)]
pub struct Session {
    guest: Guest,
    agent: AgentClient<Channel>,
}

impl Session {
    /// Connects to the agent of a guest.
    pub async fn open(guest: &Guest, secret: &Secret) -> Result<Self, CallError> {
        let socket = guest.connect(CONTROL_PORT).await.map_err(CallError::Connect)?;
        let channel = Channel::open(socket).await.map_err(CallError::Channel)?;
        let channel = channel.authorized_by(&secret.to_authorization());
        let agent = AgentClient::with_origin(channel, http_origin())
            .max_decoding_message_size(MAX_MESSAGE_BYTES);
        Ok(Session { guest: guest.clone(), agent })
    }

    /// Whose agent it is.
    pub(crate) fn guest(&self) -> &Guest {
        &self.guest
    }

    /// The agent's calls.
    pub fn agent(&self) -> AgentClient<Channel> {
        self.agent.clone()
    }

    /// Opens the raw stream of a ticket that the agent gave.
    pub async fn open_stream(&self, ticket: &[u8]) -> Result<Fd, CallError> {
        let ticket = Ticket::from_slice(ticket).map_err(CallError::Stream)?;
        let socket = self.guest.connect(STREAM_PORT).await.map_err(CallError::Connect)?;
        let answer = executor::timeout(PATIENCE, redeem(&socket, ticket)).await;
        let answer = answer.unwrap_or_else(|elapsed| Err(io::Error::other(elapsed)));
        Answer::check(answer.map_err(CallError::StreamBroke)?).map_err(CallError::Stream)?;
        Ok(socket)
    }
}

fn http_origin() -> tonic::codegen::http::Uri {
    tonic::codegen::http::Uri::from_static("http://agent")
}

/// Shows the ticket and reads the answer.
async fn redeem(socket: &Fd, ticket: Ticket) -> io::Result<u8> {
    let mut hello = ticket.hello().to_vec();
    while !hello.is_empty() {
        let (sent, frame) = socket.send(hello, SendFlags::NOSIGNAL).await;
        hello = frame;
        hello.drain(..sent?);
    }
    let (received, answer) =
        socket.recv(Vec::with_capacity(1).slice(..1), RecvFlags::empty()).await;
    received?;
    answer.into_inner().first().copied().ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}
