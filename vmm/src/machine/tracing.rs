//! Writes down what the machine's actors do: a [`trace::TraceFile`].
//!
//! ```text
//!   device's process ──► its ring ─┐
//!   channels of this process ──────┴► "vmm"'s ring ──► a thread, twenty times a second ──► file
//! ```
//!
//! With `last=SIZE` the rings are so large and nothing is written before the end. An actor never waits
//! for this: what the thread does not take in time is lost, and the trace says how much.

use std::borrow::Cow;
use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use ipc::{Listener, Message, Receiver, Sender, Tap};
use trace::{Appender, Reader, Record, Ring, Writer};

use super::Error;
use crate::config::{MemorySize, TraceConfig};

/// How often what is there is taken. A disk at its fastest fills a quarter of its ring meanwhile.
const INTERVAL: Duration = Duration::from_millis(50);
/// Memory of an actor's ring: no more, because it goes through the caches of the processor that writes, again and again.
const RING_BYTES: u64 = 2 << 20;
/// Messages that a tap keeps for itself.
const TAP_CAPACITY: usize = 1;

/// The way into the trace, if there is one.
#[derive(Debug, Clone, Default)]
pub(super) struct Tracer(Option<Arc<Shared>>);

#[derive(Debug)]
struct Shared {
    ring_bytes: u64,
    state: Mutex<State>,
    /// What passes channels of this process.
    messages: Mutex<Writer>,
    over: AtomicBool,
}

#[derive(Debug)]
struct State {
    path: PathBuf,
    out: Appender<BufWriter<File>>,
    rings: Vec<(u16, Reader)>,
    /// Nothing more is written.
    failed: bool,
    bytes: Vec<u8>,
}

impl Tracer {
    /// Memory for an actor to write into. None without a trace.
    pub(super) fn ring(&self, actor: &str) -> io::Result<Option<Ring>> {
        let Some(shared) = &self.0 else { return Ok(None) };
        let ring = Ring::create(shared.ring_bytes)?;
        let mut state = lock(&shared.state);
        let number = state.out.add(actor)?;
        state.rings.push((number, ring.reader()));
        Ok(Some(ring))
    }

    /// Who hears of messages of an actor's channels. None without a trace.
    pub(super) fn listener(&self, actor: &str) -> Option<Arc<Listener>> {
        let shared = Arc::clone(self.0.as_ref()?);
        let actor = actor.to_owned();
        Some(Arc::new(move |record: &ipc::Record| {
            let mut writer = lock(&shared.messages);
            writer.at(executor::now().as_nanos());
            writer.write(&Record::Message {
                actor: Cow::Borrowed(&actor),
                channel: record.channel.into(),
                text: Cow::Borrowed(&record.text),
            });
        }))
    }

    /// A channel whose messages are written down, if there is a trace.
    pub(super) fn channel<T: Message + fmt::Debug>(
        &self,
        capacity: usize,
        actor: &str,
        channel: &'static str,
    ) -> (Sender<T>, Receiver<T>) {
        let (sender, receiver) = ipc::channel(capacity);
        (self.sender(sender, actor, channel), receiver)
    }

    /// A sender whose messages are written down, if there is a trace.
    pub(super) fn sender<T: Message + fmt::Debug>(
        &self,
        sender: Sender<T>,
        actor: &str,
        channel: &'static str,
    ) -> Sender<T> {
        match self.listener(actor) {
            Some(listener) => {
                sender.tapped(&Tap::new(TAP_CAPACITY).with_listener(listener), channel)
            }
            None => sender,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A trace that is being written.
#[derive(Debug)]
pub(super) struct Tracing {
    tracer: Tracer,
    thread: Option<JoinHandle<()>>,
}

impl Tracing {
    /// Begins, if somebody wants it.
    pub(super) fn start(config: Option<&TraceConfig>) -> Result<Self, Error> {
        let Some(config) = config else {
            return Ok(Self { tracer: Tracer::default(), thread: None });
        };
        let begin = || {
            // It tells what a guest does: that is nobody else's business.
            let mut options = File::options();
            let file = options.write(true).create(true).truncate(true).mode(0o600);
            let mut out = Appender::new(BufWriter::new(file.open(&config.path)?))?;
            let ring_bytes = config.last.map_or(RING_BYTES, MemorySize::bytes);
            let ring = Ring::create(ring_bytes)?;
            let rings = vec![(out.add("vmm")?, ring.reader())];
            let (path, bytes) = (config.path.clone(), Vec::new());
            let state = State { path, out, rings, failed: false, bytes };
            let messages = Mutex::new(ring.writer());
            let over = AtomicBool::new(false);
            Ok(Arc::new(Shared { ring_bytes, state: Mutex::new(state), messages, over }))
        };
        let shared =
            begin().map_err(|source| Error::Trace { path: config.path.clone(), source })?;
        let thread = match config.last {
            None => {
                let shared = Arc::clone(&shared);
                let thread = std::thread::Builder::new().name("trace".into());
                let thread = thread.spawn(move || take_until_over(&shared));
                Some(thread.map_err(Error::host("start the thread of the trace"))?)
            }
            Some(_) => None,
        };
        Ok(Self { tracer: Tracer(Some(shared)), thread })
    }

    pub(super) fn tracer(&self) -> &Tracer {
        &self.tracer
    }

    /// Writes what is left. Nobody does anything any more.
    pub(super) fn finish(self) {
        let Some(shared) = self.tracer.0 else { return };
        shared.over.store(true, Ordering::Release);
        if let Some(thread) = self.thread {
            thread.thread().unpark();
            if thread.join().is_err() {
                log::error!("the thread of the trace panicked");
            }
        }
        lock(&shared.state).take();
    }
}

fn take_until_over(shared: &Shared) {
    while !shared.over.load(Ordering::Acquire) {
        std::thread::park_timeout(INTERVAL);
        lock(&shared.state).take();
    }
}

impl State {
    /// Takes what is in the rings. When the file cannot be written the machine goes on without it.
    fn take(&mut self) {
        let Self { path, out, rings, failed, bytes } = self;
        if *failed {
            return;
        }
        let mut take = || {
            for (number, reader) in rings.iter_mut() {
                bytes.clear();
                let taken = reader.take(bytes);
                out.records(*number, taken, bytes)?;
            }
            out.flush()
        };
        if let Err(error) = take() {
            *failed = true;
            log::error!("the trace ends here, {} cannot be written: {error}", path.display());
        }
    }
}
