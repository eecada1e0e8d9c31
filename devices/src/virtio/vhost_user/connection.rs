//! The socket: messages with descriptors beside them.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use executor::{Fd, PollFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use zerocopy::FromBytes;

use super::message::{Header, Message};
use super::wire;

/// A connection with a front end.
pub(super) struct Connection {
    socket: Fd,
}

impl Connection {
    pub(super) fn new(socket: ipc::Fd) -> io::Result<Self> {
        Ok(Self { socket: Fd::unregistered(socket)? })
    }

    /// The next request; none when the front end has gone away. Must not be given up half-way.
    pub(super) async fn receive(&self) -> io::Result<Option<Message>> {
        let mut descriptors = Vec::new();
        let mut bytes = [0; size_of::<Header>()];
        if !self.fill(&mut bytes, &mut descriptors).await? {
            return Ok(None);
        }
        let header = Header::read_from_bytes(&bytes).expect("the sizes are the same");
        if !header.is_request() {
            let what = format!("what came is no request of the protocol ({header:x?})");
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        let mut payload = vec![0; header.size as usize];
        if !self.fill(&mut payload, &mut descriptors).await? {
            return Ok(None);
        }
        Ok(Some(Message { header, payload, descriptors }))
    }

    /// Waits until there is something to receive.
    pub(super) async fn readable(&self) -> io::Result<()> {
        self.socket.poll(PollFlags::IN).await.map(drop)
    }

    /// False when the connection ends.
    async fn fill(&self, bytes: &mut [u8], descriptors: &mut Vec<OwnedFd>) -> io::Result<bool> {
        let mut done = 0;
        while done < bytes.len() {
            match wire::receive(&self.socket, &mut bytes[done..], descriptors, RecvFlags::DONTWAIT)
            {
                Ok(0) if done == 0 => return Ok(false),
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => done += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.readable().await?,
                Err(Errno::CONNRESET) => return Ok(false),
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(true)
    }

    /// Sends an answer. Front ends wait for theirs, so there is room, or they are no front ends.
    pub(super) fn answer(
        &self,
        request: u32,
        payload: &[u8],
        descriptor: Option<BorrowedFd<'_>>,
    ) -> io::Result<()> {
        let header = Header::answer(request, payload.len());
        wire::send(&self.socket, header, payload, descriptor.as_slice(), SendFlags::DONTWAIT)
    }
}
