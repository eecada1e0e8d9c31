//! Lines of JSON on a connection, each with an end to its patience.

use std::io;
use std::time::Duration;

use executor::{Fd, IoBuf, RecvFlags, SendFlags, timeout};
use serde::Serialize;

/// The longest line of a client: ids are short.
pub(super) const LONGEST_LINE: usize = 4096;
/// How long a client may take to read what it is sent.
const WRITE_PATIENCE: Duration = Duration::from_secs(5);

/// Why there is no further line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoLine {
    /// The client left, or the connection failed.
    Left,
    /// It is longer than [`LONGEST_LINE`].
    TooLong,
}

/// A connection.
pub(super) struct Lines {
    fd: Fd,
    /// Received and not yet taken.
    received: Vec<u8>,
    /// What the next piece is received into.
    piece: Vec<u8>,
}

impl Lines {
    pub(super) fn new(fd: Fd) -> Self {
        let piece = Vec::with_capacity(LONGEST_LINE);
        Self { fd, received: Vec::new(), piece }
    }

    /// The next line of the client, without its end.
    pub(super) async fn next(&mut self) -> Result<Vec<u8>, NoLine> {
        loop {
            if let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
                let rest = self.received.split_off(end + 1);
                let mut line = std::mem::replace(&mut self.received, rest);
                line.truncate(end);
                return Ok(line);
            }
            if self.received.len() >= LONGEST_LINE {
                return Err(NoLine::TooLong);
            }
            self.receive().await?;
        }
    }

    /// Waits until the client leaves. What it sends meanwhile is dropped.
    pub(super) async fn left(&mut self) {
        while self.receive().await.is_ok() {
            self.received.clear();
        }
    }

    async fn receive(&mut self) -> Result<(), NoLine> {
        let mut piece = std::mem::take(&mut self.piece);
        piece.clear();
        piece.reserve(LONGEST_LINE);
        let (result, piece) = self.fd.recv(piece, RecvFlags::empty()).await;
        self.piece = piece;
        match result {
            Ok(0) => Err(NoLine::Left),
            Ok(_) => {
                self.received.extend_from_slice(&self.piece);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(_) => Err(NoLine::Left),
        }
    }

    /// Sends a line. An error means that the client is not worth more time.
    pub(super) async fn send(&self, value: &impl Serialize) -> Result<(), NoLine> {
        let mut line = serde_json::to_vec(value).map_err(|_| NoLine::Left)?;
        line.push(b'\n');
        match timeout(WRITE_PATIENCE, send_all(&self.fd, line)).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(NoLine::Left),
        }
    }
}

async fn send_all(fd: &Fd, mut bytes: Vec<u8>) -> io::Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        let (result, slice) = fd.send(bytes.slice(done..), SendFlags::NOSIGNAL).await;
        bytes = slice.into_inner();
        match result {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
