//! The task of the queue.

use std::cell::RefCell;
use std::rc::Rc;

use fileserver::{Errno, Past};
use p9::wire::{
    HEADER_BYTES, Header, READ_HEADER_BYTES, Reply, Request, WRITE_HEADER_BYTES, WireError,
};
use p9::{Durability, Outcome, Session};
use thiserror::Error;

use super::Shared;
use crate::virtio::file_work::{BATCH, BATCH_BYTES, FileWork, Transfer, errno};
use crate::virtio::queue::{Chain, Completed, GuestBuffers, QueueError, Side, Tag};
use crate::virtio::worker::{
    ActiveQueue, Interrupts, KickError, PacedQueue, Requests, serve_paced,
};

/// The longest message without data: one with two names of any length that a path may have.
const MOST_MESSAGE: usize = 16 << 10;
/// Room for the answer to whatever fails.
const LEAST_ROOM: u32 = HEADER_BYTES as u32 + 4;

/// Why the queue cannot go on.
#[derive(Debug, Error)]
enum Failure {
    #[error(transparent)]
    Queue(#[from] QueueError),
    #[error("chain {head} has no message")]
    NoMessage { head: u16 },
    #[error("chain {head} has no room for an answer")]
    NoRoom { head: u16 },
    #[error(transparent)]
    Kick(#[from] KickError),
}

/// Serve the queue until it is stopped.
pub(super) async fn serve(shared: Rc<Shared>, active: ActiveQueue) -> Vec<ActiveQueue> {
    serve_paced(Server::new(shared, active)).await
}

/// What a message waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Idle,
    Transfer(Side),
    Sync,
}

/// The place of a message while it is in flight.
#[derive(Debug)]
struct Place {
    tag: u16,
    /// The type of its answer.
    answer: u8,
    step: Step,
    /// All that an answer has room in.
    room: GuestBuffers,
    work: FileWork,
    /// Requests to forget it, which are answered after it.
    flushes: Vec<Tag>,
}

struct Server {
    shared: Rc<Shared>,
    session: Rc<RefCell<Session>>,
    paced: PacedQueue,
    /// By head.
    places: Box<[Place]>,
    chain: Chain,
    message: Vec<u8>,
    /// Bytes of what was taken since something was published.
    bytes: u32,
}

impl Server {
    fn new(shared: Rc<Shared>, active: ActiveQueue) -> Self {
        let size = usize::from(active.queue.size());
        let memory = active.memory().clone();
        // Orders may begin anew: what was noted of messages that are over must not be taken for another's.
        for head in (0..active.queue.size()).filter(|head| active.queue.order(*head) == 0) {
            shared.session.borrow().tree().ledger().journal(head.into()).clear();
        }
        let place = |_| Place {
            tag: 0,
            answer: 0,
            step: Step::Idle,
            room: GuestBuffers::new(memory.clone()),
            work: FileWork::new(GuestBuffers::new(memory.clone())),
            flushes: Vec::new(),
        };
        Self {
            paced: PacedQueue::new(active, shared.patience, Rc::default()),
            session: shared.session.clone(),
            shared,
            places: (0..size).map(place).collect(),
            chain: Chain::for_any_buffers(memory.clone(), size),
            message: Vec::new(),
            bytes: 0,
        }
    }

