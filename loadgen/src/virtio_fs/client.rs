//! Requests on the ring, for several programs of the guest at once.
//!
//! A program is a future that reads like the system calls it stands for; each waits for its answers as a
//! thread of the guest would, and all share the queue.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use devices::memory::{GuestAddress, GuestMemory};
use devices::virtio::fs::protocol::{InHeader, Opcode, OutHeader};
use devices::virtio::queue::driver::{Buffer, DriverQueue};
use zerocopy::{FromBytes, IntoBytes};

use crate::LoadError;
use crate::ring::{PATIENCE, Ring};

/// Requests that can be under way: more than Linux has of programs and of what nobody waits for.
const SLOTS: u16 = 64;
pub(super) const PAGE: u32 = 4096;
/// The most data of a request.
pub(super) const MOST_DATA: u32 = 1 << 20;

/// Parts of a slot's memory: a table of descriptors, the request, the head of the answer, its body, and pages.
const REQUEST_AT: u64 = 8 << 10;
const HEAD_AT: u64 = 12 << 10;
const BODY_AT: u64 = 16 << 10;
const DATA_AT: u64 = 20 << 10;
const SLOT_BYTES: u64 = DATA_AT + MOST_DATA as u64;

/// A program that runs in the guest.
pub(super) type Program<'a> = Pin<Box<dyn Future<Output = Result<(), LoadError>> + 'a>>;

/// What is asked.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Ask<'a> {
    pub(super) opcode: u32,
    pub(super) node: u64,
    pub(super) arguments: &'a [u8],
    /// Behind the arguments, with a zero.
    pub(super) name: &'a str,
    /// Data to send: each page of it begins with the number of that page, counted from this one.
    pub(super) sent: Option<(u64, u32)>,
    /// Room for the answer.
    pub(super) body: u32,
    /// Room for data, in pages of their own.
    pub(super) data: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    Free,
    /// A program waits for the answer.
    Asked(usize),
    Answered,
    /// Nobody waits.
    Alone(u32),
}

struct Requests {
    ring: Ring,
    slots: Vec<Slot>,
    free: Vec<u16>,
    /// By head: the slot.
    owners: Vec<u16>,
    under_way: usize,
    added: bool,
    unique: u64,
    /// Programs that can go on.
    ready: Vec<usize>,
    /// Programs that wait for a slot.
    waiting: Vec<usize>,
}

/// The guest's side of a queue.
pub(super) struct Client<'a> {
    memory: &'a GuestMemory,
    base: u64,
    indirect: bool,
    requests: RefCell<Requests>,
    /// The program that runs.
    running: Cell<usize>,
    pub(super) flush: Cell<super::calls::Flush>,
}

/// Memory of a queue with so many descriptors.
pub(super) fn bytes(queue_size: u16) -> u64 {
    rings(queue_size) + u64::from(SLOTS) * SLOT_BYTES
}

fn rings(queue_size: u16) -> u64 {
    DriverQueue::ring_bytes(queue_size).next_multiple_of(PAGE.into())
}

impl<'a> Client<'a> {
    pub(super) fn new(
        mut ring: Ring,
        memory: &'a GuestMemory,
        base: u64,
        queue_size: u16,
        indirect: bool,
    ) -> Self {
        ring.driver.disable_interrupts();
        let requests = Requests {
            ring,
            slots: vec![Slot::Free; SLOTS.into()],
            free: (0..SLOTS).rev().collect(),
            owners: vec![0; queue_size.into()],
            under_way: 0,
            added: false,
            unique: 0,
            ready: Vec::new(),
            waiting: Vec::new(),
        };
        Self {
            memory,
            base: base + rings(queue_size),
            indirect,
            requests: RefCell::new(requests),
            running: Cell::new(0),
            flush: Cell::default(),
        }
    }

    /// Runs programs until all have ended and nothing is under way any more.
    pub(super) fn run(&self, programs: Vec<Program<'_>>) -> Result<(), LoadError> {
        let mut programs: Vec<_> = programs.into_iter().map(Some).collect();
        let mut ready: Vec<_> = (0..programs.len()).rev().collect();
        let mut context = Context::from_waker(Waker::noop());
        loop {
            while let Some(index) = ready.pop() {
                self.running.set(index);
                let Some(program) = &mut programs[index] else { continue };
                if let Poll::Ready(result) = program.as_mut().poll(&mut context) {
                    programs[index] = None;
                    result?;
                }
                ready.append(&mut self.requests.borrow_mut().ready);
            }
            self.publish()?;
            if self.requests.borrow().under_way == 0 {
                return Ok(());
            }
            let end = Instant::now() + 2 * PATIENCE;
            self.requests.borrow_mut().ring.wait(end)?;
            self.take_answers()?;
            ready.append(&mut self.requests.borrow_mut().ready);
        }
    }

