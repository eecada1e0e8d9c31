//! One message as it stands in a ring or a reply slot.
//!
//! ```text
//!   header   payload bytes (32) │ handles (8) │ descriptors (8)
//!   batch    sequence number of the descriptors on the lane     only with descriptors
//!   handles  a word each, in the order in which they occur in the message
//!   payload  postcard, padded to whole words
//! ```
//!
//! Handles are what is more than bytes: descriptors, reply ports and ends of channels. The payload
//! holds nothing for them, their order is enough.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::core::Core;
use super::fds::{Lane, MAX_FDS};
use super::handle::{Handle, RemotePort};
use crate::Message;
use crate::codec;

/// Handles in one message.
pub(crate) const MAX_HANDLES: usize = 200;

/// The first word of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) payload_bytes: u32,
    pub(crate) handles: u8,
    pub(crate) fds: u8,
}

impl Header {
    /// Reads a header; any word is one, and its consequences are checked by who uses it.
    pub(crate) fn from_word(word: u64) -> Self {
        Self { payload_bytes: word as u32, handles: (word >> 32) as u8, fds: (word >> 40) as u8 }
    }

    pub(crate) fn to_word(self) -> u64 {
        u64::from(self.payload_bytes) | u64::from(self.handles) << 32 | u64::from(self.fds) << 40
    }

    fn batch_words(self) -> usize {
        usize::from(self.fds > 0)
    }

    /// Words of the whole frame, this one included.
    pub(crate) fn frame_words(self) -> usize {
        let payload = (self.payload_bytes as usize).div_ceil(8);
        1 + self.batch_words() + usize::from(self.handles) + payload
    }

    /// Takes the descriptors of this frame from the lane. `rest` is the frame without the header.
    pub(crate) fn take_fds(self, rest: &[u64], lane: &Lane) -> Result<Vec<OwnedFd>, &'static str> {
        if self.fds == 0 {
            return Ok(Vec::new());
        }
        let count = usize::from(self.fds);
        if count > MAX_FDS {
            return Err("a frame announces more descriptors than can be sent");
        }
        let batch = *rest.first().ok_or("a frame ends before the number of its batch")?;
        let fds = lane.take(batch).ok_or("the descriptors of a frame were not sent")?;
        if fds.len() == count {
            Ok(fds)
        } else {
            Err("a frame has not as many descriptors as it says")
        }
    }
}

/// A frame that was copied out of shared memory.
pub(crate) struct Frame<'a> {
    core: &'a Arc<Core>,
    payload: &'a [u8],
    handles: &'a [u64],
    fds: Vec<OwnedFd>,
}

impl<'a> Frame<'a> {
    /// `rest` holds exactly the words that follow the header.
    pub(crate) fn new(
        core: &'a Arc<Core>,
        header: Header,
        rest: &'a [u64],
        fds: Vec<OwnedFd>,
    ) -> Self {
        let (handles, payload) = rest[header.batch_words()..].split_at(usize::from(header.handles));
        let payload = &bytes_of(payload)[..header.payload_bytes as usize];
        Self { core, payload, handles, fds }
    }

    /// Decodes the message.
    pub(crate) fn decode<T: Message>(self) -> Result<T, &'static str> {
        codec::decode(self.core, self.payload, self.handles, self.fds)
    }

    /// Drops the message undecoded; its callers are told.
    pub(crate) fn refuse(self) {
        for word in self.handles {
            if let Ok(Handle::Reply(slot)) = Handle::from_word(*word) {
                drop(RemotePort::new(self.core, slot));
            }
        }
    }
}

fn bytes_of(words: &[u64]) -> &[u8] {
    const { assert!(cfg!(target_endian = "little"), "words hold bytes in order") };
    // SAFETY: any initialized words are as many times 8 initialized bytes, and bytes need no
    // alignment.
    unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), size_of_val(words)) }
}
