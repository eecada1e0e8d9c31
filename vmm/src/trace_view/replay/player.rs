//! A driver and a file that do what a trace says, and a back end between them.

use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;

use devices::memory::{GuestAddress, GuestMemory};
use devices::virtio::backend::{BackendContext, BackendRequest, RingLayout};
use devices::virtio::blk::{BlockBackend, BlockImage, IoStrategy};
use devices::virtio::queue::RingFeatures;
use devices::virtio::queue::driver::{Buffer, DriverQueue, Kick};
use executor::Executor;
use executor::sim::{Asked, AskedFor, EventId, Faults, ScriptId, Sim, Slice};
use ipc::{Reply, Sender};
use trace::{Began, Given, Operation, Piece, QueuePlace, Record};

use super::extents::Extents;

/// Far more than anything takes: a back end that does not answer does something else than it did.
const MOST_SLICES: usize = 1_000_000;
/// Pages, so that buffers share none.
const PAGE: u64 = 4096;
/// More memory than any trace of a real machine asks for.
const MOST_MEMORY: u64 = 1 << 40;
/// Where no memory is.
const NOWHERE: u64 = 1 << 50;
/// What an unaligned transfer moves at once, of more.
const BOUNCE_BYTES: u64 = 64 << 10;

/// A request that was taken and not given back.
struct Open {
    /// Its buffer's name in this run.
    head: u16,
    /// Where the buffer is.
    base: u64,
    /// Where its last byte is: the status.
    status: Option<u64>,
    /// The operation that waits for its answer.
    asked: Option<u64>,
}

struct Port {
    driver: DriverQueue,
    kick: (OwnedFd, EventId),
    call: (OwnedFd, EventId),
    /// Places for buffers that are free.
    free: Vec<u64>,
}

/// What plays a trace to a back end.
pub(super) struct Player {
    sim: Sim,
    executor: Executor,
    memory: GuestMemory,
    file: ScriptId,
    requests: Sender<BackendRequest>,
    ports: HashMap<u16, Port>,
    /// By queue and the name that the buffer had then.
    open: HashMap<(u16, u16), Open>,
    /// What the back end asked for and the trace has not told of yet.
    asked: VecDeque<Asked>,
    buffer: u64,
    queue_size: u16,
    rings: u64,
    is_made: bool,
}

impl Player {
    /// A device that is made of `state`. None if it is not that of a disk.
    pub(super) fn new(extents: &Extents, state: &[u8]) -> Option<Self> {
        let sim = Sim::new(0, Faults::NONE);
        let (descriptor, file) = sim.script().ok()?;
        let image = BlockImage::from_trace(descriptor, state)?;
        let buffer = extents.buffer.next_multiple_of(PAGE) + PAGE;
        let rings = DriverQueue::ring_bytes(extents.queue_size.max(1));
        let queues = u64::from(extents.queues);
        let bytes = (rings + u64::from(extents.queue_size) * buffer).checked_mul(queues)?;
        let bytes = bytes.checked_add(PAGE).filter(|bytes| *bytes <= MOST_MEMORY)?;
        let memory = GuestMemory::sparse(bytes).ok()?;
        let (requests, receiver) = ipc::channel(4);
        let (_, controls) = ipc::channel(1);
        let (events, _) = ipc::channel(4);
        let context = BackendContext {
            memory: memory.clone(),
            requests: receiver,
            controls,
            events,
            metrics: None,
            trace: None,
            helpers: Vec::new(),
        };
        let mut executor = sim.executor();
        executor.block_on(async {
            let backend = BlockBackend::new(image).with_strategy(IoStrategy::Ring);
            executor::spawn(backend.run(context)).detach();
        });
        Some(Self {
            sim,
            executor,
            memory,
            file,
            requests,
            ports: HashMap::new(),
            open: HashMap::new(),
            asked: VecDeque::new(),
            buffer,
            queue_size: extents.queue_size,
            rings,
            is_made: false,
        })
    }

