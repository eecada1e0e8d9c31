//! What guests log: taken from their agents, made harmless, kept in files or passed on.
//!
//! ```text
//!   agent ──gRPC──▶ SOCKET_9999 ──▶ records ──▶ lines, scrubbed and tagged ─┬▶ standard output
//!                                                                          ├▶ files that rotate
//!                                                                          └▶ this host's syslog
//! ```

mod date;
mod line;
mod rotating;
mod sink;

use std::io;
use std::path::PathBuf;
use std::pin::pin;

use agent_client::{Guest, LogListener};
use executor::{Either, select};

pub(crate) use date::Date;
pub use line::Format;
pub(crate) use line::scrubbed_lines;
pub use rotating::RotatingFile;
pub use sink::{Log, Sink};

use crate::agent_secret;
use crate::exec::{Error, executor};
use crate::signals::Signals;

/// What to take and where it goes.
#[derive(Debug)]
pub struct Request {
    /// The socket of the guest's vsock device.
    pub socket: PathBuf,
    /// The file with its agent's secret.
    pub secret: PathBuf,
    /// Where to.
    pub log: Log,
}

/// Takes a guest's logs until a signal ends it.
pub fn collect(request: Request) -> Result<(), Error> {
    let Request { socket, secret, mut log } = request;
    let signals = Signals::block().map_err(Error::host("take over the signals"))?;
    let secret =
        agent_secret::read(&secret).map_err(|source| Error::Read { path: secret, source })?;
    executor()?.block_on(async {
        let mut signals = signals.listen().map_err(Error::host("listen to signals"))?;
        let listener = LogListener::bind(&Guest::new(socket))
            .map_err(Error::host("listen for what the guest logs"))?;
        let serve = listener.serve(&secret, move |batch| log.take(&batch));
        match select(pin!(serve), pin!(signals.ending(None, || {}))).await {
            Either::Left(result) => result.map_err(Error::host("listen for what the guest logs")),
            Either::Right(number) => number.map(drop).map_err(Error::host("read signals")),
        }
    })
}

/// Where logs go that cannot be written: the guest keeps them and tries again.
type Written = io::Result<()>;
