//! Moves bytes through many connections at once and says what went and what came; a program of its
//! own, without dependencies, that runs in guests and on hosts.
//!
//! ```text
//!   load connect WHERE COUNT BYTES [messages]
//!   load listen WHERE COUNT BYTES [messages]
//!
//!   WHERE is vsock:PORT (of the host), unix:PATH or tcp:ADDRESS:PORT
//! ```
//!
//! Each connection carries BYTES in each direction, as a stream or as messages. On either side one
//! connection is not read until all others are done: whatever stalls for it never ends.

mod messages;
mod sockets;
mod streams;
mod sum;

use std::io;
use std::os::fd::OwnedFd;

use sockets::{Kind, accept_one, connect, listen};

/// Where noise begins again.
const PIECE: usize = 64 << 10;

/// Sums over all connections of what went and what came.
struct Totals {
    sent: u64,
    received: u64,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let kind = match words.last() {
        Some(&"messages") => Kind::Seqpacket,
        _ => Kind::Stream,
    };
    words.retain(|word| *word != "messages");
    if let Err(error) = run(kind, &words) {
        println!("load: {error}");
        std::process::exit(1);
    }
}

fn run(kind: Kind, words: &[&str]) -> io::Result<()> {
    let [role @ ("connect" | "listen"), place, count, bytes] = *words else {
        return Err(io::Error::other("load connect|listen WHERE COUNT BYTES [messages]"));
    };
    let (count, bytes) = (number(count), number(bytes) as u64);
    if role == "connect" {
        let fds = (0..count).map(|_| connect(place, kind)).collect::<io::Result<_>>()?;
        return exchange(kind, fds, bytes, 1);
    }
    let listener = listen(place, kind)?;
    let fds = (0..count).map(|_| accept_one(&listener)).collect::<io::Result<_>>()?;
    exchange(kind, fds, bytes, 0)
}

fn number(text: &str) -> usize {
    text.parse().expect("a number")
}

fn exchange(kind: Kind, fds: Vec<OwnedFd>, bytes: u64, slow: usize) -> io::Result<()> {
    let count = fds.len();
    println!("load: {count} connections");
    let Totals { sent, received } = match kind {
        Kind::Stream => streams::exchange(fds, bytes, slow)?,
        Kind::Seqpacket => messages::exchange(fds, bytes, slow)?,
    };
    println!("load: {count} of {bytes} bytes sent={sent:016x} received={received:016x}");
    Ok(())
}

fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(|_| next()).collect()
}
