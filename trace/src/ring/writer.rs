//! The end of a ring that writes.

use super::pages::Pages;
use crate::block::{BLOCK_BYTES, RECORD_BYTES};
use crate::record::{Began, Given, Operation, Record};
use crate::short::{KIND_BYTES, Request, SLOTS, Shape, given_words, place, queue, unit, with_head};
use crate::stream::{Form, NEAR_HEADS, NEAR_NUMBERS, PAD, WORD_BYTES, padded};
use crate::sync::{Ordering, fence};

/// Two words.
const SHORT_BYTES: usize = 2 * WORD_BYTES;
/// The most that a time in full takes: a word, what it is, ten bytes.
const TIME_BYTES: usize = 16;
/// Of a request that moves nothing: no buffer is given back by these words, with whatever head.
const NO_HOPE: u64 = u64::MAX;
/// Of a buffer that no two words say: no request hopes for it.
const NO_WORD: u64 = NO_HOPE >> 1;
/// Requests that can be given back by one word.
const MOST_RECENT: usize = 32;
/// Times that differ by more are written in full.
const MOST_LATER: u64 = 1 << 28;

/// Writes records.
#[derive(Debug)]
pub struct Writer {
    pages: Pages,
    written: u64,
    /// Where in memory that is.
    place: usize,
    /// What the last [`Record::Time`] said.
    time: u64,
    /// What the next one is to say.
    now: u64,
    /// What was remembered in this block: its number, and what.
    slots: Box<[Option<(u64, Shape)>]>,
    last: Last,
    /// What is said when those do what they are to do that were taken in this block since others were given back.
    recent: [u64; MOST_RECENT],
    /// How many those are: more than can be given back by one word, if it is more than there is room for.
    count: usize,
    scratch: Box<[u8]>,
}

/// The request that was taken last, ready to be compared with the next.
#[derive(Debug)]
struct Last {
    /// Where the block ends that it was written to. Zero if it had no short form.
    end: u64,
    /// What its short form says, but the sector.
    names: u32,
    kind: u64,
    began: Option<(Operation, u64)>,
    /// What is said when it does what it is to do, or [`NO_HOPE`].
    hope: u64,
    near: Near,
}

/// Which requests like the last one have the shortest form.
#[derive(Debug)]
struct Near {
    /// Heads below this one.
    heads: u16,
    /// Sectors without any of these bits.
    excluded: u64,
    /// The number of a sector is what is left of it then.
    shift: u32,
}

impl Last {
    const NOBODY: Self =
        Self { end: 0, names: 0, kind: 0, began: None, hope: NO_HOPE, near: Near::NOBODY };

    #[inline]
    fn queue(&self) -> u16 {
        queue(self.names)
    }
}

impl Near {
    const NOBODY: Self = Self { heads: 0, excluded: 0, shift: 0 };

    fn of(began: Option<(Operation, u64)>) -> Self {
        // A division would take as long as all the rest.
        let Some(unit) = unit(began).filter(|unit| unit.is_power_of_two()) else {
            return Self::NOBODY;
        };
        let shift = unit.trailing_zeros();
        let numbers = u64::from(NEAR_NUMBERS - 1) << shift;
        Self { heads: NEAR_HEADS, excluded: !numbers, shift }
    }

    #[inline]
    fn form(&self, head: u16, sector: u32) -> Option<Form> {
        let is_near = head < self.heads && u64::from(sector) & self.excluded == 0;
        is_near.then_some(Form::TakenNear(head, sector >> self.shift))
    }
}

impl Writer {
    pub(crate) fn new(pages: Pages) -> Self {
        let written = pages.written();
        Self {
            place: pages.place(written),
            pages,
            written,
            time: 0,
            now: 0,
            slots: vec![None; SLOTS].into(),
            last: Last::NOBODY,
            recent: [NO_HOPE; MOST_RECENT],
            count: 0,
            scratch: vec![0; RECORD_BYTES].into(),
        }
    }

    /// What follows happened at this time: nanoseconds of the host's monotonic clock, or of one that is as good.
    #[inline]
    pub fn at(&mut self, nanoseconds: u64) {
        self.now = nanoseconds;
    }

    /// Writes one record. One that is too long is left out.
    #[inline]
    pub fn write(&mut self, record: &Record<'_>) {
        if let Record::Given(given) = record {
            return self.given(std::slice::from_ref(given));
        }
        if let Some(request) = Request::of(record) {
            self.request(&request, record);
        } else if let Record::Time(time) = record {
            self.now = *time;
            self.set_time();
        } else {
            if let Record::Taken { .. } = record {
                self.last = Last::NOBODY;
            }
            self.say_time();
            self.put_long(record, Form::Long);
        }
        self.pages.say_written(self.written);
    }

