//! The slab of operations in flight.
//!
//! ```text
//!              submit                       completion
//!   Vacant ───────────▶ Waiting(waker) ─────────────────▶ Done(result)
//!      ▲                   │ future dropped                  │ future polled or dropped
//!      │                   ▼                                 │
//!      │               Abandoned(buffers) ── completion ──▶──┤
//!      └─────────────────────────────────────────────────────┘
//! ```
//!
//! A slot is free again only after the last completion of its operation, so the kernel never
//! reports into a slot of somebody else; the generation in the token makes sure of it.

use std::any::Any;
use std::os::fd::{FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::rc::Rc;

use super::set::SetHeader;
use crate::fd::FdInner;
use crate::task::group::Abandoned;
use crate::task::waker::LocalWaker;

/// Names an operation in flight: the index of its slot and the slot's generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) index: u32,
    generation: u32,
}

impl Token {
    pub(crate) fn to_bits(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    pub(crate) fn from_bits(bits: u64) -> Self {
        Token { index: bits as u32, generation: (bits >> 32) as u32 }
    }
}

/// A completion as a driver reports it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Completion {
    pub(crate) token: Token,
    /// Zero or more: the result; less: a negated errno.
    pub(crate) result: i32,
    /// More completions of this operation follow.
    pub(crate) more: bool,
    /// What a receive left in the socket.
    pub(crate) left: Left,
}

impl Completion {
    /// The one completion of an operation.
    pub(crate) fn only(token: Token, result: i32) -> Self {
        Completion { token, result, more: false, left: Left::Perhaps }
    }
}

/// What a receive left in the socket, as far as the driver was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// It may be that there is more.
    Perhaps,
    /// Nothing.
    Nothing,
}

/// What a result means beside its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Yield {
    Number,
    /// A descriptor that somebody has to own.
    Descriptor,
    /// Data from a socket.
    Received,
}

/// State of a multishot operation.
#[derive(Default)]
pub(crate) struct StreamState {
    /// Poll flags that have arrived and were not taken.
    pub(crate) ready: u32,
    /// A negated errno that ended the operation, not yet taken.
    pub(crate) error: i32,
    /// The operation is in flight.
    pub(crate) armed: bool,
    pub(crate) waker: Option<LocalWaker>,
}

pub(crate) enum State {
    Vacant {
        next: Option<u32>,
    },
    /// A future waits.
    Waiting {
        waker: Option<LocalWaker>,
    },
    /// A future will find the result.
    Done {
        result: i32,
    },
    /// The future is gone; what it left is dropped on completion.
    Abandoned {
        storage: Option<Box<dyn Any>>,
        group: Option<Abandoned>,
    },
    Stream(StreamState),
    /// Belongs to an `OpSet`, which is alive until its last completion.
    Set {
        set: NonNull<SetHeader>,
        index: u32,
    },
}

/// Takes ownership of a descriptor that is the result of an operation.
///
/// # Safety
///
/// `result` is that, and nobody else took it.
pub(crate) unsafe fn descriptor(result: i32) -> OwnedFd {
    // SAFETY: the kernel opened it for the operation; by the contract it is ours alone.
    unsafe { OwnedFd::from_raw_fd(result) }
}

pub(crate) struct Slot {
    generation: u32,
    yields: Yield,
    /// Keeps the file open until the operation is over.
    file: Option<Rc<FdInner>>,
    pub(crate) state: State,
}

impl Slot {
    /// Whether the operation's result is a descriptor.
    pub(crate) fn makes_descriptor(&self) -> bool {
        self.yields == Yield::Descriptor
    }
}

/// What has to happen after a completion, without the slab being borrowed.
pub(crate) enum After {
    Nothing,
    Wake {
        waker: LocalWaker,
        file: Option<Rc<FdInner>>,
    },
    Drop {
        file: Option<Rc<FdInner>>,
        result: Option<OwnedFd>,
        storage: Option<Box<dyn Any>>,
        group: Option<Abandoned>,
    },
    Set {
        set: NonNull<SetHeader>,
        index: u32,
        file: Option<Rc<FdInner>>,
    },
}

#[derive(Default)]
pub(crate) struct Slots {
    entries: Vec<Slot>,
    free: Option<u32>,
    /// Operations that have a completion to come.
    in_flight: usize,
}

