//! What the guest sent and the host's socket did not take yet. Credit bounds it.

use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;

use super::credit::End;
use super::socket;
use crate::virtio::queue::GuestBuffers;

/// Most messages that wait for one socket. A Unix socket holds some hundreds of them; without a
/// bound, tiny ones would cost more memory than credit counts.
const MOST_MESSAGES: usize = 16 << 10;

/// Bytes for the host, in order.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    bytes: Vec<u8>,
    /// Bytes at the front that are gone.
    start: usize,
    /// Lengths of whole messages, where there are messages.
    messages: VecDeque<u32>,
    /// Bytes at the end that belong to a message which is not complete.
    partial: u32,
}

impl Outgoing {
    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Where what the guest sent ends for now.
    pub(super) fn end(&self) -> End {
        if self.partial > 0 { End::MidMessage } else { End::Anywhere }
    }

    /// Whether there is something that the socket could take. Parts of messages wait for the rest.
    pub(super) fn has_work(&self, messages: Messages) -> bool {
        match messages {
            Messages::None => !self.is_empty(),
            Messages::Kept => !self.messages.is_empty(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Add bytes of a stream.
    pub(super) fn push(&mut self, data: &GuestBuffers) {
        // Moving what is left costs no more than what left has cost.
        if self.start > self.bytes.len() / 2 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        let end = self.bytes.len();
        self.bytes.resize(end + data.bytes() as usize, 0);
        data.copy_to(&mut self.bytes[end..]);
    }

    /// Add a part of a message. False if there are too many of them.
    #[must_use]
    pub(super) fn push_part(&mut self, data: &GuestBuffers, part: Part) -> bool {
        self.push(data);
        self.partial += data.bytes();
        if part == Part::Last && self.partial > 0 {
            self.messages.push_back(std::mem::take(&mut self.partial));
        }
        self.messages.len() <= MOST_MESSAGES
    }

    /// Send what the socket takes; says how many bytes that was. An error that is not
    /// [`io::ErrorKind::WouldBlock`] is the end of the socket.
    pub(super) fn flush(&mut self, socket: BorrowedFd<'_>, messages: Messages) -> io::Result<u32> {
        let mut sent = 0;
        while self.has_work(messages) {
            let length = match messages {
                Messages::None => self.len(),
                Messages::Kept => self.messages[0] as usize,
            };
            let piece = &self.bytes[self.start..self.start + length];
            match socket::send(socket, piece) {
                Ok(bytes) => {
                    self.messages.pop_front();
                    self.start += bytes;
                    sent += bytes as u32;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        if self.is_empty() {
            // Most connections wait for nothing most of the time.
            (self.bytes, self.start) = (Vec::new(), 0);
        }
        Ok(sent)
    }

    /// Throw all away; says how many bytes that was.
    pub(super) fn clear(&mut self) -> u32 {
        let bytes = self.len() as u32;
        *self = Self::default();
        bytes
    }
}

/// Whether a socket keeps the boundaries of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Messages {
    None,
    Kept,
}

/// A part of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    More,
    Last,
}
