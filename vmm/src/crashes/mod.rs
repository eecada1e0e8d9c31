//! Crashes of programs in guests: taken from their agents, kept in a folder of the user's.
//!
//! ```text
//!   agent ──gRPC──▶ SOCKET_7779 ──▶ report, made harmless ──▶ store: ID.json, ID.dmp
//! ```
//!
//! What is in a report is a guest's word. A minidump is kept as it is, and not read.

mod report;
mod store;

use std::io;
use std::path::PathBuf;
use std::pin::pin;

use agent_client::{CrashListener, Guest};
use executor::{Either, select};
use proto::credentials::Secret;

pub use report::{Crash, signal_name};
pub use store::{Store, StoreError};

use crate::agent_secret;
use crate::exec::{Error, executor};
use crate::signals::Signals;

/// More than so many of one guest are not kept: those of others would have to go for them.
const MAX_OF_ONE_GUEST: usize = 16;

/// Where crashes of a guest go.
#[derive(Debug)]
pub struct Taker {
    /// Where they are kept; None if nobody knows where.
    pub store: Option<Store>,
    /// What the guest is called.
    pub machine: String,
}

impl Taker {
    /// Takes all crashes of a guest, and says each.
    pub async fn serve(
        self,
        listener: &CrashListener,
        secret: &Secret,
        say: impl Fn(&str) + 'static,
    ) -> io::Result<()> {
        let mut taken = 0;
        let Taker { store, machine } = self;
        let take = move |report| {
            let crash = Crash::new(report, &machine);
            taken += 1;
            match &store {
                _ if taken > MAX_OF_ONE_GUEST => {
                    say(&format!("{crash}; it is not kept, like all after {MAX_OF_ONE_GUEST}"));
                }
                None => say(&format!("{crash}; there is no folder to keep it in")),
                Some(store) => match store.add(&crash) {
                    Ok(path) => say(&format!("{crash}; kept as {}", path.display())),
                    Err(error) => say(&format!("{crash}; it cannot be kept: {error}")),
                },
            }
            Ok(())
        };
        listener.serve(secret, take).await
    }
}

/// Takes crashes of a guest until a signal ends it.
pub fn collect(socket: PathBuf, secret: PathBuf, taker: Taker) -> Result<(), Error> {
    let signals = Signals::block().map_err(Error::host("take over the signals"))?;
    let secret =
        agent_secret::read(&secret).map_err(|source| Error::Read { path: secret, source })?;
    executor()?.block_on(async {
        let mut signals = signals.listen().map_err(Error::host("listen to signals"))?;
        let failed = Error::host("listen for crashes in the guest");
        let listener = CrashListener::bind(&Guest::new(socket)).map_err(&failed)?;
        let serve = taker.serve(&listener, &secret, |text| println!("{text}"));
        match select(pin!(serve), pin!(signals.ending(None, || {}))).await {
            Either::Left(result) => result.map_err(failed),
            Either::Right(number) => number.map(drop).map_err(Error::host("read signals")),
        }
    })
}