    /// Plays one entry. An error says what happened instead of it.
    pub(super) fn play(&mut self, record: &Record<'_>) -> Result<(), String> {
        match record {
            Record::Activated { features, queues } => self.activate(*features, queues),
            Record::Reset => {
                self.call(|reply| BackendRequest::Reset { reply })?;
                self.ports.clear();
                self.open.clear();
                self.collect();
                self.asked.clear();
                Ok(())
            }
            Record::Paused => self.call(|reply| BackendRequest::Pause { reply }).map(drop),
            Record::Resumed => self.call(|reply| BackendRequest::Resume { reply }),
            Record::Detached => self.call(|reply| BackendRequest::Detach { reply }).map(drop),
            Record::ConfigWritten { offset, data } => {
                let (offset, data) = (*offset, data.to_vec());
                self.call(move |reply| BackendRequest::WriteConfig { offset, data, reply })
            }
            Record::Taken { queue, head, header, pieces, began } => {
                self.make_available(*queue, *head, header, pieces)?;
                began.map_or(Ok(()), |began| self.expect_operation((*queue, *head), began))
            }
            Record::Began { queue, head, began } => self.expect_operation((*queue, *head), *began),
            Record::Ended { queue, head, result } => self.answer((*queue, *head), *result),
            Record::Given(Given { queue, head, result, written, status }) => {
                if let Some(result) = result {
                    self.answer((*queue, *head), *result)?;
                }
                self.expect_given((*queue, *head), *written, *status)
            }
            Record::Made { .. } if self.is_made => {
                Err("a disk whose size or limits were changed cannot be replayed further".into())
            }
            Record::Made { .. } => {
                self.is_made = true;
                Ok(())
            }
            Record::Time(_) | Record::Born | Record::Message { .. } => Ok(()),
        }
    }

    fn activate(&mut self, features: u64, queues: &[QueuePlace]) -> Result<(), String> {
        let mut setups = Vec::new();
        for place in queues {
            let port = self.port(*place, features).ok_or("queues that cannot be")?;
            let clone = |file: &OwnedFd| file.try_clone().map_err(|error| error.to_string());
            let (kick, call) = (clone(&port.kick.0)?, clone(&port.call.0)?);
            setups.push(port.driver.layout().setup(place.index, kick, call));
            self.ports.insert(place.index, port);
        }
        self.call(move |reply| BackendRequest::Activate { features, queues: setups, reply })?
    }

    fn port(&self, place: QueuePlace, features: u64) -> Option<Port> {
        if place.size == 0 || place.size > self.queue_size {
            return None;
        }
        let format = if place.packed { RingLayout::Packed } else { RingLayout::Split };
        let of_queue = self.rings + u64::from(self.queue_size) * self.buffer;
        let base = PAGE + u64::from(place.index) * of_queue;
        let features = RingFeatures::from_bits(features);
        let driver = DriverQueue::new(&self.memory, base, place.size, format, features);
        let buffers = base + self.rings;
        let free = (0..u64::from(place.size)).map(|index| buffers + index * self.buffer).collect();
        let (kick, call) = (self.sim.event().ok()?, self.sim.event().ok()?);
        Some(Port { driver, kick, call, free })
    }

    /// A request for the device, as it was.
    fn make_available(
        &mut self,
        queue: u16,
        head: u16,
        header: &[u8],
        pieces: &[Piece],
    ) -> Result<(), String> {
        let port = self.ports.get_mut(&queue).ok_or("a queue that is not served")?;
        let base = port.free.pop().ok_or("more requests than the queue has places")?;
        self.memory.write_slice(GuestAddress(base), header).map_err(|error| error.to_string())?;
        let (mut at, mut status) = (base, None);
        let mut buffers = Vec::new();
        for piece in pieces {
            // What was outside of memory has no length.
            let (address, length) = match piece.length {
                0 => (NOWHERE, 512),
                length => (at, length),
            };
            buffers.push(if piece.writable {
                Buffer::Writable { address, length }
            } else {
                Buffer::Readable { address, length }
            });
            at += u64::from(piece.length);
            if piece.writable && piece.length > 0 {
                status = Some(at - 1);
            }
        }
        let added = port.driver.add(&buffers).ok_or("more descriptors than the queue has")?;
        self.open.insert((queue, head), Open { head: added, base, status, asked: None });
        if port.driver.publish() == Kick::Wanted {
            self.sim.signal(port.kick.1);
        }
        self.run();
        Ok(())
    }

