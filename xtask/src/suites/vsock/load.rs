//! Moves bytes through many connections at once and says what went and what came; a program of its
//! own, without dependencies, that runs in guests and on hosts.
//!
//! ```text
//!   load guest COUNT BYTES          connects to port 5000 of the host
//!   load host PATH COUNT BYTES      listens on a Unix socket
//! ```
//!
//! Each connection carries BYTES in each direction. On either side one connection is not read until
//! all others are done: whatever stalls for it never ends.

use std::collections::VecDeque;
use std::ffi::{c_int, c_long, c_short, c_void};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::net::UnixListener;

const AF_VSOCK: c_int = 40;
const SOCK_STREAM: c_int = 1;
const PORT: u32 = 5000;
const HOST: u32 = 2;
const POLLIN: c_short = 1;
const POLLOUT: c_short = 4;
const MSG_DONTWAIT: c_int = 0x40;
const MSG_NOSIGNAL: c_int = 0x4000;
const PIECE: usize = 64 << 10;

#[repr(C)]
struct SockaddrVm {
    family: u16,
    reserved: u16,
    port: u32,
    cid: u32,
    zero: [u8; 4],
}

#[repr(C)]
struct PollFd {
    fd: c_int,
    events: c_short,
    revents: c_short,
}

unsafe extern "C" {
    fn socket(family: c_int, kind: c_int, protocol: c_int) -> c_int;
    fn connect(fd: c_int, address: *const SockaddrVm, length: u32) -> c_int;
    fn poll(fds: *mut PollFd, count: c_long, timeout: c_int) -> c_int;
    fn send(fd: c_int, data: *const c_void, length: usize, flags: c_int) -> isize;
    fn recv(fd: c_int, data: *mut c_void, length: usize, flags: c_int) -> isize;
}

/// A hash of a stream that does not depend on how it was cut.
#[derive(Default)]
struct Sum {
    hash: u64,
    partial: u64,
    bytes: u64,
}

