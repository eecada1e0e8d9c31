//! Traces on disk.
//!
//! ```text
//!   "vmmtrace" version | chunk | chunk | chunk ...
//!
//!   chunk:  actor u16, kind u16, length u32, position u64, lost u64 | bytes
//!           kind 1: the actor's name      kind 2: records from `position` on, with `lost` bytes before
//! ```
//!
//! All numbers are little endian. A file that ends in the middle of a chunk is one whose writer was
//! killed: what is whole is read.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::record::Record;
use crate::stream::Decoder;

const MAGIC: &[u8; 8] = b"vmmtrace";
const VERSION: u64 = 4;
const START_BYTES: u64 = 16;
const CHUNK_HEADER_BYTES: usize = 24;
const KIND_NAME: u16 = 1;
const KIND_RECORDS: u16 = 2;
/// More actors than any machine has.
const MOST_ACTORS: usize = 1024;
const MOST_NAME_BYTES: u32 = 256;

/// A file is no trace, or cannot be read.
#[derive(Debug, Error)]
pub enum TraceError {
    /// It cannot be opened or read.
    #[error("cannot read the trace {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is something else.
    #[error("{path} is no trace of this version: {reason}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// Writes a trace, piece after piece.
#[derive(Debug)]
pub struct Appender<W> {
    out: W,
    actors: u16,
}

impl<W: Write> Appender<W> {
    /// A trace without actors.
    pub fn new(mut out: W) -> io::Result<Self> {
        out.write_all(MAGIC)?;
        out.write_all(&VERSION.to_le_bytes())?;
        Ok(Self { out, actors: 0 })
    }

    /// One more actor: its number.
    pub fn add(&mut self, name: &str) -> io::Result<u16> {
        let number = self.actors;
        self.actors += 1;
        self.chunk(number, KIND_NAME, 0, 0, name.as_bytes())?;
        Ok(number)
    }

    /// Records of an actor, as [`Reader::take`](crate::Reader::take) gives them.
    pub fn records(
        &mut self,
        actor: u16,
        (position, lost): (u64, u64),
        bytes: &[u8],
    ) -> io::Result<()> {
        if bytes.is_empty() && lost == 0 {
            return Ok(());
        }
        self.chunk(actor, KIND_RECORDS, position, lost, bytes)
    }

    fn chunk(
        &mut self,
        actor: u16,
        kind: u16,
        position: u64,
        lost: u64,
        bytes: &[u8],
    ) -> io::Result<()> {
        let length = u32::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut header = Vec::with_capacity(CHUNK_HEADER_BYTES);
        header.extend(actor.to_le_bytes());
        header.extend(kind.to_le_bytes());
        header.extend(length.to_le_bytes());
        header.extend(position.to_le_bytes());
        header.extend(lost.to_le_bytes());
        self.out.write_all(&header)?;
        self.out.write_all(bytes)
    }

    /// Hands what is buffered on.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// A trace that was written.
#[derive(Debug)]
pub struct TraceFile {
    path: PathBuf,
    file: File,
    actors: Vec<Actor>,
    /// Whether it ends in the middle of a chunk.
    cut: bool,
}

#[derive(Debug)]
struct Actor {
    name: String,
    chunks: Vec<Chunk>,
}

#[derive(Debug, Clone, Copy)]
struct Chunk {
    offset: u64,
    length: u32,
    position: u64,
    lost: u64,
}

impl TraceFile {
    /// Opens a trace and finds its chunks.
    pub fn open(path: &Path) -> Result<Self, TraceError> {
        let read = |source| TraceError::Read { path: path.to_owned(), source };
        let malformed =
            |reason: &str| TraceError::Malformed { path: path.to_owned(), reason: reason.into() };
        let mut file = File::open(path).map_err(read)?;
        let length = file.metadata().map_err(read)?.len();
        let mut start = [0; START_BYTES as usize];
        file.read_exact(&mut start).map_err(|_| malformed("it is too short"))?;
        if start[..8] != *MAGIC || start[8..] != VERSION.to_le_bytes() {
            return Err(malformed("it begins differently"));
        }
        let mut trace = Self { path: path.to_owned(), file, actors: Vec::new(), cut: false };
        let mut offset = START_BYTES;
        while offset < length {
            let mut header = [0; CHUNK_HEADER_BYTES];
            if length - offset < CHUNK_HEADER_BYTES as u64 {
                trace.cut = true;
                break;
            }
            trace.file.read_exact_at(&mut header, offset).map_err(read)?;
            offset += CHUNK_HEADER_BYTES as u64;
            let number = |at: usize, bytes: usize| {
                header[at..at + bytes].iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
            };
            let (actor, kind, bytes) =
                (number(0, 2) as usize, number(2, 2) as u16, number(4, 4) as u32);
            if length - offset < u64::from(bytes) {
                trace.cut = true;
                break;
            }
            let chunk =
                Chunk { offset, length: bytes, position: number(8, 8), lost: number(16, 8) };
            trace.note(actor, kind, chunk).map_err(|reason| malformed(&reason))?;
            offset += u64::from(bytes);
        }
        Ok(trace)
    }

