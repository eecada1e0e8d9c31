//! A ring's two ends under a model of threads: each order in which they can see each other's steps.
//!
//! The files are those of the crate, over memory that loom watches and in blocks of a few words.

#![expect(dead_code, unreachable_pub, reason = "files of a crate as parts of a test")]

#[path = "../../src/ring/pages.rs"]
mod pages;
#[path = "../../src/ring/reader.rs"]
mod reader;
#[path = "../../src/record.rs"]
mod record;
#[path = "../../src/short.rs"]
mod short;
#[path = "../../src/stream.rs"]
mod stream;
#[path = "../../src/ring/writer.rs"]
mod writer;

/// As `src/block.rs`, as small as can be: a time in full and two short ones.
mod block {
    pub(crate) const BLOCK_BYTES: u64 = 16;
    pub(crate) const RECORD_BYTES: usize = 12;
}

/// As `src/memory.rs`: words that two processes see.
mod memory {
    use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};

    /// Where the records begin.
    const HEADER_BYTES: usize = 4096;

    #[derive(Debug)]
    pub(crate) struct SharedMemory {
        written: AtomicU64,
        words: Vec<AtomicU32>,
    }

    impl SharedMemory {
        pub(crate) fn new(bytes: u64) -> Self {
            let words = (0..bytes / 4).map(|_| AtomicU32::new(0)).collect();
            Self { written: AtomicU64::new(0), words }
        }

        pub(crate) fn store(&self, at: usize, bytes: &[u8]) {
            let first = (at - HEADER_BYTES) / 4;
            for (index, word) in bytes.chunks(4).enumerate() {
                let word = u32::from_le_bytes(word.try_into().expect("whole words"));
                self.words[first + index].store(word, Ordering::Relaxed);
            }
        }

        pub(crate) fn load(&self, at: usize, count: usize, out: &mut Vec<u8>) {
            let first = (at - HEADER_BYTES) / 4;
            for word in &self.words[first..first + count / 4] {
                out.extend(word.load(Ordering::Relaxed).to_le_bytes());
            }
        }

        pub(crate) fn load_word(&self, _: usize) -> u64 {
            self.written.load(Ordering::Acquire)
        }

        pub(crate) fn store_word(&self, _: usize, value: u64) {
            self.written.store(value, Ordering::Release);
        }
    }
}

/// As `src/sync.rs`.
mod sync {
    pub(crate) use loom::sync::Arc;
    pub(crate) use loom::sync::atomic::{Ordering, fence};
}

use loom::thread;

use block::BLOCK_BYTES;
use memory::SharedMemory;
use pages::Pages;
use reader::Reader;
use record::Record;
use stream::Decoder;
use writer::Writer;

/// Numbers that the writer writes: more than the ring has room for.
const NUMBERS: u64 = 10;

#[test]
fn a_reader_takes_what_was_written_whole_and_in_order_or_knows_that_it_is_lost() {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(|| {
        let bytes = 3 * BLOCK_BYTES;
        let pages = Pages::new(SharedMemory::new(bytes), bytes);
        let (mut writer, mut reader) = (Writer::new(pages.clone()), Reader::new(pages));
        let writing = thread::spawn(move || {
            for number in 1..=NUMBERS {
                writer.write(&Record::Time(number));
            }
        });
        let mut told = Told::default();
        told.take(&mut reader);
        writing.join().unwrap();
        told.take(&mut reader);
        assert_eq!(told.last, NUMBERS);
    });
}

/// What was taken.
#[derive(Default)]
struct Told {
    decoder: Decoder,
    last: u64,
    end: u64,
    /// Some is missing behind the last one.
    has_lost: bool,
}

impl Told {
    /// Takes what is there, which goes on behind what was taken before.
    fn take(&mut self, reader: &mut Reader) {
        let mut bytes = Vec::new();
        let (mut position, lost) = reader.take(&mut bytes);
        assert_eq!(position, self.end + lost);
        self.end = position + bytes.len() as u64;
        let mut rest = &bytes[..];
        self.has_lost |= lost > 0;
        while let Some(record) = self.decoder.next(rest, position) {
            let (Record::Time(number), used) = record.expect("a record") else {
                panic!("this was never written")
            };
            // A block begins with the time before it.
            let follows = number == self.last || number == self.last + 1;
            assert!(
                follows || self.has_lost && number > self.last,
                "{number} behind {}",
                self.last
            );
            (self.last, self.has_lost) = (number, false);
            (rest, position) = (&rest[used as usize..], position + used);
        }
    }
}
