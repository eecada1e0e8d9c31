//! A client on a stream socket: any number of requests one after the other, a few of them under way at a
//! time.
//!
//! ```text
//!   socket ──► input ──► Session::execute ─┬─ done ──────────────────────► output ──► socket
//!              (a message at least)        └─ data ──► running ──► ready ────┘
//! ```
//!
//! What a client can make the server hold is bounded: a message, [`MOST_RUNNING`] requests with their
//! data, and answers that it does not read, of which no more are made then.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::Poll;

use executor::{Fd, IoBuf};
use fileserver::{Errno, Past};

use super::session::{Durability, Outcome, Session};
use crate::wire::{
    HEADER_BYTES, Header, READ_HEADER_BYTES, Reply, Request, WRITE_HEADER_BYTES, WireError,
};

/// Requests of a client that move data at a time.
const MOST_RUNNING: usize = 8;
/// Answers that wait to be written together.
const OUTPUT_BYTES: usize = 64 << 10;
/// What a client's first messages have room in.
const INPUT_BYTES: usize = 16 << 10;
/// Messages that are looked at before other clients have their turn.
const BATCH: usize = 64;
/// Requests to forget one that runs, which wait for its end.
const MOST_FLUSHES: usize = 8;

/// Why a client is cut off.
#[derive(Debug, thiserror::Error)]
pub(super) enum CutOff {
    #[error("it sends a message of {0} bytes")]
    Size(u32),
    #[error("the connection fails: {0}")]
    Socket(#[from] io::Error),
}

/// A message as bytes.
type Message = Vec<u8>;

/// A read of the socket, with its buffer.
type Reading = Pin<Box<dyn Future<Output = (io::Result<usize>, Vec<u8>)>>>;

/// A request whose data is on its way.
struct Running {
    tag: u16,
    /// Requests to forget it, which are answered after it.
    flushes: Vec<u16>,
    answer: Pin<Box<dyn Future<Output = Message>>>,
}

/// What keeps the next message from being looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// Not all of it is there.
    Missing,
    /// Something that is there has to be done before.
    Waits,
}

enum Event {
    Received(io::Result<usize>, Vec<u8>),
    /// Of those that run, the one with this index.
    Finished(usize, Message),
}

/// One client.
pub(super) struct Connection {
    socket: Fd,
    session: Session,
    /// What was received and not yet looked at.
    input: Vec<u8>,
    /// Answers without data.
    output: Vec<u8>,
    running: Vec<Running>,
    /// Buffers that can be used again.
    spare: Vec<Message>,
}

impl Connection {
    pub(super) fn new(socket: Fd, session: Session) -> Self {
        let input = Vec::with_capacity(INPUT_BYTES);
        let (output, running, spare) = (Vec::new(), Vec::new(), Vec::new());
        Self { socket, session, input, output, running, spare }
    }

    /// Serves the client until it hangs up.
    pub(super) async fn serve(&mut self) -> Result<(), CutOff> {
        let mut reading: Option<Reading> = None;
        loop {
            let next = if reading.is_none() { self.take()? } else { Next::Missing };
            if !self.output.is_empty() {
                let output = std::mem::take(&mut self.output);
                self.output = self.send(output).await?;
                if next == Next::Waits {
                    continue;
                }
            }
            if reading.is_none() && next == Next::Missing {
                reading = Some(self.read());
            }
            match self.wait(&mut reading).await {
                Event::Received(length, input) => {
                    self.input = input;
                    reading = None;
                    if length? == 0 {
                        return Ok(());
                    }
                }
                Event::Finished(index, message) => {
                    let finished = self.running.swap_remove(index);
                    let message = self.send(message).await?;
                    self.spare.push(message);
                    for tag in finished.flushes {
                        self.put(&Reply::Flush {}, tag);
                    }
                }
            }
        }
    }

