//! Handles as words: what stands in a frame for a descriptor, a reply port or an end of a channel.

use std::sync::Arc;

use super::core::{Core, LinkDeath};
use super::fds::MAX_FDS;
use super::frame::MAX_HANDLES;
use super::layout::{LINE_WORDS, MAX_RING_BYTES, MIN_RING_BYTES, RING_HEADER_WORDS, Span};
use super::slots::{self, SlotId};
use crate::Message;
use crate::codec::{self, Refusal};

const TAG_BITS: u32 = 3;
const TAG_FD: u64 = 0;
const TAG_REPLY: u64 = 1;
const TAG_SENDER: u64 = 2;
const TAG_RECEIVER: u64 = 3;

/// One handle of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handle {
    /// The next descriptor of the batch.
    Fd,
    /// The peer waits for an answer in this slot of its own.
    Reply(SlotId),
    /// The message carries a sender: the peer consumes from this ring.
    Sender(RingId),
    /// The message carries a receiver: the peer produces into this ring.
    Receiver(RingId),
}

/// A ring in the arena of the end that sends the handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RingId {
    pub(crate) span: Span,
    pub(crate) capacity: usize,
}

impl RingId {
    fn to_bits(self) -> u64 {
        let size = (self.span.words - RING_HEADER_WORDS).trailing_zeros();
        let start = (self.span.start / LINE_WORDS) as u64;
        u64::from(size) << TAG_BITS | (self.capacity as u64) << 8 | start << 32
    }

    fn from_bits(word: u64) -> Result<Self, &'static str> {
        let data_words = 1_usize << (word >> TAG_BITS & 31);
        let capacity = (word >> 8 & 0xff_ffff) as usize;
        let start = (word >> 32) as usize * LINE_WORDS;
        if !(MIN_RING_BYTES / 8..=MAX_RING_BYTES / 8).contains(&data_words) || capacity == 0 {
            return Err("a ring of an impossible size");
        }
        Ok(Self { span: Span { start, words: RING_HEADER_WORDS + data_words }, capacity })
    }

    /// The ring, if it lies in the arena of the peer.
    pub(crate) fn check(self, core: &Core) -> Result<Self, &'static str> {
        if core.layout.arena(core.side.other()).contains(self.span) {
            Ok(self)
        } else {
            Err("a ring outside of the arena of its sender")
        }
    }
}

impl Handle {
    pub(crate) fn to_word(self) -> u64 {
        match self {
            Self::Fd => TAG_FD,
            Self::Reply(slot) => {
                TAG_REPLY | u64::from(slot.index) << 8 | u64::from(slot.generation) << 32
            }
            Self::Sender(ring) => TAG_SENDER | ring.to_bits(),
            Self::Receiver(ring) => TAG_RECEIVER | ring.to_bits(),
        }
    }

    pub(crate) fn from_word(word: u64) -> Result<Self, &'static str> {
        match word & ((1 << TAG_BITS) - 1) {
            TAG_FD => Ok(Self::Fd),
            TAG_REPLY => {
                let slot = SlotId { index: (word >> 8) as u16, generation: (word >> 32) as u32 };
                Ok(Self::Reply(slot))
            }
            TAG_SENDER => RingId::from_bits(word).map(Self::Sender),
            TAG_RECEIVER => RingId::from_bits(word).map(Self::Receiver),
            _ => Err("a handle of an unknown kind"),
        }
    }
}

/// The port for an answer that goes back over the link.
pub(crate) struct RemotePort {
    core: Arc<Core>,
    slot: SlotId,
}

impl RemotePort {
    /// A slot that does not exist makes a port to nobody.
    pub(crate) fn new(core: &Arc<Core>, slot: SlotId) -> Self {
        Self { core: Arc::clone(core), slot }
    }

    /// Writes the answer into the slot, if the caller still waits for it.
    pub(crate) fn answer<R: Message>(self, answer: &R) {
        let written =
            codec::with_draft(answer, |draft| slots::answer(&self.core, self.slot, draft));
        if let Err(refusal) | Ok(Err(refusal)) = written
            && refusal != Refusal::PeerDied
        {
            log::error!(
                "an answer of type {} cannot cross the link: {refusal:?}",
                std::any::type_name::<R>()
            );
        }
        // Dropping the port refuses what is not answered.
    }
}

impl Drop for RemotePort {
    fn drop(&mut self) {
        slots::refuse(&self.core, self.slot);
    }
}

/// Ends the link when a word that the peer owns says what cannot be.
pub(crate) fn violated(core: &Core, reason: &'static str) {
    core.end(LinkDeath::Protocol(reason));
}

const _: () = assert!(MAX_HANDLES <= u8::MAX as usize && MAX_FDS <= MAX_HANDLES);
