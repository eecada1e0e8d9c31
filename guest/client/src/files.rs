//! Files that come out of a guest and go into it.
//!
//! ```text
//!   fetch   ReadFile ──▶ ticket ──▶ bytes ──▶ FinishFile: what the guest has sent
//!   store   WriteFile ─▶ ticket ──▶ bytes, end ──▶ FinishFile: what the guest has written
//! ```

use std::io;

use executor::Fd;
use proto::v1;

use crate::activity::Activity;
use crate::copy;
use crate::session::{CallError, Session};

/// Why a file was not copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The guest refused, or could not be asked.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The file or the stream broke in between.
    #[error("the copy broke off after {done} bytes")]
    Broke {
        /// What was copied.
        done: u64,
        /// Why no more.
        #[source]
        source: io::Error,
    },
    /// Both sides came to an end, and not to the same.
    #[error("{here} bytes are here and {there} in the guest")]
    Length {
        /// On this side.
        here: u64,
        /// On the guest's.
        there: u64,
    },
}

/// A file of the guest whose bytes can be read.
#[derive(Debug)]
pub struct Incoming {
    /// Its size when it was opened.
    pub size: u64,
    /// Its permission bits.
    pub mode: u32,
    stream: Fd,
    id: u64,
}

/// Where the guest shall make a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its path, or that of a folder.
    pub path: Vec<u8>,
    /// Its name if the path is a folder's.
    pub name: Vec<u8>,
    /// Its permission bits.
    pub mode: u32,
}

/// Opens a file of the guest.
pub async fn fetch(session: &Session, path: &[u8]) -> Result<Incoming, CallError> {
    let request = v1::ReadFileRequest { path: path.to_vec() };
    let reply = session.agent().read_file(request).await?.into_inner();
    let stream = session.open_stream(&reply.stream).await?;
    Ok(Incoming { size: reply.size, mode: reply.mode & 0o7777, stream, id: reply.id })
}

impl Incoming {
    /// Writes all its bytes; `activity` counts them.
    pub async fn copy_to(
        self,
        session: &Session,
        to: &Fd,
        activity: &Activity,
    ) -> Result<u64, CopyError> {
        let copied = copy::from_guest(&self.stream, to, activity).await;
        let here = activity.bytes();
        // If it is we who cannot go on, the guest would wait for us.
        copied.map_err(|source| CopyError::Broke { done: here, source })?;
        check(session, self.id, here).await
    }
}

/// Makes a file in the guest of all that can be read here; `activity` counts the bytes.
pub async fn store(
    session: &Session,
    from: &Fd,
    place: Place,
    activity: &Activity,
) -> Result<u64, CopyError> {
    let Place { path, name, mode } = place;
    let request = v1::WriteFileRequest { path, mode, name };
    let reply = session.agent().write_file(request).await.map_err(CallError::from)?.into_inner();
    let stream = session.open_stream(&reply.stream).await?;
    let copied = copy::to_guest(from, &stream, activity).await;
    let here = activity.bytes();
    drop(stream);
    match (copied, check(session, reply.id, here).await) {
        // A guest that cannot write closes the stream, and says then why.
        (_, Err(error @ CopyError::Call(_))) => Err(error),
        (Err(source), _) => Err(CopyError::Broke { done: here, source }),
        (Ok(()), checked) => checked,
    }
}

/// Compares with what the guest says.
async fn check(session: &Session, id: u64, here: u64) -> Result<u64, CopyError> {
    let request = v1::FinishFileRequest { id };
    let reply = session.agent().finish_file(request).await.map_err(CallError::from)?;
    let there = reply.into_inner().size;
    if here == there { Ok(here) } else { Err(CopyError::Length { here, there }) }
}
