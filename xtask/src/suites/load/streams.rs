//! Streams: whoever can send or receive does so, all connections in one thread.

use std::ffi::c_short;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use crate::sockets::{
    MSG_DONTWAIT, POLLIN, POLLOUT, PollFd, receive_some, send_some, shut_down_writes, wait,
};
use crate::sum::Sum;
use crate::{PIECE, Totals, noise};

struct Connection {
    fd: OwnedFd,
    sent: Sum,
    received: Sum,
    offset: usize,
}

impl Connection {
    fn send(&mut self, noise: &[u8], bytes: u64) -> io::Result<()> {
        let start = (self.offset + self.sent.bytes as usize) % PIECE;
        let length = (bytes - self.sent.bytes).min((PIECE - start) as u64) as usize;
        let piece = &noise[start..start + length];
        let sent = patient(send_some(&self.fd, piece, MSG_DONTWAIT))?;
        self.sent.add(&piece[..sent.unwrap_or(0)]);
        Ok(())
    }

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        match patient(receive_some(&self.fd, buffer, MSG_DONTWAIT))? {
            Some(0) => {
                let bytes = self.received.bytes;
                Err(io::Error::other(format!("the end comes after {bytes} bytes")))
            }
            Some(received) => {
                self.received.add(&buffer[..received]);
                Ok(())
            }
            None => Ok(()),
        }
    }
}

/// Moves all bytes both ways. The connection `slow` is not read before the others have been.
pub fn exchange(fds: Vec<OwnedFd>, bytes: u64, slow: usize) -> io::Result<Totals> {
    let noise = noise(PIECE);
    let connection = |(index, fd)| Connection {
        fd,
        sent: Sum::default(),
        received: Sum::default(),
        offset: (index + 4000 * slow) * 8 % PIECE,
    };
    let mut all: Vec<Connection> = fds.into_iter().enumerate().map(connection).collect();
    let mut buffer = vec![0; PIECE];
    loop {
        let mut others = all.iter().enumerate().filter(|(index, _)| *index != slow);
        // What is sent to the connection that is slow on the other side waits for this side's.
        let others_done = others.all(|(_, one)| one.received.bytes == bytes);
        let (mut indices, mut polls) = (Vec::new(), Vec::new());
        for (index, one) in all.iter().enumerate() {
            let reads = one.received.bytes < bytes && (index != slow || others_done);
            let writes = one.sent.bytes < bytes;
            let events = POLLIN * c_short::from(reads) | POLLOUT * c_short::from(writes);
            if events != 0 {
                indices.push(index);
                polls.push(PollFd { fd: one.fd.as_raw_fd(), events, revents: 0 });
            }
        }
        if polls.is_empty() && others_done {
            break;
        }
        if wait(&mut polls) == 0 {
            return Err(io::Error::other(format!("{} connections stall", polls.len())));
        }
        for (index, poll) in indices.into_iter().zip(polls) {
            let one = &mut all[index];
            let failed = |error| io::Error::other(format!("connection {index}: {error}"));
            if poll.revents & POLLOUT != 0 {
                one.send(&noise, bytes).map_err(failed)?;
            }
            if poll.revents & !POLLOUT != 0 && poll.events & POLLIN != 0 {
                one.receive(&mut buffer).map_err(failed)?;
            }
        }
    }
    // Nobody leaves before the other side has all.
    for one in &all {
        shut_down_writes(&one.fd)?;
    }
    for one in &all {
        if receive_some(&one.fd, &mut buffer, 0)? > 0 {
            return Err(io::Error::other("more came than was sent"));
        }
    }
    let sum = |of: fn(&Connection) -> &Sum| {
        all.iter().map(|one| of(one).value()).fold(0, u64::wrapping_add)
    };
    Ok(Totals { sent: sum(|one| &one.sent), received: sum(|one| &one.received) })
}

/// None when there is nothing to do for now.
fn patient(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(None),
            _ => Err(error),
        },
    }
}