    /// Carry out the message of the chain that was just taken, `again` after a predecessor.
    fn begin(&mut self, again: bool) -> Result<(), Failure> {
        let head = self.chain.head();
        let header: [u8; HEADER_BYTES] =
            self.chain.read_array().ok_or(Failure::NoMessage { head })?;
        if self.chain.writable_bytes() < LEAST_ROOM {
            return Err(Failure::NoRoom { head });
        }
        let header = Header::decode(&header);
        let place = &mut self.places[usize::from(head)];
        place.tag = header.tag;
        place.answer = header.kind.wrapping_add(1);
        place.room.fill(&self.chain, Side::Writable);
        if self.chain.outside().is_some() {
            self.answer(head, Err(Errno::IO));
            return Ok(());
        }
        match self.execute(header, again) {
            Err(errno) => self.answer(head, Err(errno)),
            Ok(Outcome::Done(result)) => self.answer(head, result),
            Ok(Outcome::Value { fid, .. }) => {
                let result = self.session.borrow_mut().take_value(fid, &self.message);
                self.answer(head, result);
            }
            Ok(Outcome::Read { file, offset, count }) => {
                let side = Side::Writable;
                let transfer = Transfer { file, offset, most: count, side, durable: false };
                self.begin_transfer(head, transfer);
            }
            Ok(Outcome::Write { file, offset, count, durable }) => {
                let side = Side::Readable;
                self.begin_transfer(head, Transfer { file, offset, most: count, side, durable });
            }
            Ok(Outcome::Sync { file, how }) => {
                let submitted = match how {
                    Durability::Data => self.paced.ops.fdatasync(&file, head),
                    Durability::All => self.paced.ops.fsync(&file, head),
                };
                submitted.expect("there is room for one operation of each head");
                let place = &mut self.places[usize::from(head)];
                place.work.hold(file);
                place.step = Step::Sync;
                self.paced.slow += 1;
            }
            Ok(Outcome::Flush { tag }) => {
                let runs = |place: &&mut Place| place.step != Step::Idle && place.tag == tag;
                match self.places.iter_mut().find(runs) {
                    Some(place) => place.flushes.push(head),
                    None => self.flushed(head),
                }
            }
        }
        Ok(())
    }

    fn execute(&mut self, header: Header, again: bool) -> Result<Outcome, Errno> {
        // What is behind the fields of a write is data, which stays where it is.
        let is_write = header.kind == Request::Write { fid: 0, offset: 0, count: 0 }.kind();
        let length = if is_write { WRITE_HEADER_BYTES } else { header.size as usize };
        let length = length.checked_sub(HEADER_BYTES).ok_or(Errno::INVAL)?;
        if length > self.chain.readable_bytes() as usize {
            return Err(Errno::INVAL);
        }
        if length > MOST_MESSAGE {
            return Err(Errno::TOOBIG);
        }
        self.message.resize(length, 0);
        let complete = self.chain.read_exact(&mut self.message);
        debug_assert!(complete, "there were so many bytes");
        let mut session = self.session.borrow_mut();
        let request = match Request::decode(header.kind, &self.message) {
            Ok(request) => request,
            Err(WireError::Unknown(_)) => return Err(Errno::OPNOTSUPP),
            Err(WireError::Malformed(_)) => return Err(Errno::INVAL),
        };
        if let Request::Write { count, .. } = request
            && count > self.chain.readable_bytes()
        {
            return Err(Errno::INVAL);
        }
        let room = self.chain.writable_bytes() as usize;
        if !Session::is_noted(&request) {
            let outcome = session.execute(&request, &Past::Nothing, room);
            if let Outcome::Value { count, .. } = outcome {
                // 64 KiB at most, as the session says.
                drop(session);
                self.message.resize(count as usize, 0);
                let complete = self.chain.read_exact(&mut self.message);
                debug_assert!(complete, "there were so many bytes");
            }
            return Ok(outcome);
        }
        let place = usize::from(self.chain.head());
        let order = self.paced.active.queue.order(self.chain.head());
        let journal = session.tree().ledger().journal(place);
        let past = if again { journal.past(order) } else { Past::Nothing };
        if let Past::Done((error, answer)) = &past {
            session.set_answer(answer);
            return Ok(Outcome::Done(match error {
                0 => Ok(()),
                error => Err(Errno::from_raw_os_error(*error)),
            }));
        }
        session.tree().ledger().journal(place).begin(order);
        let outcome = session.execute(&request, &past, room);
        if let Outcome::Done(result) = &outcome {
            let error = result.map_or_else(Errno::raw_os_error, |()| 0);
            let answer = if error == 0 { session.answer() } else { &[] };
            session.tree().ledger().journal(place).done(error, answer);
        }
        Ok(outcome)
    }

