//! The socket: messages with descriptors beside them.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use executor::{Fd, PollFlags};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use zerocopy::{FromBytes, IntoBytes};

use super::message::{Header, MOST_DESCRIPTORS, Message};

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
            match self.receive_some(&mut bytes[done..], descriptors) {
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

    fn receive_some(
        &self,
        bytes: &mut [u8],
        descriptors: &mut Vec<OwnedFd>,
    ) -> Result<usize, Errno> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let mut pieces = [IoSliceMut::new(bytes)];
        let received = rustix::net::recvmsg(&self.socket, &mut pieces, &mut control, flags)?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                descriptors.extend(rights);
            }
        }
        let lost = received.flags.contains(ReturnFlags::CTRUNC);
        if lost || descriptors.len() > MOST_DESCRIPTORS {
            return Err(Errno::MSGSIZE);
        }
        Ok(received.bytes)
    }

    /// Sends an answer. Front ends wait for theirs, so there is room, or they are no front ends.
    pub(super) fn answer(
        &self,
        request: u32,
        payload: &[u8],
        descriptor: Option<BorrowedFd<'_>>,
    ) -> io::Result<()> {
        let header = Header::answer(request, payload.len());
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let pieces = [IoSlice::new(header.as_bytes()), IoSlice::new(payload)];
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        // Lives as long as `control` needs it.
        let one;
        if let Some(descriptor) = descriptor {
            one = [descriptor];
            control.push(SendAncillaryMessage::ScmRights(&one));
        }
        let sent = rustix::net::sendmsg(&self.socket, &pieces, &mut control, flags)?;
        let length = size_of::<Header>() + payload.len();
        if sent == length { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }
}
