//! Raw streams: who offers one gets a ticket, who brings the ticket gets the stream.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::rc::{Rc, Weak};
use std::time::Duration;

use executor::{Fd, IoBuf, RecvFlags, SendFlags};
use proto::streams::{Answer, HELLO_BYTES, TICKET_BYTES, Ticket};

/// A connection that says nothing is closed after this time.
const PATIENCE: Duration = Duration::from_secs(10);
/// Offers that wait for a connection. Three for each process that may run.
const MAX_OFFERS: usize = 3 * crate::process::MAX_PROCESSES;

type Start = Box<dyn FnOnce(Fd)>;

/// The streams that wait for their connections.
#[derive(Clone, Default)]
pub(crate) struct Streams(Rc<RefCell<HashMap<Ticket, Start>>>);

/// A stream on offer. Dropping it withdraws the offer, unless it was taken.
pub(crate) struct Offer {
    pub(crate) ticket: Ticket,
    streams: Weak<RefCell<HashMap<Ticket, Start>>>,
}

impl Streams {
    /// Offers a stream; `start` is called with its connection.
    pub(crate) fn offer(&self, start: impl FnOnce(Fd) + 'static) -> io::Result<Offer> {
        let mut offers = self.0.borrow_mut();
        if offers.len() >= MAX_OFFERS {
            return Err(io::Error::other("too many streams wait for their connections"));
        }
        let mut random = [0; TICKET_BYTES];
        crate::random::fill(&mut random)?;
        let ticket = Ticket::new(random);
        offers.insert(ticket, Box::new(start));
        Ok(Offer { ticket, streams: Rc::downgrade(&self.0) })
    }

    /// Serves a connection to the stream port: reads the ticket and hands the connection over.
    pub(crate) async fn connected(&self, connection: Fd) {
        let start = match executor::timeout(PATIENCE, self.redeem(&connection)).await {
            Ok(Ok(Some(start))) => start,
            Ok(Ok(None)) => return log::debug!("a stream's ticket was refused"),
            Ok(Err(error)) => return log::debug!("a stream could not begin: {error}"),
            Err(_) => return log::debug!("a stream did not begin in time"),
        };
        start(connection);
    }

    async fn redeem(&self, connection: &Fd) -> io::Result<Option<Start>> {
        let hello = receive_hello(connection).await?;
        let start = Ticket::from_hello(hello).ok().and_then(|ticket| {
            let mut offers = self.0.borrow_mut();
            offers.remove(&ticket)
        });
        let answer = if start.is_some() { Answer::Accepted } else { Answer::Refused };
        let (sent, _) = connection.send(vec![answer.byte()], SendFlags::NOSIGNAL).await;
        sent?;
        Ok(start)
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        if let Some(streams) = self.streams.upgrade() {
            let withdrawn = streams.borrow_mut().remove(&self.ticket);
            // It may own descriptors and latches; nothing is borrowed any more.
            drop(withdrawn);
        }
    }
}

/// Reads exactly the first frame: what follows belongs to the stream.
async fn receive_hello(connection: &Fd) -> io::Result<[u8; HELLO_BYTES]> {
    let mut buffer = Vec::with_capacity(HELLO_BYTES);
    loop {
        let filled = buffer.len();
        let (received, slice) =
            connection.recv(buffer.slice(filled..HELLO_BYTES), RecvFlags::empty()).await;
        buffer = slice.into_inner();
        if received? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Ok(frame) = <[u8; HELLO_BYTES]>::try_from(buffer.as_slice()) {
            return Ok(frame);
        }
    }
}
