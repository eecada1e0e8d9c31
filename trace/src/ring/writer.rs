//! The end of a ring that writes.

use super::pages::Pages;
use crate::block::{BLOCK_BYTES, RECORD_BYTES};
use crate::record::Record;
use crate::short::{Request, SLOTS, Shape, given_words};
use crate::stream::{Form, PAD, WORD_BYTES, padded};
use crate::sync::{Ordering, fence};

/// Two words.
const SHORT_BYTES: usize = 2 * WORD_BYTES;
/// The most that a time in full takes: a word, what it is, ten bytes.
const TIME_BYTES: usize = 16;
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
    scratch: Box<[u8]>,
}

/// The request that was taken last.
#[derive(Debug)]
struct Last {
    /// Where it was written: its block's number.
    block: u64,
    slot: usize,
    /// What its short form says, but the sector.
    names: u32,
    /// What is said when it does what it is to do.
    hope: Option<(u32, u32)>,
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
            last: Last { block: u64::MAX, slot: 0, names: 0, hope: None },
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
        if let Some(words) = given_words(record) {
            self.given(words);
        } else if let Some(request) = Request::of(record) {
            self.request(&request, record);
        } else if let Record::Time(time) = record {
            self.now = *time;
            self.set_time();
        } else {
            self.say_time();
            self.put_long(record, Form::Long);
        }
        self.pages.say_written(self.written);
    }

    #[inline]
    fn given(&mut self, words: (u32, u32)) {
        if let Some(later) = self.later_than_last()
            && self.last.hope == Some(words)
        {
            self.put(&Form::GivenLater(later).word().to_le_bytes());
            self.time = self.now;
        } else {
            self.say_time();
            self.make_room(SHORT_BYTES);
            self.put_words(Form::Given(words.0).word(), words.1);
        }
    }

    #[inline]
    fn request(&mut self, request: &Request<'_>, record: &Record<'_>) {
        if let (names, sector) = request.words(self.last.slot)
            && names == self.last.names
            && let Some(later) = self.later_than_last()
            && let Some((_, shape)) = &self.slots[self.last.slot]
            && request.is_like(shape)
        {
            self.put_words(Form::TakenLater(later).word(), sector);
            self.time = self.now;
            return;
        }
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
        self.last = Last { block, slot, names, hope: request.hope() };
    }

    /// How much later it is, if a short form can say that here and refer to the request that was taken last.
    #[inline]
    fn later_than_last(&self) -> Option<u32> {
        let later = self.now.wrapping_sub(self.time);
        let is_near = later < MOST_LATER;
        // The last word of a block is left to whoever makes room.
        let is_here = (self.written + WORD_BYTES as u64) / BLOCK_BYTES == self.last.block;
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
        }
    }
}
