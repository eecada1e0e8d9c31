//! Turning messages into frames and back, with the handles inside them.
//!
//! Serde knows values, not what a descriptor or a reply port is. So those serialize to nothing and
//! leave themselves, in order, in an outbox of the thread; deserializing takes them, in the same
//! order, from an inbox. Encoding only borrows the message and nothing has left this process before
//! [`Draft::commit`]: a message for which there is no room stays whole.

use std::cell::{Cell, RefCell};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

use crate::Message;
use crate::error::Unsendable;
use crate::link::core::Core;
use crate::link::fds::{LaneError, MAX_FDS};
use crate::link::frame::{Header, MAX_HANDLES};
use crate::link::handle::Handle;
use crate::link::slots::{self, SlotId};

/// Buffers above this size are not kept for the next message.
const KEPT_BYTES: usize = 64 << 10;

/// Why a message can not be written, ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    TooLarge,
    Encoding,
    TooManyHandles,
    ForeignHandle,
    Descriptor,
    NoRoom,
    PeerDied,
}

impl From<Refusal> for Unsendable {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::TooLarge => Self::TooLarge,
            Refusal::TooManyHandles => Self::TooManyHandles,
            Refusal::ForeignHandle => Self::ForeignHandle,
            Refusal::Descriptor => Self::Descriptor,
            Refusal::NoRoom => Self::NoRoom,
            Refusal::Encoding | Refusal::PeerDied => Self::Encoding,
        }
    }
}

/// Something inside a message that is more than bytes, on its way out.
pub(crate) enum Outgoing {
    /// A duplicate of the descriptor in the message.
    Fd(OwnedFd),
    Port(Arc<dyn Departing>),
}

/// A port that can leave for the other process.
pub(crate) trait Departing {
    /// Whether it needs a reply slot.
    fn needs_reply_slot(&self) -> bool;

    /// Makes the link lead to this port. `slots` has the reply slot if it needs one.
    fn depart(&self, core: &Arc<Core>, slots: &mut Vec<SlotId>) -> Result<Handle, Refusal>;
}

/// What serializing leaves behind.
#[derive(Default)]
struct Outbox {
    items: Vec<Outgoing>,
    failure: Option<Refusal>,
}

/// What deserializing takes from.
struct Inbox {
    core: Arc<Core>,
    /// In reverse order.
    handles: Vec<u64>,
    fds: std::vec::IntoIter<OwnedFd>,
}

thread_local! {
    static OUTBOX: RefCell<Option<Outbox>> = const { RefCell::new(None) };
    static INBOX: RefCell<Option<Inbox>> = const { RefCell::new(None) };
    static SPARE: Cell<Option<Box<Draft>>> = const { Cell::new(None) };
}

/// An encoded message that has not been written yet.
#[derive(Default)]
pub(crate) struct Draft {
    payload: Vec<u8>,
    outgoing: Vec<Outgoing>,
    slots: Vec<SlotId>,
    /// Filled by [`Draft::commit`].
    handles: Vec<u64>,
    batch: Option<u64>,
}

/// Encodes a message and gives the draft to `use_draft`.
pub(crate) fn with_draft<T: Message, V>(
    message: &T,
    use_draft: impl FnOnce(&mut Draft) -> V,
) -> Result<V, Refusal> {
    let mut draft = SPARE.take().unwrap_or_default();
    draft.encode(message)?;
    let outcome = use_draft(&mut draft);
    draft.clear();
    if draft.payload.capacity() <= KEPT_BYTES {
        SPARE.set(Some(draft));
    }
    Ok(outcome)
}

impl Draft {
    fn encode<T: Message>(&mut self, message: &T) -> Result<(), Refusal> {
        let items = std::mem::take(&mut self.outgoing);
        let before = OUTBOX.replace(Some(Outbox { items, failure: None }));
        let encoded = postcard::to_extend(message, std::mem::take(&mut self.payload));
        let outbox = OUTBOX.replace(before).unwrap_or_default();
        self.outgoing = outbox.items;
        if let Some(refusal) = outbox.failure {
            return Err(refusal);
        }
        self.payload = encoded.map_err(|_| Refusal::Encoding)?;
        if self.outgoing.len() > MAX_HANDLES || self.fds() > MAX_FDS {
            return Err(Refusal::TooManyHandles);
        }
        if u32::try_from(self.payload.len()).is_err() {
            return Err(Refusal::TooLarge);
        }
        Ok(())
    }

    fn clear(&mut self) {
        self.payload.clear();
        self.outgoing.clear();
        self.slots.clear();
        self.handles.clear();
        self.batch = None;
    }

    fn fds(&self) -> usize {
        self.outgoing.iter().filter(|outgoing| matches!(outgoing, Outgoing::Fd(_))).count()
    }

    fn header(&self) -> Header {
        Header {
            payload_bytes: self.payload.len() as u32,
            handles: self.outgoing.len() as u8,
            fds: self.fds() as u8,
        }
    }

    /// Words of the frame.
    pub(crate) fn frame_words(&self) -> usize {
        self.header().frame_words()
    }

