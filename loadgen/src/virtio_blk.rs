//! The driver of a virtio disk, without a guest: rings and buffers in memory that is shared with a
//! vhost-user back end. Virtio 1.3 section 5.2.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use devices::memory::{GuestAddress, GuestMemory};
use devices::virtio::queue::driver::{Buffer, DriverQueue};
use devices::virtio::vhost_user::front_end::FrontEnd;

use crate::contents::{Claim, Contents, no_memory};
use crate::ring::{self, EVENT_IDX, INDIRECT_DESC, PATIENCE, Ring, USUAL_SIZE, VERSION_1};
use crate::workload::{Blocks, Check};
use crate::{Cost, Figures, LoadError, Processes, SystemCalls, Workload};

const MQ: u64 = 1 << 12;
/// Without it a device makes each write durable before it completes.
const FLUSH: u64 = 1 << 9;

const READ: u32 = 0;
const WRITE: u32 = 1;
const SECTOR: u64 = 512;

/// What each request has beside its data: a header, a status byte, and tables of descriptors for reads and for
/// writes, which are written once.
const PLACE: u64 = 128;
const STATUS_AT: u64 = 16;
const READ_TABLE_AT: u64 = 32;
const WRITE_TABLE_AT: u64 = 80;
/// Descriptors of a request.
const DESCRIPTORS: u16 = 3;
/// Requests that are ready before others have come back: what makes them takes time in which a device would have
/// nothing to do.
const MOST_SPARE: u16 = 8;
const PAGE: u64 = 4096;

/// For how long system calls are counted, and how long it may take to begin with that.
const COUNTING: Duration = Duration::from_millis(100);
const SETTING_UP: Duration = Duration::from_millis(30);

/// A disk behind a socket, and memory for requests.
pub struct VirtioBlk {
    front_end: Mutex<FrontEnd>,
    memory: GuestMemory,
    features: u64,
    queue_size: u16,
    /// Requests of a queue that are ready beside those under way.
    spare: u16,
    /// In units of 512 bytes.
    capacity: u64,
    workload: Workload,
}

impl VirtioBlk {
    /// Sets all up but the rings, over a connection with a back end.
    pub fn new(connection: UnixStream, workload: Workload) -> Result<Self, LoadError> {
        let mut front_end = FrontEnd::new(connection)?;
        let features =
            ring::agree(&mut front_end, VERSION_1 | EVENT_IDX | INDIRECT_DESC | MQ | FLUSH)?;
        let queues = front_end.queue_count()?;
        if queues < u64::from(workload.queues) {
            let asked = workload.queues;
            return Err(LoadError::Unfit(format!("has {queues} queues, not {asked}")));
        }
        let config = front_end.config(8)?;
        let capacity = config.first_chunk::<8>().map(|bytes| u64::from_le_bytes(*bytes));
        let capacity = capacity.unwrap_or(0);
        if capacity * SECTOR < u64::from(workload.block_size) {
            return Err(LoadError::Unfit("has less than one block".into()));
        }
        let per_request = if features & INDIRECT_DESC == 0 { DESCRIPTORS } else { 1 };
        let queue_size = (workload.depth * per_request).next_power_of_two().max(USUAL_SIZE);
        let spare = match workload.check {
            Check::Nothing => {
                let room = queue_size / per_request - workload.depth;
                room.min(workload.depth).min(MOST_SPARE)
            }
            // Which blocks can be asked for is known when others have come back.
            Check::Contents => 0,
        };
        let layout = Layout::new(queue_size, workload.depth + spare, workload.block_size);
        let length = layout.queue * u64::from(workload.queues);
        let memory = ring::share_memory(&mut front_end, length)?;
        let front_end = Mutex::new(front_end);
        Ok(Self { front_end, memory, features, queue_size, spare, capacity, workload })
    }