impl Sum {
    fn add(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let offset = (self.bytes % 8) as u32;
            if offset == 0 && bytes.len() >= 8 {
                let (words, rest) = bytes.as_chunks::<8>();
                for word in words {
                    self.word(u64::from_le_bytes(*word));
                }
                self.bytes += 8 * words.len() as u64;
                bytes = rest;
                continue;
            }
            self.partial |= u64::from(bytes[0]) << (8 * offset);
            self.bytes += 1;
            bytes = &bytes[1..];
            if offset == 7 {
                let word = std::mem::take(&mut self.partial);
                self.word(word);
            }
        }
    }

    fn word(&mut self, word: u64) {
        self.hash = (self.hash.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    fn value(&self) -> u64 {
        self.hash ^ self.partial
    }
}

struct Connection {
    fd: OwnedFd,
    sent: Sum,
    received: Sum,
    offset: usize,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words[..] {
        ["guest", count, bytes] => guest(count.parse().unwrap(), bytes.parse().unwrap()),
        ["host", path, count, bytes] => {
            host(path, count.parse().unwrap(), bytes.parse().unwrap())
        }
        _ => Err(io::Error::other("load guest COUNT BYTES | load host PATH COUNT BYTES")),
    };
    if let Err(error) = result {
        println!("load: {error}");
        std::process::exit(1);
    }
}

fn guest(count: usize, bytes: u64) -> io::Result<()> {
    let open = |_| {
        let address = SockaddrVm {
            family: AF_VSOCK as u16,
            reserved: 0,
            port: PORT,
            cid: HOST,
            zero: [0; 4],
        };
        // SAFETY: plain calls; the address lives during the call, the descriptor is new.
        unsafe {
            let fd = socket(AF_VSOCK, SOCK_STREAM, 0);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            let fd = OwnedFd::from_raw_fd(fd);
            let length = size_of::<SockaddrVm>() as u32;
            match connect(fd.as_raw_fd(), &raw const address, length) {
                0 => Ok(fd),
                _ => Err(io::Error::last_os_error()),
            }
        }
    };
    let fds = (0..count).map(open).collect::<io::Result<_>>()?;
    println!("load: {count} connections");
    exchange(fds, bytes, 1)
}

fn host(path: &str, count: usize, bytes: u64) -> io::Result<()> {
    let listener = UnixListener::bind(path)?;
    println!("load: listens");
    let accept = |_| {
        let (stream, _) = listener.accept()?;
        // SAFETY: just given up by its owner.
        Ok(unsafe { OwnedFd::from_raw_fd(stream.into_raw_fd()) })
    };
    let fds = (0..count).map(accept).collect::<io::Result<_>>()?;
    exchange(fds, bytes, 0)
}

/// Moves all bytes both ways. The connection `slow` is not read before the others are done.
fn exchange(fds: Vec<OwnedFd>, bytes: u64, slow: usize) -> io::Result<()> {
    let noise = noise();
    let connection = |(index, fd)| Connection {
        fd,
        sent: Sum::default(),
        received: Sum::default(),
        offset: (index + 4000 * slow) * 8 % PIECE,
    };
    let mut all: Vec<Connection> = fds.into_iter().enumerate().map(connection).collect();
    let mut buffer = vec![0; PIECE];
    loop {
        let others_done = all.iter().enumerate().all(|(index, one)| {
            index == slow || one.received.bytes == bytes && one.sent.bytes == bytes
        });
        let mut polls = VecDeque::new();
        for (index, one) in all.iter().enumerate() {
            let reads = one.received.bytes < bytes && (index != slow || others_done);
            let events = if reads { POLLIN } else { 0 }
                | if one.sent.bytes < bytes { POLLOUT } else { 0 };
            if events != 0 {
                polls.push_back((index, PollFd { fd: one.fd.as_raw_fd(), events, revents: 0 }));
            }
        }
        if polls.is_empty() && others_done {
            break;
        }
        let (indices, mut polls): (Vec<usize>, Vec<PollFd>) = polls.into_iter().unzip();
        // SAFETY: the list lives during the call.
        if unsafe { poll(polls.as_mut_ptr(), polls.len() as c_long, 60_000) } <= 0 {
            return Err(io::Error::other(format!("{} connections stall", polls.len())));
        }
        for (index, poll) in indices.into_iter().zip(polls) {
            let one = &mut all[index];
            let fd = one.fd.as_raw_fd();
            if poll.revents & POLLOUT != 0 {
                let start = (one.offset + one.sent.bytes as usize) % PIECE;
                let length = (bytes - one.sent.bytes).min((PIECE - start) as u64) as usize;
                let piece = &noise[start..start + length];
                // SAFETY: the piece lives during the call.
                let sent = unsafe {
                    send(fd, piece.as_ptr().cast(), length, MSG_DONTWAIT | MSG_NOSIGNAL)
                };
                match usize::try_from(sent) {
                    Ok(sent) => one.sent.add(&piece[..sent]),
                    Err(_) => would_block("send", index)?,
                }
            }
            if poll.revents & !POLLOUT != 0 && poll.events & POLLIN != 0 {
                // SAFETY: the buffer lives during the call and is that long.
                let received = unsafe {
                    recv(fd, buffer.as_mut_ptr().cast(), PIECE, MSG_DONTWAIT)
                };
                match usize::try_from(received) {
                    Ok(0) => {
                        return Err(io::Error::other(format!(
                            "connection {index} ends after {} of {bytes} bytes",
                            one.received.bytes
                        )));
                    }
                    Ok(received) => one.received.add(&buffer[..received]),
                    Err(_) => would_block("recv", index)?,
                }
            }
        }
    }
    let sum = |of: fn(&Connection) -> &Sum| {
        all.iter().map(|one| of(one).value()).fold(0, u64::wrapping_add)
    };
    let count = all.len();
    println!(
        "load: {count} of {bytes} bytes sent={:016x} received={:016x}",
        sum(|one| &one.sent),
        sum(|one| &one.received)
    );
    // Nobody closes before the other side has all: it has said so by sending all.
    Ok(())
}

fn would_block(what: &str, index: usize) -> io::Result<()> {
    let error = io::Error::last_os_error();
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(()),
        _ => Err(io::Error::other(format!("{what} on connection {index}: {error}"))),
    }
}

fn noise() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..PIECE).map(|_| next()).collect()
}
