//! The driver of a virtio network, without a guest: frames in memory that is shared with a vhost-user back
//! end. Virtio 1.3 section 5.1.

use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use devices::memory::{GuestAddress, GuestMemory};
use devices::virtio::queue::driver::{Buffer, DriverQueue};
use devices::virtio::vhost_user::front_end::FrontEnd;

use crate::frames::{Direction, Frames, HEADER};
use crate::ring::{self, EVENT_IDX, Ring, USUAL_SIZE, VERSION_1};
use crate::{Figures, LoadError, Processes, SystemCalls};

/// The queues of the first pair.
const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;
/// Room for a frame and its header.
const PLACE: u64 = 2048;

/// A network behind a socket, and memory for frames.
pub struct VirtioNet {
    front_end: Mutex<FrontEnd>,
    memory: GuestMemory,
    features: u64,
    queue_size: u16,
    frames: Frames,
}

impl VirtioNet {
    /// Sets all up but the rings, over a connection with a back end.
    pub fn new(connection: UnixStream, frames: Frames) -> Result<Self, LoadError> {
        if u64::from(frames.bytes) + HEADER as u64 > PLACE {
            return Err(LoadError::Unfit(format!("gets no frames of {} bytes", frames.bytes)));
        }
        let mut front_end = FrontEnd::new(connection)?;
        let features = ring::agree(&mut front_end, VERSION_1 | EVENT_IDX)?;
        let queue_size = frames.depth.next_power_of_two().max(USUAL_SIZE);
        let length = Layout::new(queue_size).data + u64::from(frames.depth) * PLACE;
        let memory = ring::share_memory(&mut front_end, length.next_multiple_of(4096))?;
        let front_end = Mutex::new(front_end);
        Ok(Self { front_end, memory, features, queue_size, frames })
    }

    /// Sends or receives frames. The cost is that of the family of a process.
    pub fn run(&self, process: u32) -> Result<Figures, LoadError> {
        let begin = Instant::now() + self.frames.warm_up;
        let end = begin + self.frames.duration;
        thread::scope(|scope| {
            let thread = scope.spawn(|| self.drive(begin, end));
            thread::sleep(begin.saturating_duration_since(Instant::now()));
            let processes = Processes::watch(process, SystemCalls::Counted);
            thread::sleep(end.saturating_duration_since(Instant::now()));
            let cost = processes.map(Processes::cost);
            let joined = thread.join();
            let mut figures = joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            figures.elapsed = self.frames.duration;
            figures.cost = cost.map_err(LoadError::system("look at processes"))?;
            Ok(figures)
        })
    }

    fn drive(&self, begin: Instant, end: Instant) -> Result<Figures, LoadError> {
        let layout = Layout::new(self.queue_size);
        let start = |index, base| {
            let (front_end, memory) = (&self.front_end, &self.memory);
            let place = (base, self.queue_size);
            Ring::start(front_end, memory, index, place, self.features, self.frames.polling)
        };
        // Back ends may wait for both.
        let mut receive = start(RECEIVE, 0)?;
        let mut transmit = start(TRANSMIT, layout.transmit)?;
        let loaded = match self.frames.direction {
            Direction::Send => &mut transmit,
            Direction::Receive => &mut receive,
        };
        let outcome = self.load(loaded, layout.data, begin, end);
        let mut front_end = ring::locked(&self.front_end);
        // The first trouble is the one to tell of.
        let stopped = [RECEIVE, TRANSMIT].map(|index| front_end.stop_ring(index));
        let figures = outcome?;
        for stopped in stopped {
            stopped?;
        }
        Ok(figures)
    }

    /// Keeps as many buffers with the device as the load is deep.
    fn load(
        &self,
        ring: &mut Ring,
        data: u64,
        begin: Instant,
        end: Instant,
    ) -> Result<Figures, LoadError> {
        let mut figures = Figures::default();
        let frame = self.frames.with_header();
        let add = |ring: &mut Ring, address: u64| {
            let buffer = match self.frames.direction {
                Direction::Send => Buffer::Readable { address, length: frame.len() as u32 },
                Direction::Receive => Buffer::Writable { address, length: PLACE as u32 },
            };
            let head = ring.driver.add(&[buffer]);
            head.ok_or_else(|| LoadError::Unfit("gave back too little".into()))
        };
        // By head: where the buffer is, and when it was handed over.
        let mut under_way = vec![(data, begin); self.queue_size.into()];
        let mut now = Instant::now();
        for slot in 0..self.frames.depth {
            let address = data + u64::from(slot) * PLACE;
            self.memory
                .write_slice(GuestAddress(address), &frame)
                .map_err(|error| LoadError::Unfit(format!("has no memory there: {error}")))?;
            under_way[usize::from(add(ring, address)?)] = (address, now);
        }
        ring.driver.disable_interrupts();
        ring.publish()?;
        while now < end {
            now = ring.wait(end)?;
            let mut came = 0;
            while let Some(used) = ring.driver.take_used() {
                let (address, made_at) = under_way[usize::from(used.head)];
                under_way[usize::from(add(ring, address)?)] = (address, now);
                if now >= begin && now < end {
                    figures.count(now - made_at);
                }
                came += 1;
            }
            if came > 0 {
                ring.publish()?;
            }
        }
        Ok(figures)
    }
}

/// Where things are in the memory; the rings to receive by are at its beginning.
#[derive(Debug, Clone, Copy)]
struct Layout {
    transmit: u64,
    data: u64,
}

impl Layout {
    fn new(queue_size: u16) -> Self {
        let ring = DriverQueue::ring_bytes(queue_size);
        Self { transmit: ring, data: 2 * ring }
    }
}
