//! The driver of a virtio network that leaves checksums and segmentation to its device and takes large
//! segments from it (virtio 1.3 section 5.1.6), over vhost-user.

use std::os::unix::net::UnixStream;
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::Instant;

use devices::memory::{GuestAddress, GuestMemory};
use devices::virtio::queue::driver::{Buffer, DriverQueue};
use devices::virtio::vhost_user::front_end::FrontEnd;

use super::driver::{Carrier, Driver};
use super::host::Host;
use super::tcp::{Head, START};
use super::{FrameSize, Meter, Run, Stream};
use crate::ring::{self, EVENT_IDX, Ring, VERSION_1};
use crate::{Figures, LoadError};

/// The queues of the first pair.
const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;
const QUEUE_SIZE: u16 = 256;
/// Frames to be sent: headers and data each.
const SENT: u64 = QUEUE_SIZE as u64 / 2;
/// Room for headers of one.
const HEAD: u64 = 128;
/// Buffers to receive into, each for the largest frame. More than come at a time only cool the cache.
const BUFFERS: u64 = 32;
const BUFFER: u64 = 68 << 10;

/// `VIRTIO_NET_F_CSUM`, `_GUEST_CSUM`, `_MRG_RXBUF`.
const CHECKSUMS: u64 = 1 << 0 | 1 << 1;
const MERGEABLE: u64 = 1 << 15;
/// `VIRTIO_NET_F_GUEST_TSO4`, `_HOST_TSO4`.
const LARGE: u64 = 1 << 7 | 1 << 11;

/// A network behind a socket, and memory for a stream's frames.
pub struct StreamNet {
    front_end: Mutex<FrontEnd>,
    memory: GuestMemory,
    features: u64,
    stream: Stream,
}

impl StreamNet {
    /// Sets all up but the rings, over a connection with a back end.
    pub fn new(connection: UnixStream, stream: Stream) -> Result<Self, LoadError> {
        let mut front_end = FrontEnd::new(connection)?;
        let needed = match stream.frames {
            FrameSize::Mtu => CHECKSUMS,
            FrameSize::Large => CHECKSUMS | LARGE,
        };
        let features = ring::agree(&mut front_end, VERSION_1 | EVENT_IDX | MERGEABLE | needed)?;
        if features & needed != needed {
            return Err(LoadError::Unfit("does not take segmentation and checksums over".into()));
        }
        let memory = ring::share_memory(&mut front_end, Layout::new().end)?;
        let front_end = Mutex::new(front_end);
        Ok(Self { front_end, memory, features, stream })
    }

    /// Has the stream flow through an interface. The cost is that of the family of a process.
    pub fn run(&self, interface: &str, process: u32) -> Result<Figures, LoadError> {
        let meter = Meter::default();
        let host = Host::start(interface, self.stream.direction, meter.clone())?;
        let wire = host.wire();
        let (connected, connection) = mpsc::channel();
        let outcome = thread::scope(|scope| {
            let (stream, meter) = (&self.stream, &meter);
            let thread = scope.spawn(move || {
                let mut rings = self.start()?;
                let driver = Driver::connect(&mut rings, wire, meter)?;
                let run = Run::new(stream);
                // Who waits for it is there as long as this thread.
                let _ = connected.send(run);
                driver.drive(stream, run.end, |_| ())
            });
            let figures = connection.recv().map(|run| run.watch(process, meter));
            let driven = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            driven.and_then(|()| figures.unwrap_or(Err(LoadError::Stuck)))
        });
        let mut front_end = ring::locked(&self.front_end);
        // The first trouble is the one to tell of.
        let stopped = [RECEIVE, TRANSMIT].map(|index| front_end.stop_ring(index));
        let figures = host.finish(outcome)?;
        for stopped in stopped {
            stopped?;
        }
        Ok(figures)
    }

    fn start(&self) -> Result<Rings<'_>, LoadError> {
        let layout = Layout::new();
        let start = |index, base| {
            let (front_end, memory, polling) = (&self.front_end, &self.memory, self.stream.polling);
            Ring::start(front_end, memory, index, (base, QUEUE_SIZE), self.features, polling)
        };
        let mut rings = Rings {
            memory: &self.memory,
            receive: start(RECEIVE, 0)?,
            transmit: start(TRANSMIT, layout.transmit)?,
            layout,
            free: (0..SENT).map(|slot| layout.heads + slot * HEAD).collect(),
            heads: vec![0; QUEUE_SIZE.into()],
            buffers: vec![0; QUEUE_SIZE.into()],
            came: None,
            scratch: vec![0; 4096],
        };
        self.memory.write_slice(GuestAddress(layout.pattern), &super::pattern()).map_err(memory)?;
        for slot in 0..BUFFERS {
            rings.give(layout.buffers + slot * BUFFER)?;
        }
        rings.receive.driver.disable_interrupts();
        rings.transmit.driver.disable_interrupts();
        rings.receive.publish()?;
        Ok(rings)
    }
}

