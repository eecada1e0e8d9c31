//! The lane for file descriptors: a socket pair beside the shared memory.
//!
//! A frame that carries descriptors names a batch by its sequence number; the batch itself is one
//! packet on the socket, sent before the frame is published. Frames of several channels share the
//! lane, so a batch may come up before the frame that wants it; it waits in a short list.
//!
//! The socket is also how the death of the peer shows: the kernel hangs it up.

use std::collections::VecDeque;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, Shutdown,
};

/// Descriptors in one frame. The kernel takes 253; this covers kick and call of 64 queues.
pub(crate) const MAX_FDS: usize = 128;
/// Batches that wait for their frame. Frames in flight are bounded by the capacities of the
/// channels; what exceeds this belongs to frames that nobody read.
const MAX_WAITING_BATCHES: usize = 64;
/// Packets looked at for one batch: more than a socket buffer holds.
const MAX_PACKETS: usize = 1024;

/// Why descriptors could not be sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum LaneError {
    /// The peer is gone.
    Hangup,
    /// The system refused: too many descriptors in flight, or the socket is full.
    Refused,
}

/// One end of the lane.
pub(crate) struct Lane {
    socket: OwnedFd,
    next_batch: Mutex<u64>,
    waiting: Mutex<VecDeque<(u64, Vec<OwnedFd>)>>,
}

impl Lane {
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Self { socket, next_batch: Mutex::new(0), waiting: Mutex::new(VecDeque::new()) }
    }

    /// Sends one batch and returns its sequence number. Never waits.
    pub(crate) fn send(&self, fds: &[BorrowedFd<'_>]) -> Result<u64, LaneError> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if fds.len() > MAX_FDS || !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(LaneError::Refused);
        }
        let mut next_batch = self.next_batch.lock().unwrap_or_else(PoisonError::into_inner);
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let packet = next_batch.to_le_bytes();
        loop {
            match rustix::net::sendmsg(&self.socket, &[IoSlice::new(&packet)], &mut control, flags)
            {
                Ok(_) => {
                    let batch = *next_batch;
                    *next_batch += 1;
                    return Ok(batch);
                }
                Err(Errno::INTR) => {}
                Err(Errno::PIPE | Errno::CONNRESET) => return Err(LaneError::Hangup),
                Err(_) => return Err(LaneError::Refused),
            }
        }
    }

    /// Takes the batch that a frame named; `None` when the peer did not send it. Never waits.
    pub(crate) fn take(&self, batch: u64) -> Option<Vec<OwnedFd>> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = waiting.iter().position(|(other, _)| *other == batch) {
            return waiting.remove(index).map(|(_, fds)| fds);
        }
        for _ in 0..MAX_PACKETS {
            let (received, fds) = self.receive()?;
            if received == batch {
                return Some(fds);
            }
            if waiting.len() == MAX_WAITING_BATCHES {
                waiting.pop_front();
            }
            waiting.push_back((received, fds));
        }
        None
    }

    fn receive(&self) -> Option<(u64, Vec<OwnedFd>)> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut packet = [0; size_of::<u64>()];
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let received = loop {
            let mut buffers = [IoSliceMut::new(&mut packet)];
            match rustix::net::recvmsg(&self.socket, &mut buffers, &mut control, flags) {
                Err(Errno::INTR) => {}
                other => break other.ok()?,
            }
        };
        let mut fds = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        let cut = received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC);
        (received.bytes == packet.len() && !cut).then(|| (u64::from_le_bytes(packet), fds))
    }

    /// Whether the peer has closed its end, which a dead process does.
    pub(crate) fn is_hung_up(&self) -> bool {
        let mut polled = [PollFd::new(&self.socket, PollFlags::empty())];
        rustix::event::poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok()
            && polled[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
    }

    /// Hangs up, also where copies of the descriptor are still open somewhere.
    pub(crate) fn hang_up(&self) {
        // Fails only when the peer hung up first.
        let _ = rustix::net::shutdown(&self.socket, Shutdown::Both);
    }

    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