    /// What the device is to ask of its file next.
    fn expect_operation(&mut self, request: (u16, u16), began: Began) -> Result<(), String> {
        self.collect();
        let place = self.asked.iter().position(|asked| is_same(asked, began));
        let Some(asked) = place.and_then(|place| self.asked.remove(place)) else {
            return Err(match self.asked.front() {
                Some(Asked { what, offset, length, .. }) => {
                    format!("{what:?} of {length} bytes at {offset}")
                }
                None => "nothing is asked of the file".into(),
            });
        };
        let open = self.open.get_mut(&request).ok_or("a request that was not taken")?;
        open.asked = Some(asked.number);
        Ok(())
    }

    /// The file answers.
    fn answer(&mut self, request: (u16, u16), result: i32) -> Result<(), String> {
        let open = self.open.get_mut(&request).ok_or("a request that was not taken")?;
        let number = open.asked.take().ok_or("an operation that was not asked for")?;
        if !self.sim.answer(self.file, number, result) {
            return Err("the operation was given up".into());
        }
        self.run();
        Ok(())
    }

    /// What the device is to give back next.
    fn expect_given(
        &mut self,
        request: (u16, u16),
        written: u32,
        status: u8,
    ) -> Result<(), String> {
        self.run();
        let (queue, _) = request;
        let open = self.open.remove(&request).ok_or("a request that was not taken")?;
        let port = self.ports.get_mut(&queue).ok_or("a queue that is not served")?;
        let used = port.driver.take_used().ok_or("nothing is given back")?;
        let found = match open.status {
            Some(at) => self.memory.read_obj::<u8>(GuestAddress(at)).unwrap_or(!status),
            None => status,
        };
        if (used.head, used.written, found) != (open.head, written, status) {
            let which = if used.head == open.head { "it" } else { "another request" };
            return Err(format!("{which} is given back, {} bytes, status {found}", used.written));
        }
        port.free.push(open.base);
        Ok(())
    }

    fn collect(&mut self) {
        self.asked.extend(self.sim.asked(self.file));
    }

    /// Lets the back end work until it waits for something.
    fn run(&mut self) {
        for _ in 0..MOST_SLICES {
            if !self.go_on() {
                break;
            }
        }
        self.collect();
    }

    fn go_on(&mut self) -> bool {
        match self.sim.run(&mut self.executor) {
            Slice::Busy => true,
            Slice::Waiting => self.sim.advance(),
            Slice::Crashed => false,
        }
    }

    fn call<R: ipc::Message>(
        &mut self,
        make: impl FnOnce(Reply<R>) -> BackendRequest,
    ) -> Result<R, String> {
        let (reply, mut answer) = Reply::pair();
        self.requests.try_send(make(reply)).map_err(|error| error.to_string())?;
        for _ in 0..MOST_SLICES {
            if let Some(answer) = answer.try_take() {
                return answer.map_err(|error| error.to_string());
            }
            self.go_on();
        }
        Err("the back end does not answer".into())
    }
}

/// Whether an operation is the one that the trace tells of. What is not aligned moves in parts, and
/// ranges are written where they cannot be freed.
fn is_same(asked: &Asked, began: Began) -> bool {
    let Began { operation, offset, length } = began;
    let part = asked.length == length || asked.length == length.min(BOUNCE_BYTES);
    match (operation, asked.what) {
        (Operation::Read, AskedFor::Read)
        | (Operation::Write, AskedFor::Write)
        | (Operation::Range, AskedFor::Range | AskedFor::Write) => asked.offset == offset && part,
        (Operation::Sync, AskedFor::Sync) => true,
        _ => false,
    }
}
