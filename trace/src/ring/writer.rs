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
/// Of a request that moves nothing: no buffer is given back by these words.
const NO_HOPE: u64 = u64::MAX;
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
    recent: Vec<u64>,
    /// How many those are.
    count: usize,
    scratch: Box<[u8]>,
}

/// The request that was taken last.
#[derive(Debug)]
struct Last {
    /// Where it was written: its block's number. None that there can be if the last one had no short form.
    block: u64,
    /// What its short form says, but the sector.
    names: u32,
    kind: [u8; KIND_BYTES],
    began: Option<(Operation, u64)>,
    /// What is said when it does what it is to do, or [`NO_HOPE`].
    hope: u64,
}

impl Last {
    const NOBODY: Self =
        Self { block: u64::MAX, names: 0, kind: [0; KIND_BYTES], began: None, hope: NO_HOPE };

    #[inline]
    fn queue(&self) -> u16 {
        queue(self.names)
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
            recent: Vec::with_capacity(MOST_RECENT),
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
        let hopes = &self.recent;
        self.count == all.len()
            && hopes.len() == all.len()
            && hopes
                .iter()
                .zip(all)
                .all(|(hope, given)| given_words(given).map(one_word) == Some(*hope))
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
        let (kind, sector) = header.split_at(KIND_BYTES);
        let sector = u64::from_le_bytes(sector.try_into().expect("half of a header"));
        let is_there = began.is_none_or(|began| began.offset == place(began.operation, sector));
        let began = began.map(|began| (began.operation, began.length));
        let last = &self.last;
        let names = with_head(last.names, head);
        let is_like = kind == last.kind && began == last.began && is_there;
        let Ok(sector) = u32::try_from(sector) else { return false };
        let Some(later) = self.later_than_last(SHORT_BYTES) else { return false };
        if !is_like || last.queue() != queue {
            return false;
        }
        if names == last.names && later > 0 {
            self.put_words(Form::TakenLater(later).word(), sector);
            self.time = self.now;
        } else {
            if later > 0 {
                self.put(&Form::Later(later).word().to_le_bytes());
                self.time = self.now;
            }
            match near(began, head, sector) {
                Some(form) => self.put(&form.word().to_le_bytes()),
                None => self.put_words(Form::Taken(names).word(), sector),
            }
            self.last.names = names;
            self.last.hope = hope_of_head(self.last.hope, head);
        }
        self.has_taken();
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
        let block = (self.written - 1) / BLOCK_BYTES;
        let ((kind, began), hope) = (request.kind(), request.hope().map_or(NO_HOPE, one_word));
        self.last = Last { block, names, kind, began, hope };
        self.has_taken();
    }

    /// The last request belongs to those that can be given back together.
    #[inline]
    fn has_taken(&mut self) {
        // What ends a block is not there any more for whoever begins at the next.
        if !self.written.is_multiple_of(BLOCK_BYTES) {
            self.count += 1;
            if self.recent.len() < MOST_RECENT {
                self.recent.push(self.last.hope);
            }
        }
    }

    #[inline]
    fn forget_recent(&mut self) {
        self.recent.clear();
        self.count = 0;
    }

    /// How much later it is, if a word can say that here, with so many bytes behind it, and refer to the request
    /// that was taken last.
    #[inline]
    fn later_than_last(&self, behind: usize) -> Option<u32> {
        let later = self.now.wrapping_sub(self.time);
        let is_near = later < MOST_LATER;
        // The last word of a block is left to whoever makes room.
        let end = self.written + (WORD_BYTES + behind) as u64;
        let is_here = end / BLOCK_BYTES == self.last.block;
        (is_near && is_here).then_some(later as u32)
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
        let both = u64::from(second) << 32 | u64::from(first);
        self.put(&both.to_le_bytes());
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

/// Both words that say that a buffer was given back. One that is copied and compared as a whole costs much less.
#[inline]
fn one_word((names, bytes): (u32, u32)) -> u64 {
    u64::from(bytes) << 32 | u64::from(names)
}

/// The same for another head.
#[inline]
fn hope_of_head(hope: u64, head: u16) -> u64 {
    if hope == NO_HOPE {
        return hope;
    }
    one_word((with_head(hope as u32, head), (hope >> 32) as u32))
}

/// The shortest form of a request like the last one, if it has one.
#[inline]
fn near(began: Option<(Operation, u64)>, head: u16, sector: u32) -> Option<Form> {
    // A division takes as long as all the rest.
    let unit = unit(began).filter(|unit| unit.is_power_of_two())?;
    let number = sector >> unit.trailing_zeros();
    let is_near = head < NEAR_HEADS && number < NEAR_NUMBERS && sector & (unit - 1) == 0;
    is_near.then_some(Form::TakenNear(head, number))
}