    /// Makes the requests of the workload, all queues at once, by as many threads as it says. The cost is that of the
    /// family of a process.
    pub fn run(&self, process: u32) -> Result<Figures, LoadError> {
        let phases = &Phases::of(&self.workload, Instant::now());
        thread::scope(|scope| {
            let Workload { queues, threads, .. } = self.workload;
            let threads = threads.clamp(1, queues);
            let drivers: Vec<_> = (0..threads)
                .map(|first| {
                    let queues = (first..queues).step_by(threads.into());
                    scope.spawn(move || self.drive(queues, phases))
                })
                .collect();
            let costs = phases.watch(process);
            let nothing = Figures { counted: Some(0), ..Figures::default() };
            let mut figures = drivers.into_iter().try_fold(nothing, |mut figures, driver| {
                let driver = driver.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                figures.add(&driver?);
                Ok::<_, LoadError>(figures)
            })?;
            figures.elapsed = self.workload.duration;
            figures.cost = costs.map_err(LoadError::system("look at processes"))?;
            Ok(figures)
        })
    }

    /// The work of a thread: makes the requests of some queues.
    fn drive(
        &self,
        indices: impl Iterator<Item = u16> + Clone,
        phases: &Phases,
    ) -> Result<Figures, LoadError> {
        let queues = indices.clone().map(|index| Queue::start(self, index));
        let mut queues = queues.collect::<Result<Vec<_>, _>>()?;
        let outcome = Self::run_queues(&mut queues, phases);
        // The first trouble is the one to tell of.
        let stopped = indices.map(|index| ring::locked(&self.front_end).stop_ring(index));
        let stopped = stopped.collect::<Result<Vec<_>, _>>();
        let figures = outcome?;
        stopped?;
        Ok(figures)
    }

    fn run_queues(queues: &mut [Queue<'_>], phases: &Phases) -> Result<Figures, LoadError> {
        let (figures, now) = (Figures::default(), Instant::now());
        let mut tally = Tally { phases, now, figures, counted: 0 };
        for queue in queues.iter_mut() {
            queue.begin()?;
        }
        // It only ends a run that is stuck.
        let given_up = phases.counted.end + 2 * PATIENCE;
        while queues.iter().any(|queue| queue.under_way > 0) {
            ring::wait_for_any(queues, given_up)?;
            for queue in queues.iter_mut() {
                queue.go_on(&mut tally)?;
            }
        }
        tally.figures.counted = Some(tally.counted);
        Ok(tally.figures)
    }
}

/// What came back to a thread.
struct Tally<'a> {
    phases: &'a Phases,
    /// The last look at the clock.
    now: Instant,
    figures: Figures,
    /// Requests while system calls are counted.
    counted: u64,
}

impl Tally<'_> {
    /// Requests that were made at these times came back now.
    #[inline]
    fn count(&mut self, made_at: &[Instant]) {
        let now = self.now;
        let Phases { begin, end, counted } = self.phases;
        if (*begin..*end).contains(&now) {
            for made_at in made_at {
                self.figures.count(now - *made_at);
            }
        } else if counted.contains(&now) {
            self.counted += made_at.len() as u64;
        }
    }
}

/// The parts of a run. System calls are counted in one of their own: that makes them dearer.
///
/// ```text
///   warm-up │ figures │ counters are set up │ system calls │
///         begin      end                 counted       counted.end
/// ```
#[derive(Debug, Clone)]
struct Phases {
    begin: Instant,
    end: Instant,
    counted: Range<Instant>,
}

impl Phases {
    fn of(workload: &Workload, now: Instant) -> Self {
        let begin = now + workload.warm_up;
        let end = begin + workload.duration;
        let counted = end + SETTING_UP;
        Self { begin, end, counted: counted..counted + COUNTING }
    }

    /// Looks at the processes at the right times; returns at the end.
    fn watch(&self, process: u32) -> io::Result<Cost> {
        let until = |time: Instant| {
            thread::sleep(time.saturating_duration_since(Instant::now()));
        };
        until(self.begin);
        let processes = Processes::watch(process, SystemCalls::Uncounted);
        until(self.end);
        let cost = processes?.cost();
        let mut processes = Processes::watch(process, SystemCalls::Counted)?;
        until(self.counted.start);
        let before = processes.system_calls();
        until(self.counted.end);
        let calls = processes.system_calls().zip(before).map(|(after, before)| after - before);
        Ok(Cost { system_calls: calls, ..cost })
    }
}

/// Where things are in a queue's part of the memory.
#[derive(Debug, Clone, Copy)]
struct Layout {
    /// Bytes for a queue.
    queue: u64,
    /// Where its requests' places begin.
    places: u64,
    /// Where their data begin.
    data: u64,
}