    /// Looks at what was received, as far as that goes.
    fn take(&mut self) -> Result<Next, CutOff> {
        let mut input = std::mem::take(&mut self.input);
        let mut at = 0;
        let mut missing = HEADER_BYTES;
        let mut taken = 0;
        let next = loop {
            let full = self.running.len() >= MOST_RUNNING || self.output.len() >= OUTPUT_BYTES;
            if full || taken == BATCH {
                break Next::Waits;
            }
            let Some(header) = input[at..].first_chunk().map(Header::decode) else {
                break Next::Missing;
            };
            let size = header.size as usize;
            if size < HEADER_BYTES || header.size > self.session.msize() {
                return Err(CutOff::Size(header.size));
            }
            let Some(message) = input.get(at..at + size) else {
                missing = size;
                break Next::Missing;
            };
            let request = Request::decode(header.kind, &message[HEADER_BYTES..]);
            if request.as_ref().is_ok_and(|request| self.has_to_wait(request)) {
                break Next::Waits;
            }
            at += size;
            taken += 1;
            self.begin(header.tag, &request, message);
        };
        input.drain(..at);
        input.reserve(missing.saturating_sub(input.len()).max(1));
        self.input = input;
        Ok(next)
    }

    fn has_to_wait(&self, request: &Request<'_>) -> bool {
        match request {
            // Ends all that was.
            Request::Version { .. } => !self.running.is_empty(),
            Request::Flush { tag } => {
                self.running.iter().any(|one| one.tag == *tag && one.flushes.len() >= MOST_FLUSHES)
            }
            _ => false,
        }
    }

    /// Carries out a request, or begins to.
    fn begin(&mut self, tag: u16, request: &Result<Request<'_>, WireError>, message: &[u8]) {
        let request = match request {
            Ok(request) => request,
            Err(WireError::Unknown(_)) => return self.fail(Errno::OPNOTSUPP, tag),
            Err(WireError::Malformed(_)) => return self.fail(Errno::INVAL, tag),
        };
        let data = message.get(WRITE_HEADER_BYTES..).unwrap_or_default();
        if let Request::Write { count, .. } = request
            && *count as usize != data.len()
        {
            return self.fail(Errno::INVAL, tag);
        }
        match self.session.execute(request, &Past::Nothing, usize::MAX) {
            Outcome::Done(result) => self.done(result, request.kind() + 1, tag),
            Outcome::Value { fid, .. } => {
                let result = self.session.take_value(fid, data);
                self.done(result, request.kind() + 1, tag);
            }
            Outcome::Flush { tag: old } => {
                match self.running.iter_mut().find(|running| running.tag == old) {
                    Some(running) => running.flushes.push(tag),
                    None => self.put(&Reply::Flush {}, tag),
                }
            }
            Outcome::Read { file, offset, count } => {
                let buffer = self.buffer();
                self.run(tag, read(file, offset, count as usize, tag, buffer));
            }
            Outcome::Write { file, offset, .. } => {
                let mut buffer = self.buffer();
                buffer.extend_from_slice(data);
                self.run(tag, write(file, offset, tag, buffer));
            }
            Outcome::Sync { file, how } => {
                let buffer = self.buffer();
                self.run(tag, sync(file, how, tag, buffer));
            }
        }
    }

    fn run(&mut self, tag: u16, answer: impl Future<Output = Message> + 'static) {
        self.running.push(Running { tag, flushes: Vec::new(), answer: Box::pin(answer) });
    }

    fn buffer(&mut self) -> Message {
        let mut buffer = self.spare.pop().unwrap_or_default();
        buffer.clear();
        buffer
    }

    fn done(&mut self, result: fileserver::Result<()>, kind: u8, tag: u16) {
        match result {
            Ok(()) => {
                let answer = self.session.answer();
                let size = (HEADER_BYTES + answer.len()) as u32;
                self.output.extend(Header { size, kind, tag }.encode());
                self.output.extend(answer);
            }
            Err(errno) => self.fail(errno, tag),
        }
    }

    fn fail(&mut self, errno: Errno, tag: u16) {
        self.put(&error(errno), tag);
    }

    fn put(&mut self, reply: &Reply<'_>, tag: u16) {
        self.output.extend(reply.encode(tag, &[]));
    }