    /// Writes [`Record::Given`] for each of these.
    #[inline]
    pub fn given(&mut self, all: &[Given]) {
        if all.is_empty() {
            return;
        }
        if self.are_as_hoped(all)
            && let Some(later) = self.later_than_last(0)
        {
            self.put(&Form::AllGiven(later).word().to_le_bytes());
            self.time = self.now;
        } else {
            self.say_time();
            for given in all {
                self.given_by_itself(given);
            }
        }
        self.forget_recent();
        self.pages.say_written(self.written);
    }

    /// Whether these are all that were taken since others were given back, and in the same order.
    #[inline]
    fn are_as_hoped(&self, all: &[Given]) -> bool {
        self.recent.get(..self.count).is_some_and(|hopes| {
            hopes.len() == all.len()
                && hopes.iter().zip(all).all(|(hope, given)| word_of(given) == *hope)
        })
    }

    fn given_by_itself(&mut self, given: &Given) {
        if let Some(words) = given_words(given) {
            self.make_room(SHORT_BYTES);
            self.put_words(Form::Given(words.0).word(), words.1);
        } else {
            self.put_long(&Record::Given(*given), Form::Long);
        }
    }

    /// Writes a [`Record::Taken`] whose pieces are those of the one before, if it can be said in few words.
    #[inline]
    pub fn taken_again(
        &mut self,
        (queue, head): (u16, u16),
        header: &[u8; 2 * KIND_BYTES],
        began: Option<Began>,
    ) -> bool {
        let (kind, sector) = kind_and_sector(header);
        let is_there = began.is_none_or(|began| began.offset == place(began.operation, sector));
        let began = began.map(|began| (began.operation, began.length));
        let last = &self.last;
        if kind != last.kind || began != last.began || queue != last.queue() || !is_there {
            return false;
        }
        let names = with_head(last.names, head);
        let near = last.near.form(head, sector as u32);
        let hope = hope_of_head(last.hope, head);
        let Some(later) = self.later_than_last(SHORT_BYTES) else { return false };
        let Ok(sector) = u32::try_from(sector) else { return false };
        if names == last.names && later > 0 {
            self.put_inside(both(Form::TakenLater(later).word(), sector));
            self.time = self.now;
        } else {
            if later > 0 {
                self.put_inside(Form::Later(later).word().to_le_bytes());
                self.time = self.now;
            }
            match near {
                Some(form) => self.put_inside(form.word().to_le_bytes()),
                None => self.put_inside(both(Form::Taken(names).word(), sector)),
            }
            self.last.names = names;
            self.last.hope = hope;
        }
        self.has_taken(hope);
        self.pages.say_written(self.written);
        true
    }

    /// Writes a request.
    fn request(&mut self, request: &Request<'_>, record: &Record<'_>) {
        self.say_time();
        // What is remembered belongs to the block that this goes to.
        self.make_room(SHORT_BYTES);
        let block = self.written / BLOCK_BYTES;
        let slot = request.slot();
        let (names, sector) = request.words(slot);
        if let Some((known, shape)) = &self.slots[slot]
            && *known == block
            && request.is_like(shape)
        {
            self.put_words(Form::Taken(names).word(), sector);
        } else {
            self.remember(slot, request, record);
        }
        let (kind, began) = request.kind();
        let hope = request.hope().map_or(NO_HOPE, one_word);
        self.last = Last {
            end: self.written.next_multiple_of(BLOCK_BYTES),
            names,
            kind: u64::from_le_bytes(kind),
            began,
            hope,
            near: Near::of(began),
        };
        // What ends a block is not there any more for whoever begins at the next.
        if !self.written.is_multiple_of(BLOCK_BYTES) {
            self.has_taken(hope);
        }
    }

    /// The last request belongs to those that can be given back together.
    #[inline]
    fn has_taken(&mut self, hope: u64) {
        if let Some(place) = self.recent.get_mut(self.count) {
            *place = hope;
        }
        self.count += 1;
    }

    #[inline]
    fn forget_recent(&mut self) {
        self.count = 0;
    }

    /// How much later it is, if a word can say that here, with so many bytes behind it, and refer to the request
    /// that was taken last. Both lie inside of its block then, and do not end it.
    #[inline]
    fn later_than_last(&self, behind: usize) -> Option<u32> {
        let later = self.now.wrapping_sub(self.time);
        // The last word of a block is left to whoever makes room.
        let is_here = self.written + ((WORD_BYTES + behind) as u64) < self.last.end;
        (later < MOST_LATER && is_here).then_some(later as u32)
    }