    /// Asks what nobody waits for and has no answer, without a program; waits only for room.
    pub(super) fn tell(&self, ask: &Ask<'_>) -> Result<(), LoadError> {
        self.take_answers()?;
        if self.requests.borrow().free.is_empty() {
            self.run(Vec::new())?;
        }
        let slot = self.requests.borrow_mut().free.pop();
        let slot = slot.ok_or_else(|| LoadError::Unfit("gave back too little".into()))?;
        self.enter(slot, ask, Slot::Alone(ask.opcode))?;
        self.publish()
    }

    fn publish(&self) -> Result<(), LoadError> {
        let requests = &mut *self.requests.borrow_mut();
        if std::mem::take(&mut requests.added) {
            requests.ring.publish()?;
        }
        Ok(())
    }

    fn take_answers(&self) -> Result<(), LoadError> {
        let requests = &mut *self.requests.borrow_mut();
        while let Some(used) = requests.ring.driver.take_used() {
            let slot = requests.owners[usize::from(used.head)];
            requests.under_way -= 1;
            match requests.slots[usize::from(slot)] {
                Slot::Asked(program) => {
                    requests.slots[usize::from(slot)] = Slot::Answered;
                    requests.ready.push(program);
                }
                Slot::Alone(opcode) => {
                    requests.release(slot);
                    // What has no answer leaves the zeros there.
                    let OutHeader { error, .. } = self.head(slot);
                    if error != 0 {
                        return Err(LoadError::Fuse { opcode, error: -error });
                    }
                }
                Slot::Free | Slot::Answered => {
                    return Err(LoadError::Wrong("nobody asked for it".into()));
                }
            }
        }
        Ok(())
    }

    /// Asks and waits for the answer, which may be a refusal.
    pub(super) async fn ask(&self, ask: &Ask<'_>) -> Result<Answer<'_, 'a>, LoadError> {
        let slot = self.begin(ask, Slot::Asked(self.running.get())).await?;
        poll_fn(|_| match self.requests.borrow().slots[usize::from(slot)] {
            Slot::Answered => Poll::Ready(()),
            _ => Poll::Pending,
        })
        .await;
        let OutHeader { length, error, .. } = self.head(slot);
        let bytes = length.saturating_sub(size_of::<OutHeader>() as u32);
        Ok(Answer { client: self, slot, opcode: ask.opcode, error: -error, bytes })
    }

    /// Asks and goes on.
    pub(super) async fn send(&self, ask: &Ask<'_>) -> Result<(), LoadError> {
        self.begin(ask, Slot::Alone(ask.opcode)).await.map(|_| ())
    }

    async fn begin(&self, ask: &Ask<'_>, state: Slot) -> Result<u16, LoadError> {
        let program = self.running.get();
        let slot = poll_fn(|_| {
            let mut requests = self.requests.borrow_mut();
            if let Some(slot) = requests.free.pop() {
                return Poll::Ready(slot);
            }
            requests.waiting.push(program);
            Poll::Pending
        })
        .await;
        self.enter(slot, ask, state)?;
        Ok(slot)
    }

    /// Makes a request available.
    fn enter(&self, slot: u16, ask: &Ask<'_>, state: Slot) -> Result<(), LoadError> {
        let requests = &mut *self.requests.borrow_mut();
        requests.unique += 2;
        let (buffers, count) = self.lay_out(slot, requests.unique, ask)?;
        let buffers = &buffers[..count];
        let driver = &mut requests.ring.driver;
        let head = if self.indirect {
            driver.add_indirect(self.place(slot), buffers)
        } else {
            driver.add(buffers)
        };
        let head = head.ok_or_else(|| LoadError::Unfit("gave back too little".into()))?;
        requests.owners[usize::from(head)] = slot;
        requests.slots[usize::from(slot)] = state;
        requests.under_way += 1;
        requests.added = true;
        Ok(())
    }

