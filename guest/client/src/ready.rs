//! Hears that a guest's agent is ready.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use executor::Fd;
use proto::{READY_PORT, v1};
use rpc::{Request, Response};

use crate::Guest;
use crate::listener::HostPort;

/// What is read of a guest that says it is ready.
const MAX_MESSAGE_BYTES: usize = 64 << 10;
const METHOD: &str = "/vmm.agent.v1.Host/Ready";

/// Listens for one guest's agent. The socket goes away with it.
#[derive(Debug)]
pub struct ReadyListener {
    port: HostPort,
}

impl ReadyListener {
    /// Listens beside the guest's socket. Do it before the guest starts.
    pub fn bind(guest: &Guest) -> io::Result<Self> {
        Ok(ReadyListener { port: HostPort::bind(guest, READY_PORT)? })
    }

    /// Waits until the agent says that it is ready. Connections that say anything else are
    /// answered and forgotten.
    pub async fn ready(&self) -> io::Result<v1::ReadyRequest> {
        let listener = self.port.listen()?;
        loop {
            let connection = Fd::unregistered(listener.accept().await?)?;
            let heard = Rc::new(RefCell::new(None));
            let told = Rc::clone(&heard);
            let served = rpc::serve(connection, move |request| hear(request, Rc::clone(&told)));
            if let Err(error) = served.await {
                log::debug!("a guest's connection to the ready port ended: {error}");
            }
            if let Some(request) = heard.take() {
                return Ok(request);
            }
        }
    }
}

async fn hear(request: Request, heard: Rc<RefCell<Option<v1::ReadyRequest>>>) -> Response {
    if request.uri().path() != METHOD {
        return rpc::unimplemented();
    }
    let note = async |message: v1::ReadyRequest| {
        *heard.borrow_mut() = Some(message);
        Ok(v1::ReadyReply {})
    };
    rpc::unary(request, MAX_MESSAGE_BYTES, note).await
}
