//! Bytes between a process and its streams.
//!
//! A pump has one buffer and holds back when its receiver does, so flow control is that of pipe and
//! socket. It ends with the process, but not before everything that the process wrote is out: what
//! a pipe holds when the process has ended is all that it will ever get from it. Others that still
//! hold the pipe, such as daemons, do not keep the stream open.

use std::io;
use std::os::fd::AsFd;

use executor::{Either, Fd, IoBuf, PollFlags, RecvFlags, SendFlags, select};
use rustix::io::Errno;

use super::Exit;
use crate::latch::Latch;

/// What a pipe of Linux holds by default.
pub(crate) const BUFFER_BYTES: usize = 64 << 10;
/// What a terminal takes for the end of input (VEOF's default, ctrl-D).
const END_OF_INPUT: u8 = 4;

/// What the process has at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pipe {
    /// Closing it is the end of input.
    Plain,
    /// A character is.
    Terminal,
}

/// From the process to the host. The process's end must not block.
pub(super) async fn output(source: Fd, socket: Fd, exit: Latch<Exit>) {
    if let Err(error) = copy_output(&source, &socket, &exit).await {
        // Dropping the pipe tells the process that nobody reads.
        log::debug!("a process's output ended: {error}");
    }
}

async fn copy_output(source: &Fd, socket: &Fd, exit: &Latch<Exit>) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        // Before the read: what was written before the end is in the pipe now.
        let ended = exit.get().is_some();
        match rustix::io::read(source.as_fd(), &mut buffer[..]) {
            // A terminal whose other side is closed says EIO.
            Ok(0) | Err(Errno::IO) => return Ok(()),
            Ok(count) => buffer = send_all(socket, buffer, count).await?,
            Err(Errno::AGAIN) if ended => return Ok(()),
            Err(Errno::AGAIN) => wait(source, exit).await?,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

async fn wait(source: &Fd, exit: &Latch<Exit>) -> io::Result<()> {
    match select(source.poll(PollFlags::IN), exit.wait()).await {
        Either::Left(flags) => flags.map(drop),
        Either::Right(_) => Ok(()),
    }
}

/// Sends the first `count` bytes of a buffer and gives it back.
pub(crate) async fn send_all(socket: &Fd, buffer: Vec<u8>, count: usize) -> io::Result<Vec<u8>> {
    let mut buffer = buffer;
    let mut sent = 0;
    while sent < count {
        let (result, slice) = socket.send(buffer.slice(sent..count), SendFlags::NOSIGNAL).await;
        buffer = slice.into_inner();
        sent += result?;
    }
    Ok(buffer)
}

/// From the host to the process.
pub(super) async fn input(socket: Fd, sink: Fd, pipe: Pipe, exit: Latch<Exit>) {
    match select(copy_input(&socket, &sink, pipe), exit.wait()).await {
        Either::Left(Err(error)) => log::debug!("a process's input ended: {error}"),
        Either::Left(Ok(())) | Either::Right(_) => {}
    }
}

async fn copy_input(socket: &Fd, sink: &Fd, pipe: Pipe) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(BUFFER_BYTES);
    loop {
        buffer.clear();
        let (received, filled) = socket.recv(buffer, RecvFlags::empty()).await;
        buffer = filled;
        if received? == 0 {
            break;
        }
        buffer = write_all(sink, buffer).await?;
    }
    if pipe == Pipe::Terminal {
        write_all(sink, vec![END_OF_INPUT]).await?;
    }
    Ok(())
}

/// Writes all of a buffer and gives it back.
pub(crate) async fn write_all(sink: &Fd, buffer: Vec<u8>) -> io::Result<Vec<u8>> {
    let mut buffer = buffer;
    let mut written = 0;
    while written < buffer.len() {
        let (result, slice) = sink.write(buffer.slice(written..)).await;
        buffer = slice.into_inner();
        written += match result? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            count => count,
        };
    }
    Ok(buffer)
}
