//! Takes what a guest logs.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;

use executor::{Fd, Task};
use proto::credentials::Secret;
use proto::{LOG_PORT, v1};
use rpc::{Request, Response};
use tonic::Status;

use crate::Guest;
use crate::listener::HostPort;

/// The longest batch that is read: an agent sends some 4 KiB, and a record more.
const MAX_BATCH_BYTES: usize = 64 << 10;
/// Connections at a time. Anybody in the guest can connect; the oldest has to go.
const MAX_CONNECTIONS: usize = 4;
const METHOD: &str = "/vmm.agent.v1.Logs/Collect";

/// Listens for the logs of one guest.
#[derive(Debug)]
pub struct LogListener {
    port: HostPort,
}

impl LogListener {
    /// Listens beside the guest's socket.
    pub fn bind(guest: &Guest) -> io::Result<Self> {
        Ok(LogListener { port: HostPort::bind(guest, LOG_PORT)? })
    }

    /// Gives every batch of the guest's agent to `take`; what that refuses, the guest sends again later.
    pub async fn serve(
        &self,
        secret: &Secret,
        take: impl FnMut(v1::LogBatch) -> io::Result<()> + 'static,
    ) -> io::Result<()> {
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
            let (secret, take) = (secret.clone(), Rc::clone(&take));
            connections.push_back(executor::spawn(async move {
                let answer = move |request| answer(request, secret.clone(), Rc::clone(&take));
                if let Err(error) = rpc::serve(connection, answer).await {
                    log::debug!("a guest's connection with logs ended: {error}");
                }
            }));
        }
    }
}

async fn answer<T>(request: Request, secret: Secret, take: Rc<RefCell<T>>) -> Response
where
    T: FnMut(v1::LogBatch) -> io::Result<()>,
{
    if !rpc::is_authorized(&request, &secret) {
        return Status::unauthenticated("the call does not carry this boot's secret").into_http();
    }
    if request.uri().path() != METHOD {
        return rpc::unimplemented();
    }
    let store = async |batch: v1::LogBatch| {
        let taken = take.borrow_mut()(batch);
        taken.map(|()| v1::LogReply {}).map_err(|error| {
            log::warn!("cannot keep what the guest logs: {error}");
            Status::unavailable("it cannot be kept")
        })
    };
    rpc::unary(request, MAX_BATCH_BYTES, store).await
}
