//! From a stream to the guest, no faster than the guest reads.

use std::io;
use std::sync::Arc;

use executor::{Fd, PollFlags};

use super::Receive;
use super::line::Line;

/// What is on its way to the device.
pub(super) struct Pending {
    device: Arc<dyn Receive>,
    line: Arc<Line>,
    bytes: Vec<u8>,
}

impl Pending {
    pub(super) fn new(device: Arc<dyn Receive>, line: Arc<Line>) -> Self {
        Self { device, line, bytes: Vec::new() }
    }

    pub(super) fn device(&self) -> &dyn Receive {
        &*self.device
    }

    /// What to read at once.
    pub(super) fn read_bytes(&self) -> usize {
        self.device.read_bytes()
    }

    /// Where bytes for the device are appended to.
    pub(super) fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Gives the device what it has room for now.
    pub(super) fn offer(&mut self) {
        if !self.bytes.is_empty() {
            let taken = self.device.receive(&self.bytes).min(self.bytes.len());
            self.bytes.drain(..taken);
        }
    }

    /// Gives the device everything, as room comes.
    pub(super) async fn deliver(&mut self) {
        self.offer();
        while !self.bytes.is_empty() {
            self.line.room().await;
            self.offer();
        }
    }
}

/// Copies a stream to the device until it ends.
pub(super) async fn from_stream(fd: Fd, mut pending: Pending) {
    let mut buffer = Vec::new();
    loop {
        let result;
        (result, buffer) = read(&fd, pending.read_bytes(), buffer).await;
        match result {
            Ok(0) => return,
            Ok(_) => pending.bytes().extend_from_slice(&buffer),
            Err(error) => {
                log::warn!("serial port: no more input: {error}");
                return;
            }
        }
        pending.deliver().await;
    }
}

/// Reads what is there, about so many bytes, into an emptied buffer. 0 is the end.
pub(super) async fn read(
    fd: &Fd,
    bytes: usize,
    mut buffer: Vec<u8>,
) -> (io::Result<usize>, Vec<u8>) {
    loop {
        buffer.clear();
        buffer.reserve(bytes);
        let result;
        (result, buffer) = fd.read(buffer).await;
        match result {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Somebody else made the shared file non-blocking.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if let Err(error) = fd.poll(PollFlags::IN).await {
                    return (Err(error), buffer);
                }
            }
            other => return (other, buffer),
        }
    }
}
