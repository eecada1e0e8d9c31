//! Looking at what goes through channels: the last messages, for the record of a death or a trace.
//!
//! A tap is a short ring of texts. Any number of channel ends note what passes them into one tap,
//! so that it shows the order among several channels. A message is put into words when it passes,
//! cut to a bounded length; channels that are not tapped pay one look at a pointer.

use std::collections::VecDeque;
use std::fmt::{self, Debug, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Characters kept of one message: the variant and its small fields; data is of no interest here.
const TEXT_BYTES: usize = 160;

/// The last messages of some channels. Clones share them.
#[derive(Clone)]
pub struct Tap {
    ring: Arc<Mutex<Ring>>,
    listener: Option<Arc<Listener>>,
}

/// Hears of each message as it passes, on the thread where that happens. It must not wait.
pub type Listener = dyn Fn(&Record) + Send + Sync;

struct Ring {
    records: VecDeque<Record>,
    capacity: usize,
    passed: u64,
}

/// One message that passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// How many passed the tap before it.
    pub number: u64,
    /// When it passed.
    pub at: Instant,
    /// The name of the channel end.
    pub channel: &'static str,
    /// Its `Debug` form, cut.
    pub text: String,
}

impl Tap {
    /// A tap that keeps the last `capacity` messages, at least one.
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.max(1);
        let records = VecDeque::with_capacity(capacity);
        let ring = Arc::new(Mutex::new(Ring { records, capacity, passed: 0 }));
        Self { ring, listener: None }
    }

    /// The same, and somebody else hears of what passes.
    #[must_use]
    pub fn with_listener(mut self, listener: Arc<Listener>) -> Self {
        self.listener = Some(listener);
        self
    }

    /// What it holds, the oldest first.
    pub fn records(&self) -> Vec<Record> {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.records.iter().cloned().collect()
    }

    fn push(&self, channel: &'static str, text: String) {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        if ring.records.len() == ring.capacity {
            ring.records.pop_front();
        }
        let number = ring.passed;
        ring.passed += 1;
        let record = Record { number, at: Instant::now(), channel, text };
        if let Some(listener) = &self.listener {
            listener(&record);
        }
        ring.records.push_back(record);
    }
}

impl Debug for Tap {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.records()).finish()
    }
}

/// Takes text up to the limit.
struct Cut<'a>(&'a mut String);

impl Write for Cut<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let left = TEXT_BYTES - self.0.len();
        if text.len() <= left {
            self.0.push_str(text);
            return Ok(());
        }
        self.0.push_str(&text[..text.floor_char_boundary(left)]);
        Err(fmt::Error)
    }
}

/// What an end of a channel does with a message that passes.
pub(crate) struct Tapping<T> {
    tap: Tap,
    channel: &'static str,
    /// Knows that `T` has a `Debug` form, which the channel does not ask for.
    describe: fn(&T) -> String,
}

impl<T: Debug> Tapping<T> {
    pub(crate) fn new(tap: &Tap, channel: &'static str) -> Self {
        Self { tap: tap.clone(), channel, describe: describe::<T> }
    }
}

impl<T> Tapping<T> {
    /// Puts a message into words that may be about to pass.
    pub(crate) fn describe(&self, message: &T) -> String {
        (self.describe)(message)
    }

    /// Notes that the message with these words has passed.
    pub(crate) fn note(&self, text: String) {
        self.tap.push(self.channel, text);
    }
}

fn describe<T: Debug>(message: &T) -> String {
    let mut text = String::with_capacity(TEXT_BYTES);
    // It fails to make formatting stop at the limit.
    let _ = write!(Cut(&mut text), "{message:?}");
    text
}
