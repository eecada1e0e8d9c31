//! What a program writes, line by line.

use std::os::fd::OwnedFd;

use executor::{Fd, PollFlags};
use rustix::io::Errno;

/// Longer lines are handed over in parts.
const MAX_LINE_BYTES: usize = 4 << 10;

/// A pipe whose lines are handed over.
pub(super) struct Lines<F> {
    from: Option<Fd>,
    /// The beginning of a line.
    line: Vec<u8>,
    take: F,
}

impl<F: FnMut(&[u8])> Lines<F> {
    /// Of a pipe that does not block.
    pub(super) fn new(from: Option<OwnedFd>, take: F) -> Self {
        let from = from.and_then(|end| {
            Fd::new(end).inspect_err(|error| log::warn!("a service's output: {error}")).ok()
        });
        Self { from, line: Vec::new(), take }
    }

    /// Waits for something and hands over what there is; when nobody can write any more it waits for ever.
    pub(super) async fn some(&mut self) {
        let Some(from) = self.from.clone() else { return std::future::pending().await };
        match from.poll(PollFlags::IN).await {
            Ok(_) => self.read(&from),
            Err(error) => {
                log::warn!("a service's output: {error}");
                self.from = None;
            }
        }
    }

    /// Hands over what is there, also a line without an end.
    pub(super) fn finish(mut self) {
        if let Some(from) = self.from.take() {
            self.read(&from);
        }
        if !self.line.is_empty() {
            (self.take)(&self.line);
        }
    }

    /// Reads until there is nothing, or for ever nothing.
    fn read(&mut self, from: &Fd) {
        let mut buffer = [0; MAX_LINE_BYTES];
        loop {
            match rustix::io::read(from, &mut buffer) {
                Ok(0) => return self.from = None,
                Ok(count) => self.cut(&buffer[..count]),
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR) => {}
                Err(errno) => {
                    log::warn!("a service's output: {errno}");
                    return self.from = None;
                }
            }
        }
    }

    fn cut(&mut self, bytes: &[u8]) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, is_whole) = match part.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (part, false),
            };
            self.line.extend_from_slice(text);
            if is_whole || self.line.len() >= MAX_LINE_BYTES {
                (self.take)(&self.line);
                self.line.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_become_lines_however_they_come() {
        let mut lines = Vec::new();
        let mut cutter = Lines::new(None, |line: &[u8]| lines.push(line.to_vec()));
        cutter.cut(b"one\ntw");
        cutter.cut(b"o\n\n");
        cutter.cut(&[b'x'; MAX_LINE_BYTES]);
        cutter.cut(b"tail");
        cutter.finish();
        let long = vec![b'x'; MAX_LINE_BYTES];
        assert_eq!(lines, [b"one".to_vec(), b"two".to_vec(), Vec::new(), long, b"tail".to_vec()]);
    }
}
