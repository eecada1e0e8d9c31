//! Copies between a stream and a descriptor of this process.

use std::io;

use executor::{Fd, IoBuf, RecvFlags, SendFlags};
use rustix::net::Shutdown;

use crate::activity::Activity;

/// What a pipe of Linux holds by default.
const BUFFER_BYTES: usize = 64 << 10;

/// Copies all that comes from the guest, to its end.
pub(crate) async fn from_guest(stream: &Fd, to: &Fd, activity: &Activity) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(BUFFER_BYTES);
    loop {
        buffer.clear();
        let (received, filled) = stream.recv(buffer, RecvFlags::empty()).await;
        buffer = filled;
        if received? == 0 {
            return Ok(());
        }
        activity.passed(buffer.len());
        let mut written = 0;
        while written < buffer.len() {
            let (result, slice) = to.write(buffer.slice(written..)).await;
            buffer = slice.into_inner();
            written += match result? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                count => count,
            };
        }
    }
}

/// Copies to the guest up to the end of the input, and says that it was the end.
pub(crate) async fn to_guest(from: &Fd, stream: &Fd, activity: &Activity) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(BUFFER_BYTES);
    loop {
        buffer.clear();
        let (read, filled) = from.read(buffer).await;
        buffer = filled;
        let count = read?;
        if count == 0 {
            break;
        }
        activity.passed(count);
        let mut sent = 0;
        while sent < count {
            let (result, slice) = stream.send(buffer.slice(sent..), SendFlags::NOSIGNAL).await;
            buffer = slice.into_inner();
            sent += result?;
        }
    }
    match rustix::net::shutdown(stream, Shutdown::Write) {
        // The program did not want its input.
        Ok(()) | Err(rustix::io::Errno::NOTCONN) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
