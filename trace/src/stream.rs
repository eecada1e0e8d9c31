//! Records one behind the other, as rings and files hold them.
//!
//! ```text
//!   | word                        | more                                     |
//!   | 0 form | 28 length          | the record, padded to whole words         |  any record
//!   | 1      | 28 nanoseconds     |                                           |  that much later
//!   | 2      | 6 slot, 22 length  | a Taken, in full: remembered in the slot  |
//!   | 3      | 6 slot, 6 queue, 16 head | sector                              |  a Taken like that
//!   | 4      | 1 read, 6 queue, 16 head | bytes                               |  a Given as hoped for
//!   | 5      | 28 nanoseconds     | sector                                    |  that much later, a Taken like the last
//!   | 6      | 28 nanoseconds     |                                           |  that much later, all Given as hoped for
//!   | 7      | 8 head, 20 number  |                                           |  a Taken like the last, but for its head
//!   | all ones                    | nothing up to the end of the block        |
//! ```
//!
//! Most of what is written down are requests of disks like those before, but for the place: they take four
//! words; three, with their times, where one follows the other and both have the same name. Many at a time take one
//! word each and two for all of them, where they lie at whole multiples of their length, near enough to the
//! beginning of the disk, and are answered in order: *all Given* are those of the block that were taken since others
//! were given back. Whoever begins to read at a block finds a time there before anything else that happened at it,
//! what slots hold before they are referred to, and a request before it is called the last.

use thiserror::Error;

use crate::block::BLOCK_BYTES;
use crate::record::Record;
use crate::short::{self, Request, Slots};

/// What each form begins with.
pub(crate) const WORD_BYTES: usize = 4;
/// Instead of a form: nothing more up to the end of the block.
pub(crate) const PAD: u32 = u32::MAX;
/// Below the form.
const FORM_SHIFT: u32 = 28;
const SHAPE_LENGTH_BITS: u32 = 22;

/// How a record is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// In full, with its length.
    Long(usize),
    /// The time, after the last one.
    Later(u32),
    /// In full, with its length, and remembered.
    Shape(usize, usize),
    /// A request like one that was remembered.
    Taken(u32),
    /// A request that did what it was to do.
    Given(u32),
    /// So much later, a request like the last one, of the same name.
    TakenLater(u32),
    /// So much later, all requests of this block that were taken since the last were given back did what they were
    /// to do.
    AllGiven(u32),
    /// A request like the last one with another head, at this multiple of its length.
    TakenNear(u16, u32),
}

/// Heads of [`Form::TakenNear`] are below this.
pub(crate) const NEAR_HEADS: u16 = 1 << 8;
/// Numbers of [`Form::TakenNear`] are below this.
pub(crate) const NEAR_NUMBERS: u32 = 1 << NEAR_SHIFT;
const NEAR_SHIFT: u32 = 20;

impl Form {
    #[inline]
    pub(crate) fn word(self) -> u32 {
        let (form, rest) = match self {
            Self::Long(length) => (0, length as u32),
            Self::Later(delta) => (1, delta),
            Self::Shape(slot, length) => (2, (slot as u32) << SHAPE_LENGTH_BITS | length as u32),
            Self::Taken(rest) => (3, rest),
            Self::Given(rest) => (4, rest),
            Self::TakenLater(delta) => (5, delta),
            Self::AllGiven(delta) => (6, delta),
            Self::TakenNear(head, number) => (7, u32::from(head) << NEAR_SHIFT | number),
        };
        form << FORM_SHIFT | rest
    }

    fn of(word: u32) -> Option<Self> {
        let rest = word & ((1 << FORM_SHIFT) - 1);
        Some(match word >> FORM_SHIFT {
            0 => Self::Long(rest as usize),
            1 => Self::Later(rest),
            2 => {
                let length = rest & ((1 << SHAPE_LENGTH_BITS) - 1);
                Self::Shape((rest >> SHAPE_LENGTH_BITS) as usize, length as usize)
            }
            3 => Self::Taken(rest),
            4 => Self::Given(rest),
            5 => Self::TakenLater(rest),
            6 => Self::AllGiven(rest),
            7 => Self::TakenNear((rest >> NEAR_SHIFT) as u16, rest & (NEAR_NUMBERS - 1)),
            _ => return None,
        })
    }
}

/// What a record of so many bytes takes with its word.
pub(crate) fn padded(length: usize) -> usize {
    (WORD_BYTES + length).next_multiple_of(WORD_BYTES)
}

/// Bytes are no records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("there is no record at byte {position} of what the actor wrote")]
pub struct Malformed {
    /// Where.
    pub position: u64,
}

/// What has to be known of what came before.
#[derive(Debug, Clone, Default)]
pub(crate) struct Decoder {
    time: u64,
    slots: Slots,
    /// What names the request that was taken last.
    last: Option<u32>,
    /// What names those that were taken in this block since others were given back.
    recent: Vec<u32>,
    /// Records of the next form that were told: what follows is the rest of it.
    told: usize,
}