    fn read(&mut self) -> Reading {
        let (socket, input) = (self.socket.clone(), std::mem::take(&mut self.input));
        Box::pin(async move {
            let end = input.len();
            let (length, input) = socket.read(input.slice(end..)).await;
            (length, input.into_inner())
        })
    }

    /// Sends all of a message, and gives its buffer back.
    async fn send(&self, mut message: Message) -> io::Result<Message> {
        let mut sent = 0;
        while sent < message.len() {
            let (length, rest) = self.socket.write(message.slice(sent..)).await;
            message = rest.into_inner();
            match length {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(length) => sent += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        message.clear();
        Ok(message)
    }

    /// Waits for the next message, or the end of something that runs.
    async fn wait(&mut self, reading: &mut Option<Reading>) -> Event {
        poll_fn(|context| {
            for (index, running) in self.running.iter_mut().enumerate() {
                if let Poll::Ready(message) = running.answer.as_mut().poll(context) {
                    return Poll::Ready(Event::Finished(index, message));
                }
            }
            match reading {
                Some(reading) => {
                    let received = reading.as_mut().poll(context);
                    received.map(|(length, input)| Event::Received(length, input))
                }
                None => Poll::Pending,
            }
        })
        .await
    }
}

fn error(errno: Errno) -> Reply<'static> {
    Reply::Lerror { code: errno.raw_os_error() as u32 }
}

/// An answer in a buffer that is there already.
fn answer(reply: &Reply<'_>, tag: u16, mut buffer: Message) -> Message {
    buffer.clear();
    buffer.extend([0; HEADER_BYTES]);
    reply.write(&mut buffer);
    let header = Header { size: buffer.len() as u32, kind: reply.kind(), tag };
    buffer[..HEADER_BYTES].copy_from_slice(&header.encode());
    buffer
}

fn failure(failed: &io::Error, tag: u16, buffer: Message) -> Message {
    answer(&error(Errno::from_io_error(failed).unwrap_or(Errno::IO)), tag, buffer)
}

/// Reads until all is there or there is no more.
async fn read(file: Fd, offset: u64, count: usize, tag: u16, mut buffer: Message) -> Message {
    buffer.resize(READ_HEADER_BYTES, 0);
    buffer.reserve(count);
    let mut done = 0;
    while done < count {
        let part = buffer.slice(READ_HEADER_BYTES + done..READ_HEADER_BYTES + count);
        let (length, part) = file.read_at(part, offset + done as u64).await;
        buffer = part.into_inner();
        match length {
            Ok(0) => break,
            Ok(length) => done += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if done == 0 => return failure(&error, tag, buffer),
            Err(_) => break,
        }
    }
    let reply = Reply::Read { count: done as u32 };
    let header = Header { size: buffer.len() as u32, kind: reply.kind(), tag };
    buffer[..HEADER_BYTES].copy_from_slice(&header.encode());
    buffer[HEADER_BYTES..READ_HEADER_BYTES].copy_from_slice(&(done as u32).to_le_bytes());
    buffer
}

/// Writes all of the buffer.
async fn write(file: Fd, offset: u64, tag: u16, mut buffer: Message) -> Message {
    let mut done = 0;
    while done < buffer.len() {
        let (length, part) = file.write_at(buffer.slice(done..), offset + done as u64).await;
        buffer = part.into_inner();
        match length {
            Ok(0) => break,
            Ok(length) => done += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if done == 0 => return failure(&error, tag, buffer),
            Err(_) => break,
        }
    }
    answer(&Reply::Write { count: done as u32 }, tag, buffer)
}

async fn sync(file: Fd, how: Durability, tag: u16, buffer: Message) -> Message {
    let synced = match how {
        Durability::Data => file.fdatasync().await,
        Durability::All => file.fsync().await,
    };
    match synced {
        Ok(()) => answer(&Reply::Fsync {}, tag, buffer),
        Err(error) => failure(&error, tag, buffer),
    }
}