impl Slots {
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Slots { entries: Vec::with_capacity(capacity), free: None, in_flight: 0 }
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// A slot for an operation that is about to be submitted.
    pub(crate) fn insert(&mut self, file: Rc<FdInner>, yields: Yield, state: State) -> Token {
        self.in_flight += 1;
        if let Some(index) = self.free {
            let slot = &mut self.entries[index as usize];
            let State::Vacant { next } = slot.state else {
                unreachable!("the free list of operations holds a slot in use");
            };
            self.free = next;
            slot.yields = yields;
            slot.file = Some(file);
            slot.state = state;
            return Token { index, generation: slot.generation };
        }
        let index = self.entries.len() as u32;
        // The highest indices mark tokens that are not operations.
        assert!(index < u32::MAX - 1, "too many operations in flight");
        self.entries.push(Slot { generation: 0, yields, file: Some(file), state });
        Token { index, generation: 0 }
    }

    /// The slot of a token, if the token is current.
    pub(crate) fn get(&mut self, token: Token) -> Option<&mut Slot> {
        self.entries
            .get_mut(token.index as usize)
            .filter(|slot| slot.generation == token.generation)
    }

    /// Submits a stream again whose operation has ended.
    pub(crate) fn rearm(&mut self, token: Token, file: Rc<FdInner>) {
        if let Some(slot) = self.get(token)
            && let State::Stream(stream) = &mut slot.state
        {
            stream.armed = true;
            slot.file = Some(file);
            self.in_flight += 1;
        }
    }

    pub(crate) fn free(&mut self, token: Token) {
        let next = self.free;
        if let Some(slot) = self.get(token) {
            slot.generation = slot.generation.wrapping_add(1);
            slot.state = State::Vacant { next };
            self.free = Some(token.index);
        }
    }

    pub(crate) fn complete(&mut self, completion: Completion) -> After {
        let Completion { token, result, more, left } = completion;
        let Some(slot) = self.get(token) else {
            debug_assert!(false, "a completion for no operation");
            return After::Nothing;
        };
        let file = if more { None } else { slot.file.take() };
        let descriptor = slot.makes_descriptor();
        if slot.yields == Yield::Received
            && let Some(file) = &file
        {
            file.note_received(left);
        }
        if !more {
            self.in_flight -= 1;
        }
        let slot = &mut self.entries[token.index as usize];
        match &mut slot.state {
            State::Vacant { .. } | State::Done { .. } => {
                debug_assert!(false, "a second completion of one operation");
                After::Nothing
            }
            State::Waiting { waker } => {
                let waker = waker.take();
                slot.state = State::Done { result };
                match waker {
                    Some(waker) => After::Wake { waker, file },
                    None => After::Drop { file, result: None, storage: None, group: None },
                }
            }
            State::Abandoned { storage, group } => {
                if more {
                    return After::Nothing;
                }
                let (storage, group) = (storage.take(), group.take());
                self.free(token);
                let result = (descriptor && result >= 0).then(|| {
                    // SAFETY: the kernel made it for the operation, whose future is gone.
                    unsafe { self::descriptor(result) }
                });
                After::Drop { file, result, storage, group }
            }
            State::Stream(stream) => {
                stream.armed = more;
                if result >= 0 {
                    stream.ready |= result as u32;
                } else {
                    stream.error = result;
                }
                match stream.waker.take() {
                    Some(waker) => After::Wake { waker, file },
                    None => After::Drop { file, result: None, storage: None, group: None },
                }
            }
            State::Set { set, index } => {
                let (set, index) = (*set, *index);
                self.free(token);
                After::Set { set, index, file }
            }
        }
    }

    /// Every operation in flight.
    pub(crate) fn tokens_in_flight(&self) -> Vec<(Token, Rc<FdInner>)> {
        self.entries
            .iter()
            .enumerate()
            .filter_map(|(index, slot)| {
                let file = slot.file.clone()?;
                Some((Token { index: index as u32, generation: slot.generation }, file))
            })
            .collect()
    }

    /// The result of an operation that is done. Frees the slot.
    pub(crate) fn take_result(&mut self, token: Token) -> Option<i32> {
        let slot = self.get(token)?;
        let State::Done { result } = slot.state else {
            return None;
        };
        self.free(token);
        Some(result)
    }
}
