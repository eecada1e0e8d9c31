//! What a back end writes down, if somebody wants that.
//!
//! One writer for each back end; its queues share it. Without a trace each call is a look at a pointer.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use executor::Instant;
use trace::{Began, Given, Piece, QueuePlace, Record, Ring, Writer};

use super::backend::{QueueSetup, RingLayout};
use super::queue::{Chain, Segment, Tag};

/// As many bytes of a request as tell what is asked: a header, and ranges of a disk behind it.
const HEADER_BYTES: usize = 288;
/// The same of a request with more behind it: that is data.
const SHORT_HEADER_BYTES: usize = 16;
/// What such a request begins with.
type Header = [u8; SHORT_HEADER_BYTES];
/// Pieces of a buffer that are written down.
const MOST_PIECES: usize = 256;

/// The writer of a back end, if it has one.
#[derive(Debug, Clone, Default)]
pub struct DeviceTrace(Option<Rc<RefCell<Scribe>>>);

#[derive(Debug)]
struct Scribe {
    writer: Writer,
    /// What is known of the buffer that was looked at last.
    header: Box<[u8; HEADER_BYTES]>,
    known: usize,
    pieces: Vec<Piece>,
    /// Whether its pieces are those of the one before, which was written down. Its header was left to who reads it.
    again: bool,
    /// Whether a buffer with these pieces was written down.
    is_written: bool,
    /// Buffers that are given back, and not yet published: the driver need not wait for these records.
    given: Vec<Given>,
}

impl DeviceTrace {
    /// Goes on with what a predecessor has written into this ring.
    pub(super) fn begin(ring: Option<&Ring>) -> Self {
        let scribe = ring.map(|ring| {
            let mut writer = ring.writer();
            writer.at(executor::now().as_nanos());
            writer.write(&Record::Born);
            let (header, pieces) = (Box::new([0; HEADER_BYTES]), Vec::with_capacity(MOST_PIECES));
            let (again, is_written, given) = (false, false, Vec::new());
            let known = 0;
            let scribe = Scribe { writer, header, known, pieces, again, is_written, given };
            Rc::new(RefCell::new(scribe))
        });
        Self(scribe)
    }

    /// What the device is made of, at its beginning and after a change.
    pub(super) fn made(&self, state: impl FnOnce() -> Vec<u8>) {
        if self.0.is_some() {
            self.now(&Record::Made { state: state().into() });
        }
    }

    fn now(&self, record: &Record<'_>) {
        if let Some(scribe) = &self.0 {
            let mut scribe = scribe.borrow_mut();
            scribe.writer.at(executor::now().as_nanos());
            scribe.write_given();
            scribe.writer.write(record);
        }
    }

    /// A driver is ready.
    pub(super) fn activated(&self, features: u64, setups: &[QueueSetup]) {
        if self.0.is_none() {
            return;
        }
        let place = |setup: &QueueSetup| QueuePlace {
            index: setup.index,
            size: setup.size,
            packed: setup.layout == RingLayout::Packed,
        };
        let queues = setups.iter().map(place).collect::<Vec<_>>().into();
        self.now(&Record::Activated { features, queues });
    }

    pub(super) fn reset(&self) {
        self.now(&Record::Reset);
    }

    pub(super) fn paused(&self) {
        self.now(&Record::Paused);
    }

    pub(super) fn resumed(&self) {
        self.now(&Record::Resumed);
    }

    pub(super) fn detached(&self) {
        self.now(&Record::Detached);
    }

    pub(super) fn config_written(&self, offset: u32, data: &[u8]) {
        self.now(&Record::ConfigWritten { offset, data: data.into() });
    }

    /// What follows happened at this time.
    #[inline]
    pub(crate) fn at(&self, time: Instant) {
        if let Some(scribe) = &self.0 {
            scribe.borrow_mut().writer.at(time.as_nanos());
        }
    }

    /// A buffer is going to be consumed: this is what it is.
    #[inline]
    pub(crate) fn look_at(&self, chain: &Chain) {
        if let Some(scribe) = &self.0 {
            scribe.borrow_mut().look_at(chain);
        }
    }

    /// The buffer that was looked at was taken; its header was this, as far as it was read.
    #[inline]
    pub(crate) fn taken(
        &self,
        queue: u16,
        head: Tag,
        header: Option<&Header>,
        began: impl FnOnce() -> Option<Began>,
    ) {
        if let Some(scribe) = &self.0 {
            let scribe = &mut *scribe.borrow_mut();
            let began = began();
            if scribe.again
                && let Some(header) = header
            {
                if scribe.writer.taken_again((queue, head), header, began) {
                    return;
                }
                scribe.know(header);
            }
            scribe.taken(queue, head, began);
        }
    }