    /// Sets the reply slots aside that the reply ports in the message need; false when there are
    /// not enough.
    pub(crate) fn reserve_reply_slots(&mut self, core: &Arc<Core>) -> bool {
        let needs = |outgoing: &Outgoing| match outgoing {
            Outgoing::Port(port) => port.needs_reply_slot(),
            Outgoing::Fd(_) => false,
        };
        let count = self.outgoing.iter().filter(|outgoing| needs(outgoing)).count();
        slots::acquire(core, count, &mut self.slots)
    }

    /// Lets the handles leave. After this the message must be written, or is lost.
    pub(crate) fn commit(&mut self, core: &Arc<Core>) -> Result<(), Refusal> {
        let committed = self.commit_all(core);
        for unused in self.slots.drain(..) {
            slots::abandon(core, unused);
        }
        if committed.is_err() {
            self.retract(core);
        }
        committed
    }

    fn commit_all(&mut self, core: &Arc<Core>) -> Result<(), Refusal> {
        if self.outgoing.is_empty() {
            return Ok(());
        }
        let fds: Vec<BorrowedFd<'_>> = self
            .outgoing
            .iter()
            .filter_map(|outgoing| match outgoing {
                Outgoing::Fd(fd) => Some(fd.as_fd()),
                Outgoing::Port(_) => None,
            })
            .collect();
        if !fds.is_empty() {
            self.batch = Some(core.lane.send(&fds).map_err(|error| match error {
                LaneError::Hangup => Refusal::PeerDied,
                LaneError::Refused => Refusal::Descriptor,
            })?);
        }
        for outgoing in &self.outgoing {
            let handle = match outgoing {
                Outgoing::Fd(_) => Handle::Fd,
                Outgoing::Port(port) => port.depart(core, &mut self.slots)?,
            };
            self.handles.push(handle.to_word());
        }
        Ok(())
    }

    /// Writes the words of the frame in order.
    pub(crate) fn write(&self, mut put: impl FnMut(usize, u64)) {
        put(0, self.header().to_word());
        let mut index = 1;
        for word in self.batch.iter().chain(&self.handles) {
            put(index, *word);
            index += 1;
        }
        let (whole, rest) = self.payload.as_chunks::<8>();
        for chunk in whole {
            put(index, u64::from_le_bytes(*chunk));
            index += 1;
        }
        if !rest.is_empty() {
            let mut last = [0; 8];
            last[..rest.len()].copy_from_slice(rest);
            put(index, u64::from_le_bytes(last));
        }
    }

    /// Nobody will read the frame, so nobody will answer.
    pub(crate) fn retract(&self, core: &Core) {
        for word in &self.handles {
            if let Ok(Handle::Reply(slot)) = Handle::from_word(*word) {
                slots::retract(core, slot);
            }
        }
    }
}

/// Decodes a message whose handles came along. Nothing may be left over.
pub(crate) fn decode<T: Message>(
    core: &Arc<Core>,
    payload: &[u8],
    handles: &[u64],
    fds: Vec<OwnedFd>,
) -> Result<T, &'static str> {
    if handles.is_empty() {
        if !fds.is_empty() {
            return Err("a frame has descriptors that no handle stands for");
        }
        return decode_payload(payload);
    }
    let handles = handles.iter().rev().copied().collect();
    let inbox = Inbox { core: Arc::clone(core), handles, fds: fds.into_iter() };
    let before = INBOX.replace(Some(inbox));
    let decoded = decode_payload(payload);
    let inbox = INBOX.replace(before);
    if inbox.is_some_and(|inbox| !inbox.handles.is_empty() || inbox.fds.len() != 0) {
        return Err("a frame has more handles than its message");
    }
    decoded
}

fn decode_payload<T: Message>(payload: &[u8]) -> Result<T, &'static str> {
    match postcard::take_from_bytes(payload) {
        Ok((message, [])) => Ok(message),
        Ok(_) => Err("a frame is longer than its message"),
        Err(_) => Err("a frame does not decode as a message of its channel"),
    }
}

/// Serializes a handle: nothing in the payload, an entry in the outbox.
pub(crate) fn depart<S: Serializer>(
    serializer: S,
    make: impl FnOnce() -> Result<Outgoing, Refusal>,
) -> Result<S::Ok, S::Error> {
    let left = OUTBOX.with_borrow_mut(|outbox| {
        let outbox = outbox.as_mut()?;
        match make() {
            Ok(outgoing) => outbox.items.push(outgoing),
            Err(refusal) => outbox.failure = Some(refusal),
        }
        Some(())
    });
    match left {
        Some(()) => ().serialize(serializer),
        None => Err(ser::Error::custom("handles cross only inside messages on a link")),
    }
}

/// Deserializes a handle: nothing from the payload, the next entry of the inbox.
pub(crate) fn arrive<'de, D: Deserializer<'de>, V>(
    deserializer: D,
    wrap: impl FnOnce(&Arc<Core>, Handle, Option<OwnedFd>) -> Result<V, &'static str>,
) -> Result<V, D::Error> {
    <()>::deserialize(deserializer)?;
    let arrived = INBOX.with_borrow_mut(|inbox| {
        let inbox = inbox.as_mut().ok_or("handles cross only inside messages on a link")?;
        let word = inbox.handles.pop().ok_or("a message has more handles than its frame")?;
        let handle = Handle::from_word(word)?;
        let fd = if handle == Handle::Fd { inbox.fds.next() } else { None };
        wrap(&inbox.core, handle, fd)
    });
    arrived.map_err(de::Error::custom)
}
