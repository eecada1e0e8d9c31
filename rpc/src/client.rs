//! The calling side: a connection that generated clients can use.

use std::pin::Pin;
use std::task::{Context, Poll};

use executor::{Fd, TaskGroup};
use http::HeaderValue;
use http::header::AUTHORIZATION;
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use tonic::body::Body;
use tower_service::Service;

use crate::{Error, Socket, Tasks};

/// A connection for calls. It ends when the last clone is dropped.
#[derive(Clone)]
pub struct Channel {
    sender: SendRequest<Body>,
    authorization: Option<HeaderValue>,
    // Ends the connection's task with the last clone.
    _connection: std::rc::Rc<TaskGroup>,
}

impl Channel {
    /// Begins HTTP/2 on a connected socket.
    pub async fn open(socket: Fd) -> Result<Self, Error> {
        let (sender, connection) =
            Builder::new(Tasks).handshake(Socket::new(socket)).await.map_err(Error::Handshake)?;
        let group = TaskGroup::new();
        // Whoever calls learns from the call that the connection has failed.
        group.spawn(connection);
        Ok(Channel { sender, authorization: None, _connection: std::rc::Rc::new(group) })
    }

    /// Sends this value of the `authorization` metadata with each call. A value that metadata
    /// cannot hold is not sent, which the other side refuses.
    #[must_use]
    pub fn authorized_by(mut self, value: &str) -> Self {
        self.authorization = HeaderValue::from_str(value).ok().map(|mut value| {
            value.set_sensitive(true);
            value
        });
        self
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}

impl Service<http::Request<Body>> for Channel {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.sender.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        if let Some(value) = &self.authorization {
            request.headers_mut().insert(AUTHORIZATION, value.clone());
        }
        Box::pin(self.sender.send_request(request))
    }
}

impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Channel").field("closed", &self.is_closed()).finish_non_exhaustive()
    }
}