    /// A further operation began.
    #[inline]
    pub(crate) fn began(&self, queue: u16, head: Tag, began: impl FnOnce() -> Option<Began>) {
        if let Some(scribe) = &self.0
            && let Some(began) = began()
        {
            scribe.borrow_mut().writer.write(&Record::Began { queue, head, began });
        }
    }

    /// An operation ended, and another one follows.
    #[inline]
    pub(crate) fn ended(&self, queue: u16, head: Tag, result: &io::Result<u32>) {
        if let Some(scribe) = &self.0 {
            let result = number(result);
            let writer = &mut scribe.borrow_mut().writer;
            writer.at(executor::now().as_nanos());
            writer.write(&Record::Ended { queue, head, result });
        }
    }

    /// A buffer is given back with what is published next.
    #[inline]
    pub(crate) fn given(
        &self,
        queue: u16,
        head: Tag,
        result: Option<&io::Result<u32>>,
        (written, status): (u32, u8),
    ) {
        if let Some(scribe) = &self.0 {
            let given = Given { queue, head, result: result.map(number), written, status };
            scribe.borrow_mut().given.push(given);
        }
    }

    /// The driver saw at this time what was given back.
    #[inline]
    pub(crate) fn published(&self, time: Instant) {
        if let Some(scribe) = &self.0 {
            let mut scribe = scribe.borrow_mut();
            scribe.writer.at(time.as_nanos());
            scribe.write_given();
        }
    }
}

fn number(result: &io::Result<u32>) -> i32 {
    match result {
        Ok(bytes) => *bytes as i32,
        Err(error) => -error.raw_os_error().unwrap_or(libc::EIO),
    }
}

impl Scribe {
    #[inline]
    fn write_given(&mut self) {
        self.writer.given(&self.given);
        self.given.clear();
    }

    #[cold]
    fn taken(&mut self, queue: u16, head: Tag, began: Option<Began>) {
        let (header, pieces) = (self.header[..self.known].into(), self.pieces[..].into());
        self.writer.write(&Record::Taken { queue, head, header, pieces, began });
        self.is_written = true;
    }

    #[inline]
    fn look_at(&mut self, chain: &Chain) {
        let bytes = chain.readable_bytes() as usize;
        let is_short = bytes == SHORT_HEADER_BYTES || bytes > HEADER_BYTES;
        // Of a chain that lies outside of memory nobody reads the header.
        let is_read = is_short && chain.outside().is_none();
        self.again = is_read && self.is_written && self.is_like_the_last(chain);
        if !self.again {
            self.look_closely(chain);
        }
    }

    #[cold]
    fn look_closely(&mut self, chain: &Chain) {
        let bytes = chain.readable_bytes() as usize;
        let wanted = if bytes > HEADER_BYTES { SHORT_HEADER_BYTES } else { bytes };
        self.known = chain.peek(&mut self.header[..wanted]);
        self.remember_pieces(chain);
    }

    #[cold]
    fn know(&mut self, header: &Header) {
        self.header[..SHORT_HEADER_BYTES].copy_from_slice(header);
        self.known = SHORT_HEADER_BYTES;
    }

    #[inline]
    fn is_like_the_last(&self, chain: &Chain) -> bool {
        let are_like = |segments: &[Segment], pieces: &[Piece], writable: bool| {
            segments.len() == pieces.len()
                && segments.iter().zip(pieces).all(|(segment, piece)| {
                    segment.len() as u32 == piece.length && piece.writable == writable
                })
        };
        let (readable, writable) = (chain.readable(), chain.writable());
        self.pieces.split_at_checked(readable.len()).is_some_and(|(first, rest)| {
            are_like(readable, first, false) && are_like(writable, rest, true)
        })
    }

    fn remember_pieces(&mut self, chain: &Chain) {
        self.is_written = false;
        self.pieces.clear();
        for (segments, writable) in [(chain.readable(), false), (chain.writable(), true)] {
            let pieces =
                segments.iter().map(|segment| Piece { length: segment.len() as u32, writable });
            self.pieces.extend(pieces.take(MOST_PIECES - self.pieces.len()));
        }
    }
}
