//! Entries in words.

use std::fmt;

use devices::virtio::blk::describe_request;
use trace::{Began, Entry, Event, Given, Operation, Piece, Record};

/// Whose entry it is: messages are told of by the program, and belong to others.
pub(super) fn actor<'a>(entry: &'a Entry<'_>) -> &'a str {
    match &entry.event {
        Event::Did(Record::Message { actor, .. }) => actor,
        _ => entry.actor,
    }
}

/// What happened.
pub(super) fn event(entry: &Entry<'_>) -> String {
    match &entry.event {
        Event::Did(record) => did(record, entry.actor),
        Event::Lost(bytes) => format!("{bytes} bytes of what it did are lost"),
    }
}

fn did(record: &Record<'_>, actor: &str) -> String {
    match record {
        Record::Time(_) => String::new(),
        Record::Made { state } => format!("made of {} bytes", state.len()),
        Record::Born => "begins to live".into(),
        Record::Message { channel, text, .. } => format!("{channel}: {text}"),
        Record::Activated { features, queues } => {
            let queue = |place: &trace::QueuePlace| {
                let format = if place.packed { "packed" } else { "split" };
                format!("{} of {} {format}", place.index, place.size)
            };
            let queues: Vec<String> = queues.iter().map(queue).collect();
            format!("activated, features {features:#x}, queues {}", queues.join(", "))
        }
        Record::Reset => "reset".into(),
        Record::Paused => "paused".into(),
        Record::Resumed => "goes on".into(),
        Record::Detached => "detached".into(),
        Record::ConfigWritten { offset, data } => {
            format!("configuration byte {offset} is written: {}", Bytes(data))
        }
        Record::Taken { queue, head, header, pieces, began } => {
            let request = actor.starts_with("blk").then(|| describe_request(header)).flatten();
            let request = request.unwrap_or_else(|| Bytes(header).to_string());
            let began = began.map(|began| format!("; {}", operation(&began))).unwrap_or_default();
            format!("queue {queue}: takes {head}, {}: {request}{began}", shape(pieces))
        }
        Record::Began { queue, head, began } => {
            format!("queue {queue}: {head} goes on; {}", operation(began))
        }
        Record::Ended { queue, head, result } => {
            format!("queue {queue}: of {head} {}", outcome(*result))
        }
        Record::Given(Given { queue, head, result, written, status }) => {
            let result = result.map(|result| format!("{}; ", outcome(result))).unwrap_or_default();
            format!("queue {queue}: {result}gives {head} back, {written} bytes, status {status}")
        }
    }
}

fn operation(began: &Began) -> String {
    let Began { operation, offset, length } = began;
    match operation {
        Operation::Read => format!("reads {length} bytes at {offset}"),
        Operation::Write => format!("writes {length} bytes at {offset}"),
        Operation::Range => format!("frees or zeroes {length} bytes at {offset}"),
        Operation::Sync => "makes durable".into(),
    }
}

fn outcome(result: i32) -> String {
    match result {
        0.. => format!("{result} bytes were moved"),
        error => format!("an operation failed: {}", std::io::Error::from_raw_os_error(-error)),
    }
}

/// How much a buffer holds: `16 in, 4097 out`.
fn shape(pieces: &[Piece]) -> String {
    let sum = |writable| {
        let of = pieces.iter().filter(|piece| piece.writable == writable);
        of.map(|piece| u64::from(piece.length)).sum::<u64>()
    };
    format!("{} in, {} out", sum(false), sum(true))
}

/// Bytes in hexadecimal, four to a word.
struct Bytes<'a>(&'a [u8]);

impl fmt::Display for Bytes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, word) in self.0.chunks(4).enumerate() {
            if index > 0 {
                f.write_str(" ")?;
            }
            word.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        }
        Ok(())
    }
}