    #[cold]
    fn remember(&mut self, slot: usize, request: &Request<'_>, record: &Record<'_>) {
        self.put_long(record, |length| Form::Shape(slot, length));
        let block = (self.written - 1) / BLOCK_BYTES;
        self.slots[slot] = Some((block, request.shape()));
    }

    #[inline]
    fn say_time(&mut self) {
        if self.now != self.time {
            self.set_time();
        }
    }

    #[inline]
    fn set_time(&mut self) {
        let later = self.now.wrapping_sub(self.time);
        if later < MOST_LATER && !self.written.is_multiple_of(BLOCK_BYTES) {
            self.put(&Form::Later(later as u32).word().to_le_bytes());
            self.time = self.now;
        } else {
            self.set_whole_time();
        }
    }

    #[cold]
    fn set_whole_time(&mut self) {
        // No block begins with the time before.
        self.time = 0;
        self.make_room(TIME_BYTES);
        self.put_time(self.now);
    }

    fn put_time(&mut self, time: u64) {
        let mut bytes = [0; TIME_BYTES];
        if let Ok(encoded) = postcard::to_slice(&Record::Time(time), &mut bytes[WORD_BYTES..]) {
            let length = encoded.len();
            bytes[..WORD_BYTES].copy_from_slice(&Form::Long(length).word().to_le_bytes());
            self.put(&bytes[..padded(length)]);
            self.time = time;
        }
    }

    /// Writes a record in full.
    fn put_long(&mut self, record: &Record<'_>, form: impl FnOnce(usize) -> Form) {
        let mut scratch = std::mem::take(&mut self.scratch);
        if let Ok(encoded) = postcard::to_slice(record, &mut scratch[WORD_BYTES..]) {
            let length = encoded.len();
            let whole = padded(length);
            self.make_room(whole);
            scratch[..WORD_BYTES].copy_from_slice(&form(length).word().to_le_bytes());
            self.put(&scratch[..whole]);
        }
        self.scratch = scratch;
    }

    /// What comes next goes to one block, which begins with a time.
    #[inline]
    fn make_room(&mut self, bytes: usize) {
        let left = BLOCK_BYTES - self.written % BLOCK_BYTES;
        if left < bytes as u64 {
            self.leave_block(left);
        }
        if self.written.is_multiple_of(BLOCK_BYTES) {
            self.begin_block();
        }
    }

    #[cold]
    fn leave_block(&mut self, left: u64) {
        self.pages.memory.store(self.place, &PAD.to_le_bytes());
        self.advance(left);
    }

    #[cold]
    fn begin_block(&mut self) {
        // What is overwritten from here on is read by nobody who has not seen how far this is.
        self.pages.say_written(self.written);
        fence(Ordering::Release);
        if self.time != 0 {
            self.put_time(self.time);
        }
    }

    #[inline]
    fn put_words(&mut self, first: u32, second: u32) {
        self.put(&both(first, second));
    }

    /// What neither begins nor ends a block.
    #[inline]
    fn put_inside<const N: usize>(&mut self, bytes: [u8; N]) {
        self.pages.memory.store(self.place, &bytes);
        self.written += N as u64;
        self.place += N;
    }

    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.pages.memory.store(self.place, bytes);
        self.advance(bytes.len() as u64);
    }

    #[inline]
    fn advance(&mut self, bytes: u64) {
        self.written += bytes;
        self.place += bytes as usize;
        if self.written.is_multiple_of(BLOCK_BYTES) {
            self.place = self.pages.place(self.written);
            self.forget_recent();
        }
    }
}

/// Two words as they are stored.
#[inline]
fn both(first: u32, second: u32) -> [u8; 2 * WORD_BYTES] {
    one_word((first, second)).to_le_bytes()
}

/// Both words that say that a buffer was given back. One that is copied and compared as a whole costs much less.
#[inline]
fn one_word((first, second): (u32, u32)) -> u64 {
    u64::from(second) << 32 | u64::from(first)
}

/// The same of a buffer, or what no request hopes for.
#[inline]
fn word_of(given: &Given) -> u64 {
    given_words(given).map_or(NO_WORD, one_word)
}

/// The same for another head. [`NO_HOPE`] becomes others like it: no words have such high names.
#[inline]
fn hope_of_head(hope: u64, head: u16) -> u64 {
    one_word((with_head(hope as u32, head), (hope >> 32) as u32))
}

#[inline]
fn kind_and_sector(header: &[u8; 2 * KIND_BYTES]) -> (u64, u64) {
    let whole = u128::from_le_bytes(*header);
    (whole as u64, (whole >> 64) as u64)
}