    fn begin_transfer(&mut self, head: Tag, transfer: Transfer) {
        let (side, place) = (transfer.side, &mut self.places[usize::from(head)]);
        match place.work.prepare(&self.chain, transfer, READ_HEADER_BYTES as u32) {
            Err(errno) => self.answer(head, Err(errno)),
            Ok(0) => self.transferred(head, side, Ok(0)),
            Ok(bytes) => {
                place.step = Step::Transfer(side);
                self.bytes = self.bytes.saturating_add(bytes);
                place.work.transfer(&mut self.paced, self.shared.strategy, head, side);
            }
        }
    }

    /// All was moved that there is.
    fn transferred(&mut self, head: Tag, side: Side, result: Result<u32, Errno>) {
        match (side, result) {
            (_, Err(errno)) => self.answer(head, Err(errno)),
            // The data is behind the count already.
            (Side::Writable, Ok(moved)) => {
                self.session.borrow_mut().set_answer(&moved.to_le_bytes());
                let kind = self.places[usize::from(head)].answer;
                self.finish(head, kind, READ_HEADER_BYTES as u32 + moved);
            }
            (Side::Readable, Ok(moved)) => {
                self.session.borrow_mut().written(moved);
                self.answer(head, Ok(()));
            }
        }
    }

    /// Answer with what the session has to say, or with an error.
    fn answer(&mut self, head: Tag, result: Result<(), Errno>) {
        let place = &self.places[usize::from(head)];
        let room = place.room.bytes() as usize;
        let mut session = self.session.borrow_mut();
        let length = session.answer().len() + HEADER_BYTES;
        let result = result.and(if length <= room { Ok(()) } else { Err(Errno::RANGE) });
        let (kind, length) = match result {
            Ok(()) => (place.answer, length),
            Err(errno) => {
                let code = errno.raw_os_error() as u32;
                session.set_answer(&code.to_le_bytes());
                (Reply::Lerror { code }.kind(), LEAST_ROOM as usize)
            }
        };
        drop(session);
        self.finish(head, kind, length as u32);
    }

    /// The answer to a request to forget another.
    fn flushed(&mut self, head: Tag) {
        self.session.borrow_mut().set_answer(&[]);
        self.finish(head, Reply::Flush {}.kind(), HEADER_BYTES as u32);
    }

    /// Write header and answer, of so many bytes in all, and give the buffer back.
    fn finish(&mut self, head: Tag, kind: u8, size: u32) {
        let place = &mut self.places[usize::from(head)];
        let header = Header { size, kind, tag: place.tag };
        place.room.copy_from(&header.encode());
        place.room.copy_from_at(HEADER_BYTES, self.session.borrow().answer());
        place.step = Step::Idle;
        place.work.end();
        let flushes = std::mem::take(&mut place.flushes);
        self.paced.give_back(head, size);
        for head in flushes {
            self.flushed(head);
        }
    }
}

impl Requests for Server {
    type Failure = Failure;

    /// A message takes some microseconds of the system's time.
    const ROUNDS: usize = 8;
    const INTERRUPTS: Interrupts = Interrupts::AtOnce;

    fn queue(&mut self) -> &mut PacedQueue {
        &mut self.paced
    }

    fn take(&mut self) -> Result<u16, Failure> {
        let mut taken = 0;
        self.bytes = 0;
        while taken < BATCH && self.bytes < BATCH_BYTES {
            let again = self.paced.is_recovering();
            if !self.paced.pop(&mut self.chain)? {
                break;
            }
            taken += 1;
            self.begin(again)?;
        }
        Ok(taken)
    }

    fn completed(&mut self, Completed { tag: head, result, .. }: Completed) {
        let place = &mut self.places[usize::from(head)];
        match (place.step, &result) {
            (Step::Transfer(side), result) => match place.work.completed(&mut self.paced, result) {
                Some(result) => self.transferred(head, side, result),
                None => place.work.transfer(&mut self.paced, self.shared.strategy, head, side),
            },
            (Step::Sync, result) => {
                self.paced.slow -= 1;
                self.session.borrow_mut().set_answer(&[]);
                let result = result.as_ref().map(|_| ()).map_err(errno);
                self.answer(head, result);
            }
            (Step::Idle, _) => unreachable!("a completion belongs to a message"),
        }
    }

    fn into_queue(self) -> PacedQueue {
        self.paced
    }
}
