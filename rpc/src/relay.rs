//! Bytes between two connections.
//!
//! ```text
//!   a ──recv──▶ buffer ──send──▶ b        an end goes on as a half-close; when both have
//!   a ◀──send── buffer ◀──recv── b        come, or one side breaks, both are closed
//! ```

use std::io;
use std::pin::pin;

use executor::{Either, Fd, IoBuf, RecvFlags, SendFlags, select};
use rustix::io::Errno;
use rustix::net::Shutdown;

/// What a pipe of Linux holds by default.
const BUFFER_BYTES: usize = 64 << 10;

/// Copies both ways until both directions have ended. If one breaks, the other is broken off.
pub async fn relay(a: Fd, b: Fd) -> io::Result<()> {
    let mut there = pin!(copy(&a, &b));
    let mut back = pin!(copy(&b, &a));
    let result = match select(there.as_mut(), back.as_mut()).await {
        Either::Left(Ok(())) => back.await,
        Either::Right(Ok(())) => there.await,
        Either::Left(error) | Either::Right(error) => error,
    };
    if result.is_err() {
        // Whoever is left shall see that it was no orderly end.
        for socket in [&a, &b] {
            let _ = rustix::net::shutdown(socket, Shutdown::Both);
        }
    }
    result
}

async fn copy(from: &Fd, to: &Fd) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(BUFFER_BYTES);
    loop {
        buffer.clear();
        let (received, filled) = from.recv(buffer, RecvFlags::empty()).await;
        buffer = filled;
        let count = received?;
        if count == 0 {
            break;
        }
        let mut sent = 0;
        while sent < count {
            let (result, slice) = to.send(buffer.slice(sent..count), SendFlags::NOSIGNAL).await;
            buffer = slice.into_inner();
            sent += result?;
        }
    }
    match rustix::net::shutdown(to, Shutdown::Write) {
        // It is closed already.
        Ok(()) | Err(Errno::NOTCONN) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use executor::{Config, Executor};

    use super::*;

    #[test]
    fn ends_go_on_as_half_closes() {
        let mut executor = Executor::new(&Config::default()).unwrap();
        let (mut left, a) = UnixStream::pair().unwrap();
        let (b, mut right) = UnixStream::pair().unwrap();
        let user = std::thread::spawn(move || {
            left.write_all(b"question").unwrap();
            left.shutdown(std::net::Shutdown::Write).unwrap();
            let mut heard = String::new();
            right.read_to_string(&mut heard).unwrap();
            right.write_all(b"answer").unwrap();
            drop(right);
            let mut answer = String::new();
            left.read_to_string(&mut answer).unwrap();
            (heard, answer)
        });
        executor
            .block_on(async { relay(Fd::unregistered(a)?, Fd::unregistered(b)?).await })
            .unwrap();
        assert_eq!(user.join().unwrap(), ("question".into(), "answer".into()));
    }

    #[test]
    fn a_side_that_is_gone_closes_the_other() {
        let mut executor = Executor::new(&Config::default()).unwrap();
        let (mut left, a) = UnixStream::pair().unwrap();
        let (b, right) = UnixStream::pair().unwrap();
        drop(right);
        let user = std::thread::spawn(move || {
            // Its other side waits for an answer that nobody will give.
            let _ = left.write_all(b"anybody?");
            left.read_to_end(&mut Vec::new())
        });
        let result =
            executor.block_on(async { relay(Fd::unregistered(a)?, Fd::unregistered(b)?).await });
        assert!(result.is_err());
        assert_eq!(user.join().unwrap().unwrap(), 0);
    }
}
