//! The task of one queue.

use std::cell::RefCell;
use std::rc::Rc;

use executor::Fd;
use fileserver::{Errno, Past};
use thiserror::Error;
use zerocopy::IntoBytes;

use super::protocol::{InHeader, Opcode, OutHeader, TransferIn, WriteOut};
use super::request::{MOST_ARGUMENTS, Request};
use super::session::{Durability, Outcome, Session};
use super::{QUEUE_SIZE, Shared};
use crate::virtio::file_work::{BATCH, BATCH_BYTES, FileWork, Transfer, errno};
use crate::virtio::queue::{Chain, Completed, GuestBuffers, NoRoom, QueueError, Side, Tag};
use crate::virtio::worker::{
    ActiveQueue, Interrupts, KickError, PacedQueue, Requests, serve_paced,
};

const OUT_HEADER: u32 = size_of::<OutHeader>() as u32;

/// Why a queue cannot go on.
#[derive(Debug, Error)]
enum Failure {
    #[error(transparent)]
    Queue(#[from] QueueError),
    #[error("chain {head} has no header of a request")]
    NoHeader { head: u16 },
    #[error("chain {head} has no room for an answer")]
    NoRoom { head: u16 },
    #[error(transparent)]
    Kick(#[from] KickError),
}

/// Serve one queue until it is stopped.
pub(super) async fn serve(shared: Rc<Shared>, active: ActiveQueue) -> Vec<ActiveQueue> {
    serve_paced(Server::new(shared, active)).await
}

/// What a request waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Idle,
    Transfer(Side),
    /// An operation without data.
    Other,
}

/// The place of a request while it is in flight.
#[derive(Debug)]
struct Place {
    unique: u64,
    step: Step,
    /// All that an answer has room in.
    room: GuestBuffers,
    work: FileWork,
}

struct Server {
    shared: Rc<Shared>,
    session: Rc<RefCell<Session>>,
    paced: PacedQueue,
    /// By head.
    places: Box<[Place]>,
    chain: Chain,
    arguments: Vec<u8>,
    /// Bytes of what was taken since something was published.
    bytes: u32,
}

impl Server {
    fn new(shared: Rc<Shared>, active: ActiveQueue) -> Self {
        let size = usize::from(active.queue.size());
        let memory = active.memory().clone();
        let place = |_| Place {
            unique: 0,
            step: Step::Idle,
            room: GuestBuffers::new(memory.clone()),
            work: FileWork::new(GuestBuffers::new(memory.clone())),
        };
        Self {
            paced: PacedQueue::new(active, shared.patience, Rc::default()),
            session: shared.session.clone(),
            shared,
            places: (0..size).map(place).collect(),
            chain: Chain::for_any_buffers(memory.clone(), size),
            arguments: Vec::new(),
            bytes: 0,
        }
    }

    /// Carry out the request of the chain that was just taken, `again` after a predecessor.
    fn begin(&mut self, again: bool) -> Result<(), Failure> {
        let head = self.chain.head();
        let header: [u8; size_of::<InHeader>()] =
            self.chain.read_array().ok_or(Failure::NoHeader { head })?;
        let header: InHeader = zerocopy::transmute!(header);
        let answered = Request::is_answered(header.opcode);
        if answered && self.chain.writable_bytes() < OUT_HEADER {
            return Err(Failure::NoRoom { head });
        }
        let place = &mut self.places[usize::from(head)];
        place.unique = header.unique;
        place.room.fill(&self.chain, Side::Writable);
        let outcome = match self.chain.outside() {
            Some(_) => Outcome::Done(Err(Errno::IO)),
            None => self.execute(&header, again),
        };
        match outcome {
            Outcome::Done(result) if answered => self.answer(head, result),
            Outcome::Done(_) => self.give_back(head, 0),
            Outcome::Transfer { file, offset, size, side, durable } => {
                let transfer = Transfer { file, offset, most: size, side, durable };
                self.begin_transfer(head, transfer);
            }
            Outcome::Sync { file, how } => {
                let submitted = match how {
                    Durability::Data => self.paced.ops.fdatasync(&file, head),
                    Durability::All => self.paced.ops.fsync(&file, head),
                };
                self.begun(head, file, submitted);
            }
            Outcome::Allocate { file, mode, offset, length } => {
                let submitted = self.paced.ops.fallocate(&file, mode, offset, length, head);
                self.begun(head, file, submitted);
            }
        }
        Ok(())
    }