    fn note(&mut self, actor: usize, kind: u16, chunk: Chunk) -> Result<(), String> {
        match kind {
            KIND_NAME if actor == self.actors.len() && actor < MOST_ACTORS => {
                if chunk.length > MOST_NAME_BYTES {
                    return Err("an actor has a name that is too long".into());
                }
                let name = self.bytes(&chunk).map_err(|error| error.to_string())?;
                let name = String::from_utf8_lossy(&name).into_owned();
                self.actors.push(Actor { name, chunks: Vec::new() });
                Ok(())
            }
            KIND_RECORDS if actor < self.actors.len() => {
                self.actors[actor].chunks.push(chunk);
                Ok(())
            }
            _ => Err(format!("a chunk of kind {kind} of actor {actor} in the wrong place")),
        }
    }

    fn bytes(&self, chunk: &Chunk) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; chunk.length as usize];
        self.file.read_exact_at(&mut bytes, chunk.offset)?;
        Ok(bytes)
    }

    /// The names of its actors.
    pub fn actors(&self) -> impl ExactSizeIterator<Item = &str> {
        self.actors.iter().map(|actor| actor.name.as_str())
    }

    /// Whether its writer was killed in the middle of something.
    pub fn is_cut(&self) -> bool {
        self.cut
    }

    /// What these actors did, in the order of time.
    pub fn timeline(&self, wanted: impl Fn(&str) -> bool) -> Timeline<'_> {
        let numbers = 0..self.actors.len();
        let of = |number: usize| Line::new(self, number);
        let lines = numbers.filter(|number| wanted(&self.actors[*number].name)).map(of).collect();
        Timeline { lines }
    }
}

/// Something that an actor did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Nanoseconds of the host's monotonic clock.
    pub time: u64,
    /// Who.
    pub actor: &'a str,
    /// What; never [`Record::Time`].
    pub event: Event,
}

/// What there is to say of an actor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// It did this.
    Did(Record<'static>),
    /// So many bytes of what it did are lost.
    Lost(u64),
}

/// What actors did, in the order of time.
#[derive(Debug)]
pub struct Timeline<'a> {
    lines: Vec<Line<'a>>,
}

impl<'a> Iterator for Timeline<'a> {
    type Item = Result<Entry<'a>, TraceError>;

    fn next(&mut self) -> Option<Self::Item> {
        // Few actors: a look at each is cheaper than keeping order among them.
        let first = self.lines.iter_mut().filter_map(|line| {
            let time = line.peek()?;
            Some((time, line))
        });
        let (_, line) = first.min_by_key(|(time, _)| *time)?;
        line.take()
    }
}

/// One actor's records.
#[derive(Debug)]
struct Line<'a> {
    trace: &'a TraceFile,
    name: &'a str,
    chunks: std::slice::Iter<'a, Chunk>,
    bytes: Vec<u8>,
    /// Where in `bytes`, and in all that the actor wrote.
    at: usize,
    position: u64,
    decoder: Decoder,
    time: u64,
    next: Option<Result<Event, TraceError>>,
}

impl<'a> Line<'a> {
    fn new(trace: &'a TraceFile, number: usize) -> Self {
        let actor = &trace.actors[number];
        Self {
            trace,
            name: &actor.name,
            chunks: actor.chunks.iter(),
            bytes: Vec::new(),
            at: 0,
            position: 0,
            decoder: Decoder::default(),
            time: 0,
            next: None,
        }
    }

    /// The time of what comes next; at once for an error.
    fn peek(&mut self) -> Option<u64> {
        if self.next.is_none() {
            self.next = self.advance();
        }
        self.next.as_ref().map(|next| if next.is_ok() { self.time } else { 0 })
    }

