//! The task of one queue.

use std::io;
use std::rc::Rc;

use thiserror::Error;
use trace::{Began, Operation};

use super::Disk;
use super::protocol::{CacheMode, STATUS_IOERR, STATUS_OK, STATUS_UNSUPP};
use super::request::{Begun, Method, Path, Range, Request, Step};
use super::way::Ways;
use crate::simulation::{Bug, is_planted};
use crate::virtio::queue::{
    Chain, Completed, GuestBuffers, GuestOps, Moved, NoRoom, Pages, QueueError, Side, StatusByte,
    Tag,
};
use crate::virtio::syncs::is_unsupported;
use crate::virtio::worker::{ActiveQueue, KickError, PacedQueue, Requests, serve_paced};

/// Most bytes that go through host memory at once. A queue full of unaligned requests holds this
/// much for each; larger pieces gain nothing, the copy dominates.
const BOUNCE_BYTES: u32 = 64 << 10;

/// Requests done on the spot before they are published: the driver works on these while the next
/// are done, and one look at its wishes for eight costs little.
const INLINE_BATCH: u16 = 8;

/// Requests that go through the ring together: enough to share one visit to the kernel, and few enough that
/// the driver of a deep queue has others to see to meanwhile.
const RING_BATCH: u16 = 24;

/// Bytes that are taken together, some 100 us of copying.
const BATCH_BYTES: u64 = 1 << 20;

