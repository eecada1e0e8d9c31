//! Operations that report many events.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use rustix::event::PollFlags;

use super::future::Submission;
use super::kinds::Read;
use super::slots::{State, StreamState, Token};
use super::{CURRENT_POSITION, Operation, poll_flags};
use crate::fd::Fd;
use crate::task::group::Abandoned;
use crate::task::waker::LocalWaker;

/// Events of one file; see [`Fd::poll_stream`].
pub struct PollStream {
    file: Fd,
    operation: Operation,
    token: Option<Token>,
}

impl PollStream {
    pub(crate) fn new(file: &Fd, flags: PollFlags) -> Self {
        let multishot = file.inner.core.driver().has_multishot_poll();
        let operation =
            if multishot { Operation::PollMultishot { flags } } else { Operation::Poll { flags } };
        PollStream { file: file.clone(), operation, token: None }
    }

    /// The flags that have come up since the last call; waits for some if there are none.
    pub async fn next(&mut self) -> io::Result<PollFlags> {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// [`next`](Self::next) for hand-written futures.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<io::Result<PollFlags>> {
        let core = &self.file.inner.core;
        let Some(token) = self.token else {
            let waker = Some(LocalWaker::new(context.waker(), core));
            let state = State::Stream(StreamState { armed: true, waker, ..StreamState::default() });
            self.token = Some(core.submit(&self.file.inner, self.operation, state));
            return Poll::Pending;
        };
        let mut slots = core.slots.borrow_mut();
        let Some(State::Stream(stream)) = slots.get(token).map(|slot| &mut slot.state) else {
            unreachable!("the slot of a stream belongs to it until it is dropped");
        };
        if let Some(event) = stream.take() {
            return Poll::Ready(event);
        }
        let previous = LocalWaker::store(&mut stream.waker, context.waker(), core);
        let armed = stream.armed;
        drop(slots);
        drop(previous);
        if !armed {
            // One-shot, or the kernel ended it. Arming it looks at the state of the file, so
            // nothing is missed.
            core.resubmit(token, &self.file.inner, self.operation);
        }
        Poll::Pending
    }

    /// The flags that have come up, if there are any; never waits. Looks only at what earlier
    /// turns have brought up.
    pub fn try_next(&mut self) -> Option<io::Result<PollFlags>> {
        let token = self.token?;
        let mut slots = self.file.inner.core.slots.borrow_mut();
        match slots.get(token).map(|slot| &mut slot.state) {
            Some(State::Stream(stream)) => stream.take(),
            _ => None,
        }
    }
}

impl StreamState {
    fn take(&mut self) -> Option<io::Result<PollFlags>> {
        if self.ready != 0 {
            let flags = std::mem::take(&mut self.ready);
            return Some(Ok(poll_flags(flags)));
        }
        let error = std::mem::take(&mut self.error);
        (error != 0).then(|| Err(io::Error::from_raw_os_error(-error)))
    }
}

impl Drop for PollStream {
    fn drop(&mut self) {
        let Some(token) = self.token else {
            return;
        };
        let core = &self.file.inner.core;
        let mut slots = core.slots.borrow_mut();
        let Some(slot) = slots.get(token) else {
            return;
        };
        let armed = matches!(&slot.state, State::Stream(stream) if stream.armed);
        if !armed {
            slots.free(token);
            return;
        }
        let state = State::Abandoned { storage: None, group: Abandoned::of_current_task(core) };
        let previous = std::mem::replace(&mut slot.state, state);
        drop(slots);
        drop(previous);
        core.cancel(token, &self.file.inner);
    }
}

impl std::fmt::Debug for PollStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PollStream").field("file", &self.file).finish_non_exhaustive()
    }
}

/// Wake-ups through an eventfd; see [`Fd::notifications`].
#[derive(Debug)]
pub struct Notifications {
    source: Source,
}

enum Source {
    /// Each write to the eventfd is an edge, whatever the counter says.
    Edges(PollStream),
    /// Without multishot poll only emptying the counter makes the next write noticeable.
    Reads { file: Fd, read: Option<Submission<Read<Box<[u8; 8]>>>> },
}

impl Notifications {
    pub(crate) fn new(file: &Fd) -> Self {
        let source = if file.inner.core.driver().has_multishot_poll() {
            Source::Edges(file.poll_stream(PollFlags::IN))
        } else {
            Source::Reads { file: file.clone(), read: None }
        };
        Notifications { source }
    }

    /// Waits until the eventfd was written since the last call. May return once without reason at
    /// the beginning, when the counter is not zero.
    pub async fn next(&mut self) -> io::Result<()> {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// [`next`](Self::next) for hand-written futures.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.source {
            Source::Edges(stream) => stream.poll_next(context).map_ok(drop),
            Source::Reads { file, read } => {
                let read = read.get_or_insert_with(|| {
                    let kind = Read { buffer: Box::new([0; 8]), offset: CURRENT_POSITION };
                    Submission::new(&file.inner, kind)
                });
                let Poll::Ready((result, _)) = Pin::new(read).poll(context) else {
                    return Poll::Pending;
                };
                if let Source::Reads { read, .. } = &mut self.source {
                    *read = None;
                }
                Poll::Ready(result.map(drop))
            }
        }
    }
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Source::Edges(_) => f.write_str("Edges"),
            Source::Reads { .. } => f.write_str("Reads"),
        }
    }
}
