//! Files whose operations wait until the owner of the world answers them.

use super::perform::bytes;
use super::{Sim, World};
use crate::ops::Operation;
use crate::ops::slots::Token;

/// An operation that waits for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Names it in [`Sim::answer`].
    pub number: u64,
    /// What is to be done.
    pub what: AskedFor,
    /// Where in the file.
    pub offset: u64,
    /// How many bytes.
    pub length: u64,
}

/// What an operation is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AskedFor {
    /// Read.
    Read,
    /// Write.
    Write,
    /// Make durable what was written.
    Sync,
    /// Free or zero a range.
    Range,
    /// Something that is not for a file of this kind.
    Other,
}

/// Such a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScriptId(pub(super) u32);

/// What is known of such a file.
#[derive(Default)]
pub(super) struct Script {
    /// What nobody has heard of yet.
    new: Vec<Asked>,
    waiting: Vec<(u64, Token)>,
    asked: u64,
}

impl Script {
    /// An operation was submitted.
    pub(super) fn ask(&mut self, token: Token, operation: &Operation) {
        let (what, offset, length) = match *operation {
            Operation::Read { offset, .. } | Operation::ReadVectored { offset, .. } => {
                (AskedFor::Read, offset, bytes(operation))
            }
            Operation::Write { offset, .. } | Operation::WriteVectored { offset, .. } => {
                (AskedFor::Write, offset, bytes(operation))
            }
            Operation::Fsync | Operation::Fdatasync => (AskedFor::Sync, 0, 0),
            Operation::Fallocate { offset, length, .. } => (AskedFor::Range, offset, length),
            _ => (AskedFor::Other, 0, 0),
        };
        let number = self.asked;
        self.asked += 1;
        self.new.push(Asked { number, what, offset, length });
        self.waiting.push((number, token));
    }

    fn take(&mut self, number: u64) -> Option<Token> {
        let place = self.waiting.iter().position(|(waiting, _)| *waiting == number)?;
        Some(self.waiting.swap_remove(place).1)
    }
}

impl Sim {
    /// What an actor has asked of such a file since the last call, in its order.
    pub fn asked(&self, script: ScriptId) -> Vec<Asked> {
        let mut world = self.world.borrow_mut();
        world.objects.with_script(script.0, |script| std::mem::take(&mut script.new))
    }

    /// Answers an operation with a number of bytes or a negated errno. False if it does not wait: it was
    /// answered, or cancelled.
    pub fn answer(&self, script: ScriptId, number: u64, result: i32) -> bool {
        let mut world = self.world.borrow_mut();
        let Some(token) = world.objects.with_script(script.0, |script| script.take(number)) else {
            return false;
        };
        world.answer(token, result)
    }
}

impl World {
    fn answer(&mut self, token: Token, result: i32) -> bool {
        let Some(place) = self.pending.iter().position(|pending| pending.token == token) else {
            return false;
        };
        let pending = self.pending.swap_remove(place);
        self.finish(&pending, result);
        true
    }
}