/// Why a queue cannot go on.
#[derive(Debug, Error)]
enum Failure {
    #[error(transparent)]
    Queue(#[from] QueueError),
    #[error("chain {head} has no byte for a status")]
    NoStatus { head: u16 },
    #[error(transparent)]
    Kick(#[from] KickError),
}

/// Serve one queue until it is stopped.
pub(super) async fn serve(disk: Rc<Disk>, active: ActiveQueue) -> Vec<ActiveQueue> {
    serve_paced(Server::new(disk, active)).await
}

struct Server {
    disk: Rc<Disk>,
    paced: PacedQueue,
    ways: Ways,
    /// By head.
    requests: Box<[Request]>,
    chain: Chain,
    /// What was moved in the last visit.
    bytes: u64,
    /// Requests of this visit that wait until all of them have been looked at: what they read comes near meanwhile.
    begun: Vec<Tag>,
}

impl Server {
    fn new(disk: Rc<Disk>, active: ActiveQueue) -> Self {
        let size = usize::from(active.queue.size());
        let memory = active.memory().clone();
        Self {
            paced: PacedQueue::new(active, disk.patience, disk.changes.clone()),
            ways: Ways::new(disk.strategy),
            disk,
            requests: (0..size).map(|_| Request::new(&memory)).collect(),
            // A chain in an indirect table may be as long as the queue, too.
            chain: Chain::for_any_buffers(memory, size),
            bytes: 0,
            begun: Vec::with_capacity(INLINE_BATCH.into()),
        }
    }

    /// Start the request of the chain that was just taken, or have it started when the visit has taken all; says how
    /// many bytes it moves.
    fn begin(&mut self) -> Result<u32, Failure> {
        let head = self.chain.head();
        self.paced.active.trace().look_at(&self.chain);
        let status = StatusByte::take(&mut self.chain).ok_or(Failure::NoStatus { head })?;
        if let Some(address) = self.chain.outside() {
            let index = self.paced.active.index();
            self.disk.common.complaints.warn(format_args!(
                "disk, queue {index}: a request has a buffer at {address}, which is no memory for \
                 devices (persistent memory is none)"
            ));
        }
        let request = &mut self.requests[usize::from(head)];
        let begun = request.begin(&mut self.chain, status, &self.disk.geometry.borrow());
        let bytes = request.bytes_to_move();
        self.paced.moved(bytes.into());
        let active = &self.paced.active;
        active.trace().taken(active.index(), head, request.header.as_ref(), || match begun {
            Begun::Working => began(request, &self.disk),
            Begun::Done(_) => None,
        });
        match begun {
            Begun::Working if self.ways.viewed => {
                if let (Step::Read, Some(view)) = (request.step, &self.disk.view) {
                    view.bring_near(request.offset);
                }
                self.begun.push(head);
            }
            Begun::Working => self.start(head),
            Begun::Done(status) => self.finish(head, status, None),
        }
        Ok(bytes)
    }

    /// Start the request's next step.
    fn start(&mut self, head: Tag) {
        let request = &mut self.requests[usize::from(head)];
        let submitted = match request.step {
            Step::Read | Step::Write => {
                transfer(&mut self.paced.ops, &mut self.ways, &self.disk, request, head)
            }
            Step::Range(position) => {
                let range = request.ranges[position];
                self.paced.slow += 1;
                zero_or_free(&mut self.paced.ops, &self.disk, request, range, head)
            }
            Step::Sync if self.disk.common.syncs.have_failed() => {
                return self.finish(head, STATUS_IOERR, None);
            }
            Step::Sync => {
                self.paced.slow += 1;
                self.disk.common.syncs.begin();
                self.paced.ops.fdatasync(&self.disk.file, head)
            }
            Step::Idle => unreachable!("a request in flight has a step"),
        };
        submitted.expect("there is room for one operation of each head");
    }

    /// Give the buffer back.
    fn finish(&mut self, head: Tag, status: u8, result: Option<&io::Result<u32>>) {
        let request = &mut self.requests[usize::from(head)];
        let flushed = request.step == Step::Sync;
        request.step = Step::Idle;
        request.pages = None;
        if let Some(byte) = request.status.take() {
            byte.write(status);
        }
        let written = request.written + 1;
        let active = &self.paced.active;
        active.trace().given(active.index(), head, result, (written, status));
        self.paced.give_back(head, written);
        if is_planted(Bug::DoubleCompletion) && flushed && self.paced.ops.in_flight() > 1 {
            self.paced.give_back(head, written);
        }
    }
}

impl Requests for Server {
    type Failure = Failure;

    fn queue(&mut self) -> &mut PacedQueue {
        &mut self.paced
    }

    fn take(&mut self) -> Result<u16, Failure> {
        let available = self.paced.active.queue.available();
        self.ways.visit(available, self.paced.ops.in_flight());
        self.ways.look(self.disk.view.as_ref(), self.paced.took(), self.bytes);
        let most = match (self.ways.viewed, self.ways.reads) {
            (false, None) => RING_BATCH,
            (true, _) | (_, Some(_)) => INLINE_BATCH,
        };
        self.paced.enough(most);
        // What a predecessor took was admitted then, and a pause waits for it.
        let limited = self.disk.limiter.borrow().is_limited() && !self.paced.is_recovering();
        let (mut taken, mut sum) = (0, 0);
        while taken < most && sum < BATCH_BYTES {
            if limited && self.paced.must_rest(&self.disk.limiter) {
                break;
            }
            if self.paced.ops.done_on_the_spot() >= INLINE_BATCH.into()
                || !self.paced.pop(&mut self.chain)?
            {
                break;
            }
            taken += 1;
            let bytes = self.begin()?.into();
            sum += bytes;
            if limited {
                self.disk.limiter.borrow_mut().charge(bytes);
            }
        }
        self.bytes = sum;
        for position in 0..self.begun.len() {
            self.start(self.begun[position]);
        }
        self.begun.clear();
        Ok(taken)
    }

    /// One step of a request is over: start the next, or finish.
    fn completed(&mut self, completed: Completed) {
        let Completed { tag, mut result, pages } = completed;
        let request = &mut self.requests[usize::from(tag)];
        if request.step == Step::Sync {
            result = self.disk.common.syncs.end(result);
        }
        if matches!(request.step, Step::Range(_) | Step::Sync) {
            self.paced.slow -= 1;
        }
        if let (Step::Range(position), Some(view)) = (request.step, &self.disk.view) {
            let range = request.ranges[position];
            view.freed(range.offset, range.length);
        }
        if pages.is_some() {
            request.pages = pages;
        }
        match advance(request, &result, self.disk.common.mode.get()) {
            Progress::More => {
                let active = &self.paced.active;
                active.trace().ended(active.index(), tag, &result);
                active.trace().began(active.index(), tag, || began(request, &self.disk));
                self.start(tag);
            }
            Progress::Done(status) => {
                if let (STATUS_IOERR, Err(error)) = (status, &result) {
                    let (step, offset) = (request.step, request.offset);
                    let index = self.paced.active.index();
                    self.disk.common.complaints.warn(format_args!(
                        "disk, queue {index}: {step:?} at byte {offset} failed: {error}"
                    ));
                }
                self.finish(tag, status, Some(&result));
            }
        }
    }

    fn abandoned(&mut self, completed: Completed) {
        if self.requests[usize::from(completed.tag)].step == Step::Sync {
            // The kernel says it once.
            let _ = self.disk.common.syncs.end(completed.result);
        }
    }

    fn into_queue(self) -> PacedQueue {
        self.paced
    }
}

/// A step in a trace: where in the file it goes on, and how many bytes it has left. None if the file is
/// not asked.
fn began(request: &Request, disk: &Disk) -> Option<Began> {
    let (operation, offset, length) = match request.step {
        Step::Read => (Operation::Read, request.offset, request.buffers.bytes().into()),
        Step::Write => (Operation::Write, request.offset, request.buffers.bytes().into()),
        Step::Range(position) => {
            let range = request.ranges[position];
            (Operation::Range, range.offset, range.length)
        }
        Step::Sync if !disk.common.syncs.have_failed() => (Operation::Sync, 0, 0),
        Step::Sync | Step::Idle => return None,
    };
    Some(Began { operation, offset, length })
}

enum Progress {
    /// There is another step.
    More,
    /// The request is done with this status.
    Done(u8),
}

/// What follows from the result of a step.
fn advance(request: &mut Request, result: &io::Result<u32>, mode: CacheMode) -> Progress {
    match (request.step, result) {
        (_, Err(error)) if error.kind() == io::ErrorKind::Interrupted => Progress::More,
        // The file ended although it was long enough: somebody cut it.
        (Step::Read | Step::Write, Ok(0)) => Progress::Done(STATUS_IOERR),
        (Step::Read | Step::Write, Ok(bytes)) => moved(request, *bytes, mode),
        (Step::Range(position), Ok(bytes)) => range_done(request, position, *bytes, mode),
        (Step::Range(position), Err(error)) if is_unsupported(error) => {
            let range = &mut request.ranges[position];
            match range.method.fallback() {
                Some(method) => {
                    range.method = method;
                    Progress::More
                }
                None => Progress::Done(STATUS_UNSUPP),
            }
        }
        (Step::Sync, Ok(_)) => Progress::Done(STATUS_OK),
        (_, Err(_)) => Progress::Done(STATUS_IOERR),
        (Step::Idle, Ok(_)) => unreachable!("a completion belongs to a request"),
    }
}

/// Some bytes of a transfer were moved.
fn moved(request: &mut Request, bytes: u32, mode: CacheMode) -> Progress {
    let bytes = bytes.min(request.buffers.bytes());
    if request.step == Step::Read {
        if let (Path::Bounced, Some(pages)) = (request.path, &request.pages) {
            request.buffers.copy_from(&pages.bytes()[..bytes as usize]);
        }
        request.written += bytes;
    }
    request.buffers.advance(bytes);
    request.offset += u64::from(bytes);
    if request.buffers.bytes() > 0 {
        return Progress::More;
    }
    match request.step {
        Step::Write => durable(request, mode),
        _ => Progress::Done(STATUS_OK),
    }
}

/// A range was freed or zeroed, or some bytes of it written.
fn range_done(request: &mut Request, position: usize, bytes: u32, mode: CacheMode) -> Progress {
    let range = &mut request.ranges[position];
    if range.method == Method::Fill {
        if bytes == 0 {
            return Progress::Done(STATUS_IOERR);
        }
        let bytes = u64::from(bytes).min(range.length);
        range.offset += bytes;
        range.length -= bytes;
        if range.length > 0 {
            return Progress::More;
        }
    }
    if position + 1 < request.ranges.len() {
        request.step = Step::Range(position + 1);
        return Progress::More;
    }
    durable(request, mode)
}

/// All is written: done, or one more step to make it durable.
fn durable(request: &mut Request, mode: CacheMode) -> Progress {
    match mode {
        CacheMode::WriteBack => Progress::Done(STATUS_OK),
        CacheMode::WriteThrough => {
            request.step = Step::Sync;
            Progress::More
        }
    }
}

/// Start to move what is left of a transfer.
fn transfer(
    ops: &mut GuestOps,
    ways: &mut Ways,
    disk: &Disk,
    request: &mut Request,
    tag: Tag,
) -> Result<(), NoRoom> {
    let (file, offset) = (&disk.file, request.offset);
    let side = match request.step {
        Step::Read => Side::Writable,
        _ => Side::Readable,
    };
    match (request.path, side) {
        (Path::Straight, _) => {
            let buffers = &request.buffers;
            if side == Side::Writable
                && ways.viewed
                && copy(ops, disk, buffers, offset, tag)? == Moved::Now
            {
                return Ok(());
            }
            match (side, ways.reads, ways.writes) {
                (Side::Writable, Some(wait), _) => {
                    let moved = ops.transfer_inline(file, wait, buffers, side, offset, tag)?;
                    ways.has_read(moved);
                }
                (Side::Readable, _, Some(wait)) => {
                    let begin = executor::now();
                    ops.transfer_inline(file, wait, buffers, side, offset, tag)?;
                    ways.has_written(begin);
                }
                _ => ops.transfer(file, buffers, side, offset, tag)?,
            }
            Ok(())
        }
        (Path::Bounced, side) => {
            let length = request.buffers.bytes().min(BOUNCE_BYTES);
            let mut pages = request.pages.take();
            let mut pages = pages.take_if(|pages| pages.bytes().len() >= length as usize);
            let mut pages = pages.take().unwrap_or_else(|| Pages::new(length as usize));
            if side == Side::Readable {
                request.buffers.copy_to(&mut pages.bytes_mut()[..length as usize]);
            }
            ops.transfer_pages(file, pages, side, length, offset, tag)
        }
    }
}

/// Copy what is to be read, if the disk has a view of that.
fn copy(
    ops: &mut GuestOps,
    disk: &Disk,
    buffers: &GuestBuffers,
    offset: u64,
    tag: Tag,
) -> Result<Moved, NoRoom> {
    let Some(view) = &disk.view else { return Ok(Moved::Later) };
    let Some(contents) = view.contents(&disk.file, offset, buffers.bytes()) else {
        return Ok(Moved::Later);
    };
    let moved = ops.copy_now(contents, buffers, offset, tag)?;
    if moved == Moved::Later && !view.is_intact() {
        disk.common.complaints.warn(format_args!(
            "disk: part of its file is gone or cannot be read; reads go through the kernel from now on"
        ));
    }
    Ok(moved)
}

/// Start to free or zero a range.
fn zero_or_free(
    ops: &mut GuestOps,
    disk: &Disk,
    request: &mut Request,
    range: Range,
    tag: Tag,
) -> Result<(), NoRoom> {
    if let Some(mode) = range.method.mode() {
        return ops.fallocate(&disk.file, mode, range.offset, range.length, tag);
    }
    let length = range.length.min(u64::from(BOUNCE_BYTES)) as u32;
    let zeroes = request.pages.take();
    let zeroes = zeroes.unwrap_or_else(|| Pages::new(BOUNCE_BYTES as usize));
    ops.transfer_pages(&disk.file, zeroes, Side::Readable, length, range.offset, tag)
}
