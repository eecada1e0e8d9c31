//! Records in memory: one writer that never waits, and a reader that may come too late.
//!
//! ```text
//!   word 0  1         2         page 1
//!   | magic | bytes | written |...| block | block | block | ... | block |
//!                                   records, each behind its length; one never lies in two blocks
//! ```
//!
//! The writer goes round and round. `written` counts all that it ever wrote, so that a reader knows
//! what it has missed; blocks are where it can go on.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::time::{ClockId, clock_gettime};

use crate::memory::SharedMemory;
use crate::record::Record;
use crate::stream::{BLOCK_BYTES, PAD, PREFIX_BYTES, padded};

const MAGIC: u64 = 0x766d_6d74_7261_6301;
const WORD_MAGIC: usize = 0;
const WORD_BYTES: usize = 1;
const WORD_WRITTEN: usize = 2;
const HEADER_BYTES: usize = 4096;
/// Rings of more bytes than this are a mistake.
const MOST_BYTES: u64 = 1 << 34;
/// More than any machine writes in its life.
const MOST_WRITTEN: u64 = 1 << 60;
/// The longest record.
const RECORD_BYTES: usize = 8 << 10;

const _: () = assert!(RECORD_BYTES < BLOCK_BYTES as usize);

/// The memory of a ring.
#[derive(Debug, Clone)]
pub struct Ring {
    memory: Arc<SharedMemory>,
    file: Arc<OwnedFd>,
    bytes: u64,
}

impl Ring {
    /// New memory for about so many bytes of records.
    pub fn create(bytes: u64) -> io::Result<Self> {
        let bytes = bytes.clamp(2 * BLOCK_BYTES, MOST_BYTES).next_multiple_of(BLOCK_BYTES);
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = rustix::fs::memfd_create("trace", flags)?;
        rustix::fs::ftruncate(&file, HEADER_BYTES as u64 + bytes)?;
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&file, seals)?;
        let memory = SharedMemory::map(file.as_fd(), HEADER_BYTES + bytes as usize)?;
        memory.store_word(WORD_BYTES, bytes);
        memory.store_word(WORD_MAGIC, MAGIC);
        Ok(Self { memory: Arc::new(memory), file: Arc::new(file), bytes })
    }

    /// Attaches to memory that another process made with [`Ring::create`].
    pub fn attach(file: OwnedFd) -> io::Result<Self> {
        let length = rustix::fs::fstat(&file)?.st_size as u64;
        // Without the seal, whoever shrinks the file kills whoever touches the mapping.
        let sealed = rustix::fs::fcntl_get_seals(&file)?.contains(SealFlags::SHRINK);
        let bytes = length.saturating_sub(HEADER_BYTES as u64);
        let possible = (2 * BLOCK_BYTES..=MOST_BYTES).contains(&bytes);
        if !sealed || !possible || !bytes.is_multiple_of(BLOCK_BYTES) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let memory = SharedMemory::map(file.as_fd(), length as usize)?;
        if memory.load_word(WORD_MAGIC) != MAGIC || memory.load_word(WORD_BYTES) != bytes {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(Self { memory: Arc::new(memory), file: Arc::new(file), bytes })
    }

    /// The memory, for another process.
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// The one who writes, where the last one stopped.
    pub fn writer(&self) -> Writer {
        let written = self.written();
        Writer {
            ring: self.clone(),
            written,
            time: 0,
            clock: (Instant::now(), monotonic()),
            scratch: vec![0; RECORD_BYTES].into(),
        }
    }

    /// Somebody who reads from what is there now.
    pub fn reader(&self) -> Reader {
        Reader { ring: self.clone(), position: 0 }
    }

    /// All that was ever written; nothing, where a writer says what cannot be.
    fn written(&self) -> u64 {
        let written = self.memory.load_word(WORD_WRITTEN);
        if written < MOST_WRITTEN && written.is_multiple_of(PREFIX_BYTES as u64) {
            written
        } else {
            0
        }
    }

    fn place(&self, position: u64) -> usize {
        HEADER_BYTES + (position % self.bytes) as usize
    }
}

/// The host's monotonic clock, the same in all processes.
fn monotonic() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Writes records.
#[derive(Debug)]
pub struct Writer {
    ring: Ring,
    written: u64,
    /// What the last [`Record::Time`] said.
    time: u64,
    /// The same moment on both clocks.
    clock: (Instant, u64),
    scratch: Box<[u8]>,
}

impl Writer {
    /// What follows happened at this time.
    #[inline]
    pub fn at(&mut self, now: Instant) {
        let (start, nanoseconds) = self.clock;
        let time = nanoseconds + now.saturating_duration_since(start).as_nanos() as u64;
        if time != self.time {
            self.time = time;
            self.write(&Record::Time(time));
        }
    }

    /// What follows happens now.
    pub fn now(&mut self) {
        self.at(Instant::now());
    }

