//! From the line to a file, in few writes.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use executor::{Fd, IoBuf, PollFlags, timeout};

use super::line::Line;
use super::summary::SummaryTap;
use crate::terminal;

/// How long the first byte waits for others: nobody sees it, and a guest sends a byte per exit.
const GATHER: Duration = Duration::from_millis(2);

/// How long a batch may wait for a reader that may not be there.
const LOSSY_PATIENCE: Duration = Duration::from_millis(20);

pub(super) type Tap = Rc<RefCell<SummaryTap>>;

/// The batches of a line, each gathered for a moment and seen by the tap.
pub(super) struct Batches {
    line: Arc<Line>,
    tap: Tap,
    spare: Vec<u8>,
}

impl Batches {
    pub(super) fn new(line: Arc<Line>, tap: Tap) -> Self {
        Self { line, tap, spare: Vec::new() }
    }

    /// The next batch; None when the line is closed and empty.
    pub(super) async fn next(&mut self) -> Option<Vec<u8>> {
        self.line.ready().await;
        // Either way it is time now.
        let _ = timeout(GATHER, self.line.urgent()).await;
        let batch = self.line.take(std::mem::take(&mut self.spare))?;
        self.tap.borrow_mut().feed(&batch);
        Some(batch)
    }

    /// Takes the buffer of a batch back for a later one.
    pub(super) fn recycle(&mut self, mut batch: Vec<u8>) {
        batch.clear();
        self.spare = batch;
    }
}

/// Throws everything away.
pub(super) async fn discard(line: Arc<Line>, tap: Tap) {
    let mut batches = Batches::new(line, tap);
    while let Some(batch) = batches.next().await {
        batches.recycle(batch);
    }
}

/// Writes everything, as fast as the reader takes it.
pub(super) async fn to_stream(line: Arc<Line>, tap: Tap, fd: Fd) {
    copy(Batches::new(line, tap), &fd, |_| {}).await;
}

/// As [`to_stream`], and remembers where the line stands.
pub(super) async fn to_stdout(line: Arc<Line>, tap: Tap, fd: Fd) {
    copy(Batches::new(line, tap), &fd, terminal::note_output).await;
}

/// Writes what a reader takes soon and loses the rest.
pub(super) async fn to_lossy_stream(line: Arc<Line>, tap: Tap, fd: Fd) {
    let mut batches = Batches::new(line, tap);
    let mut patience = LOSSY_PATIENCE;
    while let Some(batch) = batches.next().await {
        // Once in vain is enough; the next success brings the patience back.
        patience = match timeout(patience, write_all(&fd, batch)).await {
            Ok((Ok(()), batch)) => {
                batches.recycle(batch);
                LOSSY_PATIENCE
            }
            Ok((Err(_), _)) | Err(_) => Duration::ZERO,
        };
    }
}

async fn copy(mut batches: Batches, fd: &Fd, mut written: impl FnMut(&[u8])) {
    while let Some(batch) = batches.next().await {
        let (result, batch) = write_all(fd, batch).await;
        if let Err(error) = result {
            log::warn!("serial port: output is thrown away from now on: {error}");
            break;
        }
        written(&batch);
        batches.recycle(batch);
    }
    // The machine goes on; its senders must not wait.
    while let Some(batch) = batches.next().await {
        batches.recycle(batch);
    }
}

/// Writes all bytes, in one operation if the file takes them.
pub(super) async fn write_all(fd: &Fd, mut bytes: Vec<u8>) -> (io::Result<()>, Vec<u8>) {
    let mut done = 0;
    while done < bytes.len() {
        let (result, slice) = fd.write(bytes.slice(done..)).await;
        bytes = slice.into_inner();
        match result {
            Ok(0) => return (Err(io::ErrorKind::WriteZero.into()), bytes),
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Somebody else made the shared file non-blocking.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if let Err(error) = fd.poll(PollFlags::OUT).await {
                    return (Err(error), bytes);
                }
            }
            Err(error) => return (Err(error), bytes),
        }
    }
    (Ok(()), bytes)
}
