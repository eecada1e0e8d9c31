//! Records in memory: one writer that never waits, and a reader that may come too late.
//!
//! ```text
//!   word 0  1         2         page 1
//!   | magic | bytes | written |...| block | block | block | ... | block |
//!                                   records; one never lies in two blocks
//! ```
//!
//! The writer goes round and round. `written` counts all that it ever wrote, so that a reader knows
//! what it has missed; blocks are where it can go on.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{MemfdFlags, SealFlags};

use crate::block::BLOCK_BYTES;
use crate::memory::SharedMemory;

mod pages;
mod reader;
mod writer;

pub use reader::Reader;
pub use writer::Writer;

use self::pages::{HEADER_BYTES, Pages};

const MAGIC: u64 = 0x766d_6d74_7261_6302;
const WORD_MAGIC: usize = 0;
const WORD_BYTES: usize = 1;
/// Rings of more bytes than this are a mistake.
const MOST_BYTES: u64 = 1 << 34;

/// The memory of a ring.
#[derive(Debug, Clone)]
pub struct Ring {
    pages: Pages,
    file: Arc<OwnedFd>,
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
        Ok(Self { pages: Pages::new(memory, bytes), file: Arc::new(file) })
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
        Ok(Self { pages: Pages::new(memory, bytes), file: Arc::new(file) })
    }

    /// The memory, for another process.
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// The one who writes, where the last one stopped.
    pub fn writer(&self) -> Writer {
        Writer::new(self.pages.clone())
    }

    /// Somebody who reads from what is there now.
    pub fn reader(&self) -> Reader {
        Reader::new(self.pages.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Began, Given, Operation, Piece, Record};
    use crate::stream::Records;

    fn write_times(record: &Record<'_>, count: u64, ring: &Ring) {
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
        write_times(&Record::Time(7), 3, &other);
        write_times(&Record::Reset, 1, &other);
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
        write_times(&Record::Paused, 1, &ring);
        write_times(&Record::Resumed, 1, &ring);
        let mut bytes = Vec::new();
        ring.reader().take(&mut bytes);
        assert_eq!(all(&bytes, 0), [Record::Paused, Record::Resumed]);
    }

    #[test]
    fn a_writer_that_lies_about_how_much_it_wrote_does_no_harm() {
        let ring = Ring::create(1 << 20).unwrap();
        for written in [u64::MAX, u64::MAX - 100, 5, 1 << 40, 0, 3] {
            ring.pages.say_written(written);
            let mut bytes = Vec::new();
            let mut reader = ring.reader();
            reader.take(&mut bytes);
            reader.take(&mut bytes);
            assert!(bytes.len() as u64 <= ring.pages.bytes);
        }
    }

    fn request(head: u16, sector: u64, bytes: u32) -> Record<'static> {
        let header = [[0; 8], sector.to_le_bytes()].concat();
        let piece = |length, writable| Piece { length, writable };
        let pieces = vec![piece(16, false), piece(bytes, true), piece(1, true)];
        let offset = sector.wrapping_shl(9);
        let began = Some(Began { operation: Operation::Read, offset, length: bytes.into() });
        Record::Taken { queue: 1, head, header: header.into(), pieces: pieces.into(), began }
    }

    fn given(head: u16, written: u32, status: u8) -> Record<'static> {
        Record::Given(Given { queue: 1, head, result: Some(4096), written, status })
    }

    /// Writes as a device does: what is taken again in few words, if it can be, and answers together.
    fn tell(writer: &mut Writer, last: &mut Option<Record<'static>>, records: &[Record<'static>]) {
        let mut answers = Vec::new();
        for record in records {
            if let Record::Given(given) = record {
                answers.push(*given);
                continue;
            }
            writer.given(&answers);
            answers.clear();
            match (record, &*last) {
                (Record::Time(time), _) => writer.at(*time),
                (
                    Record::Taken { queue, head, header, pieces, began },
                    Some(Record::Taken { pieces: before, .. }),
                ) if pieces == before
                    && writer.taken_again(
                        (*queue, *head),
                        header[..].try_into().unwrap(),
                        *began,
                    ) => {}
                _ => writer.write(record),
            }
            if let Record::Taken { .. } = record {
                *last = Some(record.clone());
            }
        }
        writer.given(&answers);
    }

    /// What is told at a time, with times only where something happens at them.
    fn batches(sizes: &[usize], sector: impl Fn(u64) -> u64) -> Vec<Record<'static>> {
        let (mut time, mut number, mut told) = (1_000_000, 0, Vec::new());
        for size in sizes {
            let requests = (0..*size as u64)
                .map(|index| request((number + index) as u16 % 300, sector(number + index), 4096));
            let requests: Vec<_> = requests.collect();
            let answers =
                (0..*size as u64).map(|index| given((number + index) as u16 % 300, 4097, 0));
            told.push(Record::Time(time));
            told.extend(requests);
            told.push(Record::Time(time + 700));
            told.extend(answers);
            (time, number) = (time + 1000, number + *size as u64);
        }
        told
    }

    #[test]
    fn batches_that_are_answered_in_order_take_a_word_for_each_request_and_two_for_all() {
        let ring = Ring::create(1 << 20).unwrap();
        let (mut writer, mut reader, mut last) = (ring.writer(), ring.reader(), None);
        let told = batches(&[8; 20], |number| number * 8);
        let (first, rest) = told.split_at(2 * 9);
        let mut bytes = Vec::new();
        tell(&mut writer, &mut last, first);
        reader.take(&mut bytes);
        let before = bytes.len();
        tell(&mut writer, &mut last, rest);
        reader.take(&mut bytes);
        assert_eq!(bytes.len() - before, 19 * (8 + 2) * 4);
        assert!(all(&bytes, 0) == told);
    }

    #[test]
    fn batches_of_any_size_and_place_are_read_as_they_were_told_from_any_block() {
        let sizes: Vec<_> = (0..4000).map(|number| [1, 8, 33, 2, 31][number % 5]).collect();
        // Here and there a sector that is no multiple, or too far away for the shortest form.
        let sector = |number: u64| match number % 7 {
            0 => number * 8 + 1,
            1 => (1 << 31) + number,
            _ => number * 8 % (1 << 20),
        };
        let told = batches(&sizes, sector);
        let ring = Ring::create(32 * BLOCK_BYTES).unwrap();
        let (mut writer, mut reader) = (ring.writer(), ring.reader());
        tell(&mut writer, &mut None, &told);
        let mut bytes = Vec::new();
        let (position, lost) = reader.take(&mut bytes);
        assert_eq!((position, lost), (0, 0));
        // Blocks begin with the time that there was before.
        let with_times = all(&bytes, 0);
        let times = |told: &[Record<'_>]| {
            let time = |record: &Record<'_>| match record {
                Record::Time(time) => Some(*time),
                _ => None,
            };
            let mut times: Vec<_> = told.iter().filter_map(time).collect();
            times.dedup();
            times
        };
        assert!(times(&with_times) == times(&told));
        let is_event = |record: &Record<'_>| !matches!(record, Record::Time(_));
        let whole: Vec<_> = told.into_iter().filter(is_event).collect();
        for start in (0..bytes.len()).step_by(BLOCK_BYTES as usize) {
            let mut rest = all(&bytes[start..], start as u64);
            rest.retain(is_event);
            let first = whole.len() - rest.len();
            assert!(rest == whole[first..], "from byte {start}");
        }
    }

    #[test]
    fn answers_out_of_order_or_to_some_are_read_as_they_were_told() {
        let ring = Ring::create(1 << 20).unwrap();
        let mut writer = ring.writer();
        let told = [
            request(0, 8, 4096),
            request(1, 16, 4096),
            request(2, 24, 4096),
            given(1, 4097, 0),
            request(3, 32, 4096),
            given(0, 4097, 0),
            given(2, 4097, 0),
            given(3, 4097, 0),
            request(4, 40, 4096),
            request(5, 48, 4096),
            given(5, 4097, 0),
            given(4, 4097, 0),
            request(6, 56, 4096),
            request(7, 64, 4096),
            given(6, 4097, 0),
            given(7, 1, 1),
            request(300, 64, 4096),
            given(300, 4097, 0),
            Record::Reset,
            request(8, 8, 4096),
            Record::Reset,
            given(8, 4097, 0),
        ];
        tell(&mut writer, &mut None, &told);
        let mut bytes = Vec::new();
        ring.reader().take(&mut bytes);
        assert_eq!(all(&bytes, 0), told);
    }

    #[test]
    fn requests_like_those_before_take_four_words() {
        let ring = Ring::create(1 << 20).unwrap();
        let mut writer = ring.writer();
        writer.write(&request(0, 1, 4096));
        let before = ring.reader().take(&mut Vec::new());
        let mut bytes = Vec::new();
        let mut reader = ring.reader();
        reader.take(&mut bytes);
        let first = bytes.len();
        let like = [request(7, 1 << 31, 4096), request(8, 2, 4096), given(7, 4097, 0)];
        for record in &like {
            writer.write(record);
        }
        assert_eq!(before, (0, 0));
        reader.take(&mut bytes);
        assert_eq!(bytes.len() - first, 24);
        let [one, two, three] = like;
        assert_eq!(all(&bytes, 0), [request(0, 1, 4096), one, two, three]);
    }

    #[test]
    fn one_request_after_the_other_takes_three_words_with_the_times() {
        let ring = Ring::create(1 << 20).unwrap();
        let (mut writer, mut reader) = (ring.writer(), ring.reader());
        let (mut bytes, mut sizes) = (Vec::new(), Vec::new());
        let record = |number: u64| {
            let begin = 1_000_000 + 1000 * number;
            [(begin, request(3, number, 4096)), (begin + 700, given(3, 4097, 0))]
        };
        let mut last = None;
        for (time, record) in (0..3).flat_map(record) {
            writer.at(time);
            tell(&mut writer, &mut last, &[record]);
            let before = bytes.len();
            reader.take(&mut bytes);
            sizes.push(bytes.len() - before);
        }
        assert_eq!(sizes[1..], [4, 8, 4, 8, 4]);
        let told = (0..3).flat_map(record).flat_map(|(time, record)| [Record::Time(time), record]);
        assert_eq!(all(&bytes, 0), told.collect::<Vec<_>>());
    }

    fn written_and_read(records: &[Record<'_>]) -> Vec<Record<'static>> {
        let ring = Ring::create(1 << 20).unwrap();
        let mut writer = ring.writer();
        for record in records {
            writer.write(record);
        }
        let mut bytes = Vec::new();
        ring.reader().take(&mut bytes);
        all(&bytes, 0)
    }

    #[test]
    fn what_is_not_as_the_last_request_is_read_as_it_was_written() {
        let records = [
            request(0, 1, 4096),
            given(0, 4097, 0),
            given(0, 4097, 0),
            request(0, 2, 8192),
            given(0, 4097, 0),
            request(1, 2, 8192),
            given(0, 4097, 0),
            request(1, 2, 4096),
            given(1, 1, 0),
            given(1, 4097, 1),
            Record::Reset,
            given(1, 4097, 0),
            request(1, 3, 4096),
        ];
        assert_eq!(written_and_read(&records), records);
    }

    #[test]
    fn what_no_short_form_can_say_is_read_as_it_was_written() {
        let other_place = |record: Record<'static>| {
            let Record::Taken { queue, head, header, pieces, began } = record else { panic!() };
            let began = began.map(|began| Began { offset: began.offset + 1, ..began });
            Record::Taken { queue, head, header, pieces, began }
        };
        let other_queue = |record: Record<'static>| {
            let Record::Taken { head, header, pieces, began, .. } = record else { panic!() };
            Record::Taken { queue: 64, head, header, pieces, began }
        };
        let without_result =
            Record::Given(Given { queue: 1, head: 3, result: None, written: 1, status: 0 });
        let records = [
            request(0, 5, 4096),
            other_place(request(1, 5, 4096)),
            other_queue(request(1, 5, 4096)),
            request(2, 1 << 32, 4096),
            given(2, 4098, 0),
            given(2, 1, 2),
            given(2, 1, 0),
            without_result,
            Record::Given(Given { queue: 1, head: 3, result: Some(-5), written: 1, status: 1 }),
            Record::Time(1 << 40),
            Record::Time((1 << 40) + (1 << 28)),
            Record::Time(5),
        ];
        assert_eq!(written_and_read(&records), records);
    }

    #[test]
    fn who_begins_at_any_block_understands_all_of_it() {
        let ring = Ring::create(4 * BLOCK_BYTES).unwrap();
        let (mut late, mut punctual) = (ring.reader(), ring.reader());
        let (mut writer, mut told) = (ring.writer(), Vec::new());
        let (mut bytes, mut position) = (Vec::new(), 0);
        for number in 0..60_000_u32 {
            writer.write(&Record::Time(1 + u64::from(number) * 1000));
            let shape = 4096 + number % 80 * 512;
            writer.write(&request(number as u16, number.into(), shape));
            writer.write(&given(number as u16, 1, 0));
            if number % 1000 == 0 {
                let (at, lost) = punctual.take(&mut bytes);
                assert_eq!((at, lost), (position, 0));
                position += bytes.len() as u64 - told.len() as u64;
                told.clone_from(&bytes);
            }
        }
        punctual.take(&mut bytes);
        let whole = all(&bytes, 0);
        let mut rest = Vec::new();
        let (position, lost) = late.take(&mut rest);
        assert!(lost > 0 && position.is_multiple_of(BLOCK_BYTES));
        let rest = all(&rest, position);
        assert!(matches!(rest[0], Record::Time(_)));
        assert_eq!(rest[1..], whole[whole.len() - rest.len() + 1..]);
        let requests = whole.iter().filter(|record| matches!(record, Record::Taken { .. }));
        let sectors = requests.enumerate().map(|(index, record)| {
            record == &request(index as u16, index as u64, 4096 + index as u32 % 80 * 512)
        });
        assert_eq!(sectors.filter(|same| *same).count(), 60_000);
    }
}
