//! A service of the host with one call, by which a guest's agent hands something over.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;

use executor::{Fd, Task};
use proto::credentials::Secret;
use rpc::{Message, Request, Response};
use tonic::Status;

use crate::Guest;
use crate::listener::HostPort;

/// Connections at a time. Anybody in the guest can connect; the oldest has to go.
const MAX_CONNECTIONS: usize = 4;
/// Calls under way on each: an agent makes one after another.
const MAX_CALLS: u32 = 2;

/// The call, where it comes in, and the longest message that is read.
#[derive(Debug)]
pub(crate) struct Calls {
    port: HostPort,
    method: &'static str,
    limit: usize,
}

impl Calls {
    /// Listens beside the guest's socket.
    pub(crate) fn bind(
        guest: &Guest,
        port: u32,
        method: &'static str,
        limit: usize,
    ) -> io::Result<Self> {
        Ok(Calls { port: HostPort::bind(guest, port)?, method, limit })
    }

    /// Gives every message of the guest's agent to `take`, whose answer goes back.
    pub(crate) async fn serve<M, R>(
        &self,
        secret: &Secret,
        take: impl FnMut(M) -> Result<R, Status> + 'static,
    ) -> io::Result<()>
    where
        M: Message,
        R: Message,
    {
        let listener = self.port.listen()?;
        let take = Rc::new(RefCell::new(take));
        let mut connections: VecDeque<Task<()>> = VecDeque::new();
        loop {
            let connection = Fd::unregistered(listener.accept().await?)?;
            connections.retain(|task| !task.is_finished());
            if connections.len() >= MAX_CONNECTIONS
                && let Some(oldest) = connections.pop_front()
            {
                oldest.cancel();
            }
            let (method, limit) = (self.method, self.limit);
            let (secret, take) = (secret.clone(), Rc::clone(&take));
            let answer = move |request: Request| {
                let (secret, take) = (secret.clone(), Rc::clone(&take));
                async move { answer(request, method, limit, &secret, &take).await }
            };
            connections.push_back(executor::spawn(async move {
                if let Err(error) = rpc::serve_few(connection, MAX_CALLS, answer).await {
                    log::debug!("a guest's connection for {method} ended: {error}");
                }
            }));
        }
    }
}

async fn answer<M: Message, R: Message>(
    request: Request,
    method: &str,
    limit: usize,
    secret: &Secret,
    take: &RefCell<impl FnMut(M) -> Result<R, Status>>,
) -> Response {
    if !rpc::is_authorized(&request, secret) {
        return Status::unauthenticated("the call does not carry this boot's secret").into_http();
    }
    if request.uri().path() != method {
        return rpc::unimplemented();
    }
    rpc::unary(request, limit, async |message| take.borrow_mut()(message)).await
}