    fn take(&mut self) -> Option<Result<Entry<'a>, TraceError>> {
        let next = self.next.take()?;
        Some(next.map(|event| Entry { time: self.time, actor: self.name, event }))
    }

    fn advance(&mut self) -> Option<Result<Event, TraceError>> {
        loop {
            let rest = self.bytes.get(self.at..).unwrap_or_default();
            match self.decoder.next(rest, self.position) {
                Some(Ok((record, used))) => {
                    self.at += used as usize;
                    self.position = self.position.wrapping_add(used);
                    match record {
                        Record::Time(time) => self.time = time,
                        record => return Some(Ok(Event::Did(record))),
                    }
                }
                Some(Err(malformed)) => {
                    self.bytes.clear();
                    self.at = 0;
                    let (path, reason) = (self.trace.path.clone(), malformed.to_string());
                    let reason = format!("{}: {reason}", self.name);
                    return Some(Err(TraceError::Malformed { path, reason }));
                }
                None => {
                    let chunk = self.chunks.next()?;
                    (self.at, self.position) = (0, chunk.position);
                    match self.trace.bytes(chunk) {
                        Ok(bytes) => self.bytes = bytes,
                        Err(source) => {
                            let path = self.trace.path.clone();
                            return Some(Err(TraceError::Read { path, source }));
                        }
                    }
                    if chunk.lost > 0 {
                        return Some(Ok(Event::Lost(chunk.lost)));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tempfile::NamedTempFile;

    use super::*;
    use crate::ring::Ring;

    fn written(actors: &[(&str, &[Record<'_>])]) -> NamedTempFile {
        let file = NamedTempFile::new().unwrap();
        let mut trace = Appender::new(file.reopen().unwrap()).unwrap();
        for (name, records) in actors {
            let ring = Ring::create(1 << 20).unwrap();
            let mut writer = ring.writer();
            records.iter().for_each(|record| writer.write(record));
            let number = trace.add(name).unwrap();
            let mut bytes = Vec::new();
            let taken = ring.reader().take(&mut bytes);
            trace.records(number, taken, &bytes).unwrap();
        }
        file
    }

    #[test]
    fn actors_are_told_of_in_the_order_of_time() {
        let file = written(&[
            ("a", &[Record::Time(5), Record::Reset, Record::Time(9), Record::Paused]),
            ("b", &[Record::Time(7), Record::Resumed]),
        ]);
        let trace = TraceFile::open(file.path()).unwrap();
        assert_eq!(trace.actors().collect::<Vec<_>>(), ["a", "b"]);
        let told: Vec<_> = trace.timeline(|_| true).map(Result::unwrap).collect();
        let told: Vec<_> = told.iter().map(|entry| (entry.time, entry.actor)).collect();
        assert_eq!(told, [(5, "a"), (7, "b"), (9, "a")]);
        assert_eq!(trace.timeline(|name| name == "b").count(), 1);
    }

    #[test]
    fn a_trace_of_somebody_who_was_killed_is_read_as_far_as_it_goes() {
        let file = written(&[("a", &[Record::Time(5), Record::Reset])]);
        let length = file.as_file().metadata().unwrap().len();
        for cut in 1..length - START_BYTES {
            file.as_file().set_len(length - cut).unwrap();
            let trace = TraceFile::open(file.path()).unwrap();
            assert!(trace.is_cut() || trace.actors().len() < 2);
            assert_eq!(trace.timeline(|_| true).count(), 0);
        }
    }

    #[test]
    fn what_is_no_trace_is_refused() {
        let file = NamedTempFile::new().unwrap();
        for bytes in [&b""[..], b"vmmtrace", b"something else altogether"] {
            std::fs::write(file.path(), bytes).unwrap();
            assert!(matches!(TraceFile::open(file.path()), Err(TraceError::Malformed { .. })));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        #[test]
        fn any_bytes_behind_a_beginning_do_no_harm(
            bytes in prop::collection::vec(prop_oneof![Just(0u8), 0u8..4, any::<u8>()], 0..200),
        ) {
            let file = NamedTempFile::new().unwrap();
            let start = [&MAGIC[..], &VERSION.to_le_bytes(), &bytes].concat();
            std::fs::write(file.path(), start).unwrap();
            if let Ok(trace) = TraceFile::open(file.path()) {
                trace.timeline(|_| true).take(1000).for_each(drop);
            }
        }
    }
}
