//! Bytes with descriptors beside them, for both ends of a connection.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use zerocopy::IntoBytes;

use super::message::{Header, MOST_DESCRIPTORS};

/// Sends a message at once.
pub(super) fn send(
    socket: impl AsFd,
    header: Header,
    payload: &[u8],
    descriptors: &[BorrowedFd<'_>],
    flags: SendFlags,
) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    let pieces = [IoSlice::new(header.as_bytes()), IoSlice::new(payload)];
    let flags = flags | SendFlags::NOSIGNAL;
    let sent = rustix::net::sendmsg(socket, &pieces, &mut control, flags)?;
    let length = size_of::<Header>() + payload.len();
    if sent == length { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// Receives some bytes, and descriptors in addition to those that there are.
pub(super) fn receive(
    socket: impl AsFd,
    bytes: &mut [u8],
    descriptors: &mut Vec<OwnedFd>,
    flags: RecvFlags,
) -> Result<usize, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut pieces = [IoSliceMut::new(bytes)];
    let flags = flags | RecvFlags::CMSG_CLOEXEC;
    let received = rustix::net::recvmsg(socket, &mut pieces, &mut control, flags)?;
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