    /// Writes one record. One that is too long is left out.
    #[inline]
    pub fn write(&mut self, record: &Record<'_>) {
        let Ok(encoded) = postcard::to_slice(record, &mut self.scratch[PREFIX_BYTES..]) else {
            return;
        };
        let length = encoded.len();
        let whole = padded(length);
        let left = BLOCK_BYTES - self.written % BLOCK_BYTES;
        if left < whole as u64 {
            // A block's end is either reached exactly or has room for this.
            self.ring.memory.store(self.ring.place(self.written), &PAD.to_le_bytes());
            self.written += left;
        }
        self.scratch[..PREFIX_BYTES].copy_from_slice(&(length as u32).to_le_bytes());
        self.ring.memory.store(self.ring.place(self.written), &self.scratch[..whole]);
        self.written += whole as u64;
        self.ring.memory.store_word(WORD_WRITTEN, self.written);
    }
}

/// Takes what was written.
#[derive(Debug)]
pub struct Reader {
    ring: Ring,
    position: u64,
}

impl Reader {
    /// Appends what is new to `out`: the position of its first byte in all that was ever written, and how
    /// many bytes were overwritten before they could be taken.
    pub fn take(&mut self, out: &mut Vec<u8>) -> (u64, u64) {
        let from = self.position;
        let written = self.ring.written();
        if written < from {
            // A writer that lies; what it says next is as good.
            self.position = written;
            return (written, 0);
        }
        let start = self.first_left(from, written);
        let before = out.len();
        self.copy(start, written, out);
        // What the writer overwrote meanwhile is nonsense.
        let valid = self.first_left(start, self.ring.written()).min(written);
        out.drain(before..before + (valid - start) as usize);
        self.position = written;
        (valid, valid - from)
    }

    /// The first position at or behind `from` that is still there, at a record's start.
    fn first_left(&self, from: u64, written: u64) -> u64 {
        // The block that is being written is not there any more in its older half.
        let oldest = (written + BLOCK_BYTES).saturating_sub(self.ring.bytes);
        if from >= oldest { from } else { oldest.next_multiple_of(BLOCK_BYTES).min(written) }
    }

    fn copy(&self, start: u64, end: u64, out: &mut Vec<u8>) {
        let mut at = start;
        while at < end {
            let until_wrap = self.ring.bytes - at % self.ring.bytes;
            let count = (end - at).min(until_wrap);
            self.ring.memory.load(self.ring.place(at), count as usize, out);
            at += count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::Records;

    fn written(record: &Record<'_>, count: u64, ring: &Ring) {
        let mut writer = ring.writer();
        for _ in 0..count {
            writer.write(record);
        }
    }

    fn all(bytes: &[u8], position: u64) -> Vec<Record<'static>> {
        Records::new(bytes, position).map(Result::unwrap).collect()
    }

    #[test]
    fn what_is_written_is_read_once() {
        let ring = Ring::create(1 << 20).unwrap();
        let mut reader = ring.reader();
        let other = Ring::attach(ring.file().try_clone_to_owned().unwrap()).unwrap();
        written(&Record::Time(7), 3, &other);
        written(&Record::Reset, 1, &other);
        let mut bytes = Vec::new();
        assert_eq!(reader.take(&mut bytes), (0, 0));
        let time = || Record::Time(7);
        assert_eq!(all(&bytes, 0), [time(), time(), time(), Record::Reset]);
        bytes.clear();
        assert_eq!(reader.take(&mut bytes).1, 0);
        assert!(bytes.is_empty());
    }

    #[test]
    fn who_comes_too_late_gets_the_latest_and_knows_what_is_lost() {
        let ring = Ring::create(4 * BLOCK_BYTES).unwrap();
        let mut reader = ring.reader();
        let mut writer = ring.writer();
        for number in 0..100_000 {
            writer.write(&Record::Time(number));
        }
        let mut bytes = Vec::new();
        let (position, lost) = reader.take(&mut bytes);
        assert!(lost > 0 && position == lost && position % BLOCK_BYTES == 0);
        let records = all(&bytes, position);
        assert_eq!(records.last(), Some(&Record::Time(99_999)));
        assert!(bytes.len() as u64 > 2 * BLOCK_BYTES);
        for pair in records.windows(2) {
            let [Record::Time(one), Record::Time(two)] = pair else { panic!("{pair:?}") };
            assert_eq!(one + 1, *two);
        }
    }

    #[test]
    fn a_successor_goes_on_where_the_last_one_stopped() {
        let ring = Ring::create(1 << 20).unwrap();
        written(&Record::Paused, 1, &ring);
        written(&Record::Resumed, 1, &ring);
        let mut bytes = Vec::new();
        ring.reader().take(&mut bytes);
        assert_eq!(all(&bytes, 0), [Record::Paused, Record::Resumed]);
    }

    #[test]
    fn a_writer_that_lies_about_how_much_it_wrote_does_no_harm() {
        let ring = Ring::create(1 << 20).unwrap();
        for written in [u64::MAX, u64::MAX - 100, 5, 1 << 40, 0, 3] {
            ring.memory.store_word(WORD_WRITTEN, written);
            let mut bytes = Vec::new();
            let mut reader = ring.reader();
            reader.take(&mut bytes);
            reader.take(&mut bytes);
            assert!(bytes.len() as u64 <= ring.bytes);
        }
    }
}