struct Rings<'a> {
    memory: &'a GuestMemory,
    receive: Ring,
    transmit: Ring,
    layout: Layout,
    /// Places for headers that are not in use.
    free: Vec<u64>,
    /// By head of a chain: its place for headers, and its buffer to receive into.
    heads: Vec<u64>,
    buffers: Vec<u64>,
    /// The buffer of the frame that came last; the device gets it back after that.
    came: Option<u64>,
    scratch: Vec<u8>,
}

impl Rings<'_> {
    fn give(&mut self, address: u64) -> Result<(), LoadError> {
        let buffer = Buffer::Writable { address, length: BUFFER as u32 };
        let head = self.receive.driver.add(&[buffer]);
        let head = head.ok_or_else(|| LoadError::Unfit("gave back too little".into()))?;
        self.buffers[usize::from(head)] = address;
        Ok(())
    }
}

impl Carrier for Rings<'_> {
    fn has_room(&mut self) -> bool {
        while let Some(used) = self.transmit.driver.take_used() {
            self.free.push(self.heads[usize::from(used.head)]);
        }
        !self.free.is_empty()
    }

    fn send(&mut self, head: &Head, at: usize, bytes: usize) -> Result<(), LoadError> {
        if !self.has_room() {
            return Ok(());
        }
        let Some(place) = self.free.pop() else { return Ok(()) };
        self.memory.write_slice(GuestAddress(place), head.bytes()).map_err(memory)?;
        let address = self.layout.pattern + at as u64;
        let both = [
            Buffer::Readable { address: place, length: head.bytes().len() as u32 },
            Buffer::Readable { address, length: bytes as u32 },
        ];
        let buffers = if bytes > 0 { &both[..] } else { &both[..1] };
        let head = self.transmit.driver.add(buffers);
        let head = head.ok_or_else(|| LoadError::Unfit("gave back too little".into()))?;
        self.heads[usize::from(head)] = place;
        Ok(())
    }

    fn flush(&mut self) -> Result<(), LoadError> {
        self.transmit.publish()
    }

    fn receive(&mut self, start: &mut [u8; START]) -> Result<Option<usize>, LoadError> {
        if let Some(address) = self.came.take() {
            self.give(address)?;
        }
        let Some(used) = self.receive.driver.take_used() else {
            // All that came was looked at.
            self.receive.publish()?;
            return Ok(None);
        };
        let address = self.buffers[usize::from(used.head)];
        self.came = Some(address);
        let bytes = used.written as usize;
        let first = bytes.min(START);
        self.memory.read_slice(GuestAddress(address), &mut start[..first]).map_err(memory)?;
        Ok(Some(bytes))
    }

    fn continues(&mut self, at: usize, with: &[u8]) -> Result<bool, LoadError> {
        let Some(address) = self.came else { return Ok(false) };
        let mut address = address + at as u64;
        for piece in with.chunks(self.scratch.len()) {
            let scratch = &mut self.scratch[..piece.len()];
            self.memory.read_slice(GuestAddress(address), scratch).map_err(memory)?;
            if scratch != piece {
                return Ok(false);
            }
            address += piece.len() as u64;
        }
        Ok(true)
    }

    fn wait(&mut self, until: Instant) -> Result<(), LoadError> {
        self.receive.wait(until).map(|_| ())
    }
}

fn memory(error: impl std::fmt::Display) -> LoadError {
    LoadError::Unfit(format!("has no memory there: {error}"))
}

/// Where things are in the memory; the rings to receive by are at its beginning.
#[derive(Debug, Clone, Copy)]
struct Layout {
    transmit: u64,
    heads: u64,
    pattern: u64,
    buffers: u64,
    end: u64,
}

impl Layout {
    fn new() -> Self {
        let transmit = DriverQueue::ring_bytes(QUEUE_SIZE);
        let heads = 2 * transmit;
        let pattern = heads + SENT * HEAD;
        let buffers = pattern + (super::pattern_bytes() as u64).next_multiple_of(4096);
        Self { transmit, heads, pattern, buffers, end: buffers + BUFFERS * BUFFER }
    }
}