    /// Writes a request and says where its parts are, as Linux' driver lays them out: a head, all arguments,
    /// and pages.
    fn lay_out(
        &self,
        slot: u16,
        unique: u64,
        ask: &Ask<'_>,
    ) -> Result<([Buffer; 262], usize), LoadError> {
        let place = self.place(slot);
        let zero = usize::from(!ask.name.is_empty());
        let arguments = ask.arguments.len() + ask.name.len() + zero;
        let sent = ask.sent.map_or(0, |(_, bytes)| bytes);
        let head = size_of::<InHeader>();
        let header = InHeader {
            length: (head + arguments) as u32 + sent,
            opcode: ask.opcode,
            unique,
            node: ask.node,
            uid: 0,
            gid: 0,
            pid: 1,
            extensions: 0,
            padding: 0,
        };
        let mut request = [0; 512];
        request[..head].copy_from_slice(header.as_bytes());
        request[head..head + ask.arguments.len()].copy_from_slice(ask.arguments);
        let name = head + ask.arguments.len();
        request[name..name + ask.name.len()].copy_from_slice(ask.name.as_bytes());
        self.store(place + REQUEST_AT, &request[..head + arguments])?;
        self.store(place + HEAD_AT, &[0; size_of::<OutHeader>()])?;
        let mut buffers = [Buffer::Readable { address: 0, length: 0 }; 262];
        let mut count = 0;
        let mut add = |buffer| {
            buffers[count] = buffer;
            count += 1;
        };
        add(Buffer::Readable { address: place + REQUEST_AT, length: head as u32 });
        if arguments > 0 {
            let address = place + REQUEST_AT + head as u64;
            add(Buffer::Readable { address, length: arguments as u32 });
        }
        if let Some((first, bytes)) = ask.sent {
            for page in 0..bytes / PAGE {
                let address = place + DATA_AT + u64::from(page * PAGE);
                self.store(address, &(first + u64::from(page)).to_ne_bytes())?;
                add(Buffer::Readable { address, length: PAGE });
            }
        }
        if ask.opcode != Opcode::Forget as u32 {
            let length = size_of::<OutHeader>() as u32;
            add(Buffer::Writable { address: place + HEAD_AT, length });
        }
        if ask.body > 0 {
            add(Buffer::Writable { address: place + BODY_AT, length: ask.body });
        }
        for page in 0..ask.data.div_ceil(PAGE) {
            let address = place + DATA_AT + u64::from(page * PAGE);
            add(Buffer::Writable { address, length: PAGE.min(ask.data - page * PAGE) });
        }
        Ok((buffers, count))
    }

    fn place(&self, slot: u16) -> u64 {
        self.base + u64::from(slot) * SLOT_BYTES
    }

    fn head(&self, slot: u16) -> OutHeader {
        let mut bytes = [0; size_of::<OutHeader>()];
        // The memory is this client's own.
        let _ = self.memory.read_slice(GuestAddress(self.place(slot) + HEAD_AT), &mut bytes);
        OutHeader::read_from_bytes(&bytes).expect("the sizes are the same")
    }

    fn store(&self, address: u64, bytes: &[u8]) -> Result<(), LoadError> {
        let written = self.memory.write_slice(GuestAddress(address), bytes);
        written.map_err(|error| LoadError::Unfit(format!("has no memory there: {error}")))
    }
}

impl Requests {
    fn release(&mut self, slot: u16) {
        self.slots[usize::from(slot)] = Slot::Free;
        self.free.push(slot);
        self.ready.append(&mut self.waiting);
    }
}

/// An answer, where the server wrote it.
pub(super) struct Answer<'b, 'a> {
    client: &'b Client<'a>,
    slot: u16,
    opcode: u32,
    /// As in `errno`; 0 where it was done.
    pub(super) error: i32,
    /// Behind its head.
    pub(super) bytes: u32,
}

impl Answer<'_, '_> {
    /// None but what was done.
    pub(super) fn done(self) -> Result<Self, LoadError> {
        match self.error {
            0 => Ok(self),
            error => Err(LoadError::Fuse { opcode: self.opcode, error }),
        }
    }

    /// What its body begins with.
    pub(super) fn body<T: FromBytes + IntoBytes>(&self) -> Result<T, LoadError> {
        let address = self.client.place(self.slot) + BODY_AT;
        let value = self.client.memory.read_obj(GuestAddress(address));
        value.map_err(|error| LoadError::Wrong(error.to_string()))
    }

    /// All of its body.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.bytes.min(PAGE) as usize];
        let address = self.client.place(self.slot) + BODY_AT;
        // The memory is the client's own.
        let _ = self.client.memory.read_slice(GuestAddress(address), &mut bytes);
        bytes
    }

    /// Checks that there are so many bytes of data and that each of their pages begins with its number.
    pub(super) fn check_pages(&self, first: u64, bytes: u32) -> Result<(), LoadError> {
        if self.bytes != bytes {
            return Err(LoadError::Wrong(format!("{} bytes where {bytes} are", self.bytes)));
        }
        for page in 0..bytes.div_ceil(PAGE) {
            let address = self.client.place(self.slot) + DATA_AT + u64::from(page * PAGE);
            let number = self.client.memory.read_obj::<u64>(GuestAddress(address)).unwrap_or(!0);
            let right = first + u64::from(page);
            if number != right {
                return Err(LoadError::Wrong(format!("page {number} where {right} is")));
            }
        }
        Ok(())
    }
}

impl Drop for Answer<'_, '_> {
    fn drop(&mut self) {
        self.client.requests.borrow_mut().release(self.slot);
    }
}