impl Decoder {
    /// The first record of these bytes, which are at this position of all that was written, and how many bytes
    /// it takes; nothing, if there is none.
    pub(crate) fn next(
        &mut self,
        bytes: &[u8],
        position: u64,
    ) -> Option<Result<(Record<'static>, u64), Malformed>> {
        let mut at = 0;
        loop {
            let rest = bytes.get(at as usize..).unwrap_or_default();
            if rest.is_empty() {
                return None;
            }
            let here = position.wrapping_add(at);
            let Some((word, rest)) = word(rest) else {
                return Some(Err(Malformed { position: here }));
            };
            if word == PAD {
                at += BLOCK_BYTES - here % BLOCK_BYTES;
                continue;
            }
            if here.is_multiple_of(BLOCK_BYTES) && self.told == 0 {
                self.recent.clear();
            }
            let form = Form::of(word);
            if let Some(Form::TakenLater(delta) | Form::AllGiven(delta)) = form {
                self.told += 1;
                if self.told == 1 && delta > 0 {
                    return Some(Ok((self.later(delta), at)));
                }
                // Where it is not later there is no time to tell.
                self.told = self.told.max(2);
                if matches!(form, Some(Form::AllGiven(_))) && self.told <= self.recent.len() {
                    let given = self.slots.given(self.recent[self.told - 2]);
                    return Some(
                        given.map(|given| (given, at)).ok_or(Malformed { position: here }),
                    );
                }
            }
            self.told = 0;
            let decoded = form.and_then(|form| self.decode(form, rest));
            return Some(match decoded {
                Some((record, length)) => Ok((record, at + padded(length) as u64)),
                None => Err(Malformed { position: here }),
            });
        }
    }

    /// The record and the bytes that it takes behind its word.
    fn decode(&mut self, form: Form, rest: &[u8]) -> Option<(Record<'static>, usize)> {
        let long =
            |length: usize| postcard::from_bytes::<Record<'static>>(rest.get(..length)?).ok();
        Some(match form {
            Form::Long(length) => {
                let record = long(length)?;
                match record {
                    Record::Time(time) => self.time = time,
                    Record::Given(_) => self.recent.clear(),
                    _ => {}
                }
                (record, length)
            }
            Form::Later(delta) => (self.later(delta), 0),
            Form::Shape(slot, length) => {
                let record = long(length)?;
                let request = Request::of(&record)?;
                self.slots.remember(slot, request.shape())?;
                self.took(request.words(slot).0);
                (record, length)
            }
            Form::Taken(names) => {
                self.took(names);
                (self.slots.taken(names, word(rest)?.0)?, WORD_BYTES)
            }
            Form::TakenLater(_) => {
                let names = self.last?;
                self.took(names);
                (self.slots.taken(names, word(rest)?.0)?, WORD_BYTES)
            }
            Form::TakenNear(head, number) => {
                let names = short::with_head(self.last?, head);
                self.took(names);
                (self.slots.taken_near(names, number)?, 0)
            }
            Form::Given(names) => {
                self.recent.clear();
                (short::given(names, word(rest)?.0), WORD_BYTES)
            }
            Form::AllGiven(_) => {
                let last = self.recent.last().copied()?;
                self.recent.clear();
                (self.slots.given(last)?, 0)
            }
        })
    }

    /// A request was taken that has these names.
    fn took(&mut self, names: u32) {
        self.last = Some(names);
        self.recent.push(names);
    }

    fn later(&mut self, delta: u32) -> Record<'static> {
        self.time = self.time.wrapping_add(delta.into());
        Record::Time(self.time)
    }
}

fn word(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (word, rest) = bytes.split_first_chunk::<WORD_BYTES>()?;
    Some((u32::from_le_bytes(*word), rest))
}

/// Reads records, up to the first that is none.
#[derive(Debug, Clone)]
pub struct Records<'a> {
    bytes: &'a [u8],
    position: u64,
    decoder: Decoder,
}

impl<'a> Records<'a> {
    /// Bytes that begin with a record, at this position of all that was written: the beginning, or a block's.
    pub fn new(bytes: &'a [u8], position: u64) -> Self {
        Self { bytes, position, decoder: Decoder::default() }
    }
}

impl Iterator for Records<'_> {
    type Item = Result<Record<'static>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.decoder.next(self.bytes, self.position)? {
            Ok((record, used)) => {
                let count = used.min(self.bytes.len() as u64);
                self.bytes = &self.bytes[count as usize..];
                self.position = self.position.wrapping_add(count);
                Some(Ok(record))
            }
            Err(malformed) => {
                self.bytes = &[];
                Some(Err(malformed))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_records_up_to_some_point(
            bytes in prop::collection::vec(prop_oneof![Just(0_u8), 0_u8..80, any::<u8>()], 0..300),
            position in any::<u32>(),
        ) {
            let found: Vec<_> = Records::new(&bytes, position.into()).collect();
            prop_assert!(found.iter().rev().skip(1).all(Result::is_ok));
        }
    }
}