impl Layout {
    fn new(queue_size: u16, slots: u16, block_size: u32) -> Self {
        let slots = u64::from(slots);
        let places = DriverQueue::ring_bytes(queue_size);
        let data = (places + slots * PLACE).next_multiple_of(PAGE);
        let queue = data + (slots * u64::from(block_size)).next_multiple_of(PAGE);
        Self { queue, places, data }
    }
}

/// A request.
#[derive(Debug, Clone, Copy)]
struct Slot {
    made_at: Instant,
    claim: Claim,
    reads: bool,
}

/// One queue and its requests.
struct Queue<'a> {
    disk: &'a VirtioBlk,
    ring: Ring,
    layout: Layout,
    base: u64,
    blocks: Blocks,
    /// For loads that look at what they read.
    contents: Option<Contents>,
    slots: Vec<Slot>,
    /// By head: the slot.
    owners: Vec<u16>,
    /// Requests that have not come back.
    under_way: u16,
    /// Slots of requests that are in the ring, in this order, and only have to be made visible.
    ready: VecDeque<u16>,
    /// Slots of which nothing is wanted at the moment.
    idle: Vec<u16>,
    /// When those were made that came back last.
    made_at: Vec<Instant>,
}

impl AsMut<Ring> for Queue<'_> {
    fn as_mut(&mut self) -> &mut Ring {
        &mut self.ring
    }
}

impl<'a> Queue<'a> {
    fn start(disk: &'a VirtioBlk, index: u16) -> Result<Self, LoadError> {
        let workload = &disk.workload;
        let count = workload.depth + disk.spare;
        let layout = Layout::new(disk.queue_size, count, workload.block_size);
        let base = layout.queue * u64::from(index);
        let (place, features) = ((base, disk.queue_size), disk.features);
        let (front_end, memory) = (&disk.front_end, &disk.memory);
        let ring = Ring::start(front_end, memory, index, place, features, workload.polling)?;
        let blocks = disk.capacity * SECTOR / u64::from(workload.block_size);
        let claim = Claim { block: 0, writes: 0 };
        let slot = Slot { made_at: Instant::now(), claim, reads: true };
        let blocks = Blocks::new(workload, index, blocks);
        let (first, part) = blocks.part();
        let checks = workload.check == Check::Contents;
        let contents = checks.then(|| Contents::new(first, part, workload.block_size));
        let queue = Self {
            disk,
            ring,
            layout,
            base,
            blocks,
            contents,
            slots: vec![slot; count.into()],
            owners: vec![0; disk.queue_size.into()],
            under_way: 0,
            ready: VecDeque::with_capacity(count.into()),
            idle: (workload.depth..count).collect(),
            made_at: Vec::with_capacity(workload.depth.into()),
        };
        for slot in 0..count {
            for (reads, table) in [(true, READ_TABLE_AT), (false, WRITE_TABLE_AT)] {
                let table = queue.place(slot) + table;
                let written = queue.ring.driver.write_table(table, &queue.buffers(slot, reads));
                written.ok_or_else(|| LoadError::Unfit("has no memory there".into()))?;
            }
        }
        Ok(queue)
    }

    /// Where the header of a slot is.
    fn place(&self, slot: u16) -> u64 {
        self.base + self.layout.places + u64::from(slot) * PLACE
    }

    /// Where its data are.
    fn data(&self, slot: u16) -> u64 {
        let length = u64::from(self.disk.workload.block_size);
        self.base + self.layout.data + u64::from(slot) * length
    }

    fn buffers(&self, slot: u16, reads: bool) -> [Buffer; DESCRIPTORS as usize] {
        let (place, length) = (self.place(slot), self.disk.workload.block_size);
        let address = self.data(slot);
        let data = if reads {
            Buffer::Writable { address, length }
        } else {
            Buffer::Readable { address, length }
        };
        let status = Buffer::Writable { address: place + STATUS_AT, length: 1 };
        [Buffer::Readable { address: place, length: 16 }, data, status]
    }

    /// Makes as many requests as there can be.
    fn begin(&mut self) -> Result<(), LoadError> {
        let depth = self.disk.workload.depth;
        self.under_way = depth;
        for slot in 0..depth {
            self.prepare(slot)?;
        }
        self.ring.driver.disable_interrupts();
        self.publish(depth)?;
        self.use_idle_time()
    }

