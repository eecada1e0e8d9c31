//! How much of everything a replay needs, found by a first look at the trace.

use trace::{Event, Record, TraceError, TraceFile};

/// How much room the largest of everything takes.
#[derive(Debug, Default)]
pub(super) struct Extents {
    /// What the device was made of at its beginning.
    pub(super) state: Option<Vec<u8>>,
    /// Bytes of the largest buffer.
    pub(super) buffer: u64,
    /// Queues and the descriptors of the largest.
    pub(super) queues: u16,
    pub(super) queue_size: u16,
}

impl Extents {
    pub(super) fn of(trace: &TraceFile, actor: &str) -> Result<Self, TraceError> {
        let mut extents = Self::default();
        for entry in trace.timeline(|name| name == actor) {
            match entry?.event {
                Event::Did(Record::Made { state }) if extents.state.is_none() => {
                    extents.state = Some(state.into_owned());
                }
                Event::Did(Record::Taken { pieces, .. }) => {
                    let bytes = pieces.iter().map(|piece| u64::from(piece.length)).sum();
                    extents.buffer = extents.buffer.max(bytes);
                }
                Event::Did(Record::Activated { queues, .. }) => {
                    for place in queues.iter() {
                        extents.queues = extents.queues.max(place.index.saturating_add(1));
                        extents.queue_size = extents.queue_size.max(place.size);
                    }
                }
                _ => {}
            }
        }
        Ok(extents)
    }
}
