//! The cable between the serial device, on vCPU threads, and the host's end, on an executor.

use std::future::poll_fn;
use std::mem;
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Poll, Waker};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

/// What a line holds before its sender has to wait: more than a guest prints in one go.
const CAPACITY_BYTES: usize = 64 << 10;

/// Enough for a write of its own: senders that gather by themselves send as much.
const BATCH_BYTES: usize = 16 << 10;

/// What more fits when the reader's own thread sends, which it does with what a device has gathered.
const RESERVE_BYTES: usize = 16 << 10;

/// How long a sender waits for a reader. A reader that takes longer has stalled, and a guest must
/// not stand still for ever because nobody looks at its console.
const PATIENCE: Duration = Duration::from_secs(1);

/// Bytes on their way from the guest, and the news that the guest can take more.
#[derive(Debug, Default)]
pub struct Line {
    state: Mutex<State>,
    /// There is space on the line.
    space: Condvar,
    /// The thread of the executor that empties the line: it must not wait for itself.
    reader: OnceLock<ThreadId>,
}

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    flow: Flow,
    /// The output task, while it waits for bytes.
    output: Option<Waker>,
    /// Who waits for an empty line.
    sender: Option<Waker>,
    /// The device has had room since the input task looked last.
    room: bool,
    /// The input task, while it waits for room.
    input: Option<Waker>,
    /// Bytes that nobody took in time.
    lost: u64,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Flow {
    /// The reader keeps up, or nobody knows yet.
    #[default]
    Moving,
    /// The reader let a sender wait in vain; nobody waits for it until it reads again.
    Stalled,
    /// The machine has ended.
    Closed,
}

impl Line {
    /// Takes the guest's bytes. On a full line it waits a bounded time for the reader.
    pub fn send(&self, bytes: &[u8]) {
        let is_reader = self.reader.get() == Some(&thread::current().id());
        let capacity = if is_reader { CAPACITY_BYTES + RESERVE_BYTES } else { CAPACITY_BYTES };
        let mut state = self.lock();
        let mut rest = bytes;
        let mut deadline = None;
        loop {
            let taken = rest.len().min(capacity.saturating_sub(state.bytes.len()));
            state.bytes.extend_from_slice(&rest[..taken]);
            rest = &rest[taken..];
            // The reader waits for the first byte only; more come along in the same batch.
            if let Some(output) = state.output.take() {
                output.wake();
            }
            if rest.is_empty() {
                return;
            }
            if is_reader {
                state.lost += rest.len() as u64;
                return;
            }
            let deadline = *deadline.get_or_insert_with(|| Instant::now() + PATIENCE);
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() && state.flow == Flow::Moving {
                state.flow = Flow::Stalled;
            }
            if state.flow != Flow::Moving {
                state.lost += rest.len() as u64;
                return;
            }
            let waited = self.space.wait_timeout(state, left);
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The device has room for input again.
    pub fn has_room(&self) {
        let mut state = self.lock();
        state.room = true;
        if let Some(input) = state.input.take() {
            input.wake();
        }
    }

    /// The current thread empties the line from now on.
    pub(super) fn read_here(&self) {
        // A line is connected once.
        let _ = self.reader.set(thread::current().id());
    }

    /// Nothing more will be sent.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.flow = Flow::Closed;
        if let Some(output) = state.output.take() {
            output.wake();
        }
    }

    /// How many bytes nobody took in time.
    pub(super) fn lost(&self) -> u64 {
        self.lock().lost
    }

    /// Waits until there are bytes or the line is closed.
    pub(super) async fn ready(&self) {
        self.wait(|state| !state.bytes.is_empty() || state.flow == Flow::Closed).await;
    }

    /// Waits until the line is closed or has a batch, so that waiting for a larger one is no use.
    pub(super) async fn urgent(&self) {
        self.wait(|state| state.bytes.len() >= BATCH_BYTES || state.flow == Flow::Closed).await;
    }

    /// Takes all bytes and leaves an empty buffer in their place. None: closed and empty.
    pub(super) fn take(&self, empty: Vec<u8>) -> Option<Vec<u8>> {
        let mut state = self.lock();
        if state.bytes.is_empty() && state.flow == Flow::Closed {
            return None;
        }
        if state.flow == Flow::Stalled {
            state.flow = Flow::Moving;
        }
        self.space.notify_all();
        if let Some(sender) = state.sender.take() {
            sender.wake();
        }
        Some(mem::replace(&mut state.bytes, empty))
    }

    /// Waits until all that was sent is taken: for a sender on the reader's own thread, which must
    /// not lose anything and must not block.
    pub(super) async fn emptied(&self) {
        poll_fn(|context| {
            let mut state = self.lock();
            if state.bytes.is_empty() {
                return Poll::Ready(());
            }
            state.sender = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Waits until the device had room since the last call.
    pub(super) async fn room(&self) {
        poll_fn(|context| {
            let mut state = self.lock();
            if mem::take(&mut state.room) {
                return Poll::Ready(());
            }
            state.input = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    async fn wait(&self, done: impl Fn(&State) -> bool) {
        poll_fn(|context| {
            let mut state = self.lock();
            if done(&state) {
                return Poll::Ready(());
            }
            state.output = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// A thread that panicked left whole bytes behind.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