    /// Lets the device see so many of the requests that are ready; says when that was.
    fn publish(&mut self, count: u16) -> Result<Instant, LoadError> {
        if count > 0 {
            self.ring.publish_first(count)?;
        }
        let now = Instant::now();
        for slot in self.ready.drain(..usize::from(count)) {
            self.slots[usize::from(slot)].made_at = now;
        }
        Ok(now)
    }

    /// Takes what came back and makes as many other requests, if it is not time to end.
    #[inline]
    fn go_on(&mut self, tally: &mut Tally<'_>) -> Result<(), LoadError> {
        let came = self.ring.driver.used_waiting();
        if came == 0 {
            return Ok(());
        }
        let goes_on = tally.now < tally.phases.counted.end;
        // Before a look at what came, and at the clock: the device need not wait for that. The time of one look is
        // the end of those and the beginning of these, so that none is lost.
        let mut owed = if goes_on { came.min(self.ready.len() as u16) } else { 0 };
        tally.now = self.publish(owed)?;
        self.made_at.clear();
        while let Some(used) = self.ring.driver.take_used() {
            let index = self.owners[usize::from(used.head)];
            let slot = self.slots[usize::from(index)];
            self.check(index, slot)?;
            self.made_at.push(slot.made_at);
            self.idle.push(index);
        }
        tally.count(&self.made_at);
        let came = self.made_at.len() as u16;
        if !goes_on {
            self.under_way -= came;
            return Ok(());
        }
        owed = came - owed;
        self.use_idle_time()?;
        if owed > 0 {
            tally.now = self.publish(owed)?;
        }
        Ok(())
    }

    /// Prepares the next requests, mostly while the device works on others.
    fn use_idle_time(&mut self) -> Result<(), LoadError> {
        while let Some(slot) = self.idle.pop() {
            self.prepare(slot)?;
        }
        Ok(())
    }

    /// Writes a request, and puts it into the ring, where the device does not see it yet.
    fn prepare(&mut self, slot: u16) -> Result<(), LoadError> {
        let size = u64::from(self.disk.workload.block_size);
        let place = self.place(slot);
        let (block, reads) = self.blocks.next();
        let mut claim = Claim { block, writes: 0 };
        let (data, memory) = (self.data(slot), &self.disk.memory);
        if let Some(contents) = &mut self.contents {
            let few = || LoadError::Unfit("has fewer blocks than requests are under way".into());
            claim = contents.claim(block, reads).ok_or_else(few)?;
            if !reads {
                contents.fill(memory, data, claim).map_err(|error| no_memory(&error))?;
            }
        }
        let mut header = [0; 16];
        let kind = if reads { READ } else { WRITE };
        header[..4].copy_from_slice(&kind.to_le_bytes());
        header[8..].copy_from_slice(&(claim.block * size / SECTOR).to_le_bytes());
        let status = GuestAddress(place + STATUS_AT);
        memory
            .write_slice(GuestAddress(place), &header)
            .and_then(|()| memory.write_obj(status, &0xff_u8))
            .map_err(|error| no_memory(&error))?;
        let head = if self.disk.features & INDIRECT_DESC == 0 {
            let buffers = self.buffers(slot, reads);
            self.ring.driver.add(&buffers)
        } else {
            let table = if reads { READ_TABLE_AT } else { WRITE_TABLE_AT };
            self.ring.driver.add_table(self.place(slot) + table, DESCRIPTORS.into())
        };
        let head = head.ok_or_else(|| LoadError::Unfit("gave back too little".into()))?;
        self.owners[usize::from(head)] = slot;
        self.ready.push_back(slot);
        let slot = &mut self.slots[usize::from(slot)];
        *slot = Slot { claim, reads, ..*slot };
        Ok(())
    }

    fn check(&mut self, index: u16, slot: Slot) -> Result<(), LoadError> {
        let (memory, Claim { block, .. }) = (&self.disk.memory, slot.claim);
        let status = memory.read_obj::<u8>(GuestAddress(self.place(index) + STATUS_AT));
        match status.unwrap_or(0xff) {
            0 => {}
            status => return Err(LoadError::Request { block, status }),
        }
        let data = self.data(index);
        match &mut self.contents {
            Some(contents) => contents.release(memory, data, slot.claim, slot.reads),
            None => Ok(()),
        }
    }
}
