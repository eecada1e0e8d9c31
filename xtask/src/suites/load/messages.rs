//! Messages of any length, with two threads for each connection: a driver that is not given room for
//! a whole message waits for it. Either side knows which messages come, and finds each one whole.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;

use crate::sockets::{receive_some, send_some};
use crate::sum::Sum;
use crate::{PIECE, Totals, noise};

/// Some fit into a packet of a driver, others take several. The device gives each connection room for
/// 128 KiB, and Linux sends no message that is longer.
const LONGEST: usize = 120_000;

/// The messages of one direction of a connection.
struct Messages {
    state: u64,
    left: u64,
}

impl Messages {
    fn new(index: usize, sender: usize, bytes: u64) -> Self {
        Self { state: (2 * index + sender + 1) as u64 * 0x9e37_79b9_7f4a_7c15, left: bytes }
    }

    /// Where it is in the noise, and its length.
    fn next(&mut self) -> Option<(usize, usize)> {
        if self.left == 0 {
            return None;
        }
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        let longest = if self.state & 1 == 0 { LONGEST } else { 2000 };
        let length = 1 + (self.state >> 8) as usize % longest;
        let length = length.min(usize::try_from(self.left).unwrap_or(length));
        self.left -= length as u64;
        Some(((self.state >> 40) as usize % PIECE, length))
    }
}

fn send_all(fd: &OwnedFd, noise: &[u8], mut messages: Messages) -> io::Result<u64> {
    let mut sum = Sum::default();
    while let Some((start, length)) = messages.next() {
        let message = &noise[start..start + length];
        let sent = send_some(fd, message, 0)?;
        if sent != length {
            return Err(io::Error::other(format!("{sent} of {length} bytes were sent")));
        }
        sum.add(message);
    }
    Ok(sum.value())
}

fn receive_all(fd: &OwnedFd, noise: &[u8], mut messages: Messages) -> io::Result<u64> {
    let mut sum = Sum::default();
    // Whatever comes with a message that is longer shows.
    let mut buffer = vec![0; LONGEST + 1];
    while let Some((start, length)) = messages.next() {
        let received = receive_some(fd, &mut buffer, 0)?;
        if buffer[..received] != noise[start..start + length] {
            let said = format!("a message of {received} bytes came instead of one of {length}");
            return Err(io::Error::other(said));
        }
        sum.add(&buffer[..received]);
    }
    Ok(sum.value())
}

/// A thread that ends the program when it fails: others may wait for ever then.
fn begin(work: impl FnOnce() -> io::Result<u64> + Send + 'static) -> thread::JoinHandle<u64> {
    thread::spawn(move || {
        work().unwrap_or_else(|error| {
            println!("load: {error}");
            std::process::exit(1);
        })
    })
}

/// Moves all bytes both ways. The connection `slow` is not read before the others are done.
pub fn exchange(fds: Vec<OwnedFd>, bytes: u64, slow: usize) -> io::Result<Totals> {
    let noise: Arc<[u8]> = noise(PIECE + LONGEST).into();
    let fds: Vec<Arc<OwnedFd>> = fds.into_iter().map(Arc::new).collect();
    let sender = |index: usize| {
        let (fd, noise) = (fds[index].clone(), noise.clone());
        begin(move || send_all(&fd, &noise, Messages::new(index, slow, bytes)))
    };
    let receiver = |index: usize| {
        let (fd, noise) = (fds[index].clone(), noise.clone());
        begin(move || receive_all(&fd, &noise, Messages::new(index, 1 - slow, bytes)))
    };
    let senders: Vec<_> = (0..fds.len()).map(sender).collect();
    let receivers: Vec<_> = (0..fds.len()).filter(|index| *index != slow).map(receiver).collect();
    let mut totals = Totals { sent: 0, received: sum(receivers) };
    totals.received = totals.received.wrapping_add(sum(vec![receiver(slow)]));
    totals.sent = sum(senders);
    Ok(totals)
}

fn sum(threads: Vec<thread::JoinHandle<u64>>) -> u64 {
    let values = threads.into_iter().map(|thread| thread.join().expect("it ends in order"));
    values.fold(0, u64::wrapping_add)
}