    fn execute(&mut self, header: &InHeader, again: bool) -> Outcome {
        // What is behind the arguments of a write is data, which stays where it is.
        let length = if header.opcode == Opcode::Write as u32 {
            size_of::<TransferIn>().min(self.chain.readable_bytes() as usize)
        } else {
            self.chain.readable_bytes() as usize
        };
        if length > MOST_ARGUMENTS {
            return Outcome::Done(Err(Errno::TOOBIG));
        }
        self.arguments.resize(length, 0);
        let complete = self.chain.read_exact(&mut self.arguments);
        debug_assert!(complete, "there were so many bytes");
        let mut session = self.session.borrow_mut();
        let session = &mut *session;
        session.reply.clear();
        let request = match Request::decode(header, &self.arguments) {
            Ok(request) => request,
            Err(errno) => return Outcome::Done(Err(errno)),
        };
        let room = self.chain.writable_bytes().saturating_sub(OUT_HEADER) as usize;
        if !request.is_noted() {
            return session.execute(header, &request, &Past::Nothing, room);
        }
        let place = usize::from(self.paced.active.index()) * usize::from(QUEUE_SIZE)
            + usize::from(self.chain.head());
        let past = if again {
            session.tree.ledger().journal(place).past(header.unique)
        } else {
            Past::Nothing
        };
        if let Past::Done(answer) = &past {
            return replay(session, answer);
        }
        session.tree.ledger().journal(place).begin(header.unique);
        let outcome = session.execute(header, &request, &past, room);
        if let Outcome::Done(result) = &outcome {
            let error = result.map_or_else(Errno::raw_os_error, |()| 0);
            let reply = if error == 0 { &session.reply[..] } else { &[] };
            session.tree.ledger().journal(place).done(error, reply);
        }
        outcome
    }

    fn begin_transfer(&mut self, head: Tag, transfer: Transfer) {
        let (side, place) = (transfer.side, &mut self.places[usize::from(head)]);
        match place.work.prepare(&self.chain, transfer, OUT_HEADER) {
            Err(errno) => self.answer(head, Err(errno)),
            Ok(0) => self.transferred(head, side, Ok(0)),
            Ok(bytes) => {
                place.step = Step::Transfer(side);
                self.bytes = self.bytes.saturating_add(bytes);
                place.work.transfer(&mut self.paced, self.shared.strategy, head, side);
            }
        }
    }

    fn begun(&mut self, head: Tag, file: Fd, submitted: Result<(), NoRoom>) {
        submitted.expect("there is room for one operation of each head");
        let place = &mut self.places[usize::from(head)];
        place.work.hold(file);
        place.step = Step::Other;
        self.paced.slow += 1;
    }

    /// All was moved that there is.
    fn transferred(&mut self, head: Tag, side: Side, result: Result<u32, Errno>) {
        self.session.borrow_mut().reply.clear();
        match (side, result) {
            (_, Err(errno)) => self.answer(head, Err(errno)),
            (Side::Writable, Ok(moved)) => self.finish(head, 0, moved),
            (Side::Readable, Ok(moved)) => {
                self.session.borrow_mut().answer(&WriteOut { size: moved, padding: 0 });
                self.answer(head, Ok(()));
            }
        }
    }

    /// Answer with the session's reply, or with an error.
    fn answer(&mut self, head: Tag, result: Result<(), Errno>) {
        let session = self.session.clone();
        let session = session.borrow();
        let place = &self.places[usize::from(head)];
        let fits = session.reply.len() as u64 + u64::from(OUT_HEADER) <= place.room.bytes().into();
        match result {
            Ok(()) if fits => {
                place.room.copy_from_at(OUT_HEADER as usize, &session.reply);
                self.finish(head, 0, session.reply.len() as u32);
            }
            Ok(()) => self.finish(head, Errno::RANGE.raw_os_error(), 0),
            Err(errno) => self.finish(head, errno.raw_os_error(), 0),
        }
    }

    /// Write the header of an answer of so many bytes and give the buffer back.
    fn finish(&mut self, head: Tag, error: i32, bytes: u32) {
        let place = &mut self.places[usize::from(head)];
        let length = OUT_HEADER + bytes;
        let header = OutHeader { length, error: -error, unique: place.unique };
        place.room.copy_from(header.as_bytes());
        self.give_back(head, length);
    }

    fn give_back(&mut self, head: Tag, written: u32) {
        let place = &mut self.places[usize::from(head)];
        place.step = Step::Idle;
        place.work.end();
        self.paced.give_back(head, written);
    }
}

impl Requests for Server {
    type Failure = Failure;

    /// A request takes some microseconds of the system's time.
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
            (Step::Other, result) => {
                self.paced.slow -= 1;
                self.session.borrow_mut().reply.clear();
                let result = result.as_ref().map(|_| ()).map_err(errno);
                self.answer(head, result);
            }
            (Step::Idle, _) => unreachable!("a completion belongs to a request"),
        }
    }

    fn into_queue(self) -> PacedQueue {
        self.paced
    }
}

/// The answer that a predecessor had ready.
fn replay(session: &mut Session, answer: &(i32, Vec<u8>)) -> Outcome {
    let (error, reply) = answer;
    session.reply.extend_from_slice(reply);
    Outcome::Done(match error {
        0 => Ok(()),
        error => Err(Errno::from_raw_os_error(*error)),
    })
}
