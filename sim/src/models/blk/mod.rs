//! A disk: a driver that knows what each sector may hold, and a file with a page cache.
//!
//! ```text
//!   place   | header 16 | canary | status 1 | canary | table | canary | data, in pieces | canary |
//! ```
//!
//! Each request has a place of its own in memory. When it comes back, whatever around its buffers was
//! written is found, and the place is wiped, so that whatever is written later is found, too.

mod contents;

use std::os::fd::OwnedFd;

use devices::virtio::backend::{BackendContext, BackendEvent, DeviceProfile};
use devices::virtio::blk::{BlockBackend, BlockImage, DiskOptions, IoStrategy};
use devices::virtio::parts::Parts;
use devices::virtio::queue::InflightRegion;
use devices::virtio::queue::driver::{Buffer, Used};
use devices::virtio::syncs::settle;
use devices::virtio::worker::Patience;
use executor::sim::{DiskId, Kept, Numbers, Sim};

use self::contents::{Before, Contents, Durable, Kind, SECTOR, Value, check};
use super::crimes;
use crate::machine::{FREE, Machine};
use crate::model::{Crime, Model, Running, Succession};

const FEATURE_FLUSH: u64 = 1 << 9;
const FEATURE_CONFIG_WCE: u64 = 1 << 11;

const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;

const OK: u8 = 0;
const IOERR: u8 = 1;

/// Sectors of the disk: few, so that requests meet.
const SECTORS: u64 = 48;
/// Most sectors of a request.
const MOST_SECTORS: u64 = 6;
const PLACES: usize = 40;
const PLACE: u64 = 0x1400;
const STATUS: u64 = 0x20;
const TABLE: u64 = 0x40;
const DATA: u64 = 0x200;
const ID: &str = "a simulated disk";
/// For crimes: behind all places.
const UNUSED: u64 = FREE + PLACES as u64 * PLACE;

/// What a request is for.
enum What {
    /// What may be seen, for each sector.
    Read(Vec<Vec<Value>>),
    Write,
    Flush(Before),
    Identify,
}

struct Request {
    queue: usize,
    head: u16,
    what: What,
    sector: u64,
    sectors: u64,
    /// The pieces of the data.
    data: Vec<(u64, u32)>,
    /// The header's bytes, which nobody may change.
    header: Vec<u8>,
}

/// See the module.
pub(super) struct Blk {
    file: OwnedFd,
    disk: DiskId,
    options: DiskOptions,
    strategy: IoStrategy,
    patience: Patience,
    places: Vec<Option<Request>>,
    contents: Contents,
    durable: Durable,
}

impl Blk {
    pub(super) fn new(sim: &Sim, seed: u64) -> Self {
        let mut random = Numbers::of(seed, 10);
        let contents: Vec<u8> =
            (0..SECTORS).flat_map(|sector| Value::FIRST.bytes(sector)).collect();
        let (file, disk) = sim.disk(contents).expect("a descriptor");
        let mut options = DiskOptions::new("simulated");
        options.queues = 1 + random.below(3) as u16;
        options.queue_size = 64;
        options.id = Some(ID.into());
        let strategy =
            *random.pick(&[IoStrategy::Ring, IoStrategy::Adaptive, IoStrategy::InMemory]);
        let patience = *random.pick(&[Patience::default(), Patience::NO_LOOKING]);
        Self {
            file,
            disk,
            options,
            strategy,
            patience,
            places: (0..PLACES).map(|_| None).collect(),
            contents: Contents::new(SECTORS),
            durable: Durable::Later,
        }
    }

    fn image(&self) -> BlockImage {
        let file = self.file.try_clone().expect("a descriptor");
        BlockImage::over(file, SECTORS * SECTOR as u64, &self.options)
    }

    fn base(place: usize) -> u64 {
        FREE + place as u64 * PLACE
    }

    /// Sends a request, if there is room for it.
    fn send(&mut self, machine: &mut Machine, random: &mut Numbers, kind: u32) -> Option<()> {
        let place = self.places.iter().position(Option::is_none)?;
        let (base, queue) = (Self::base(place), random.below(machine.queues() as u64) as usize);
        let count = random.within(1..MOST_SECTORS + 1);
        let sector = random.below(SECTORS - count + 1);
        if matches!(kind, OUT | DISCARD | WRITE_ZEROES) && self.contents.is_written(sector, count) {
            return None;
        }
        let mut header = [0; 16];
        header[..4].copy_from_slice(&kind.to_le_bytes());
        header[8..].copy_from_slice(&sector.to_le_bytes());
        let bytes = match kind {
            IN | OUT => count as u32 * SECTOR as u32,
            GET_ID => 20,
            DISCARD | WRITE_ZEROES => 16,
            _ => 0,
        };
        // A chain is no longer than its queue, in a table, too.
        let most = usize::from(machine.settings.sizes[queue]) - 2;
        let data = pieces(random, base + DATA, bytes, most.min(4));
        let writable = matches!(kind, IN | GET_ID);
        let mut buffers = vec![Buffer::Readable { address: base, length: 16 }];
        buffers.extend(data.iter().map(|(address, length)| {
            let (address, length) = (*address, *length);
            if writable {
                Buffer::Writable { address, length }
            } else {
                Buffer::Readable { address, length }
            }
        }));
        buffers.push(Buffer::Writable { address: base + STATUS, length: 1 });
        let table = (!random.once_in(3)).then_some(base + TABLE);
        let value = matches!(kind, OUT | DISCARD | WRITE_ZEROES)
            .then(|| self.contents.new_value(if kind == OUT { Kind::Pattern } else { Kind::Zero }));
        let bytes = match (kind, value) {
            (OUT, Some(value)) => {
                (sector..sector + count).flat_map(|sector| value.bytes(sector)).collect()
            }
            (DISCARD | WRITE_ZEROES, _) => {
                let flags = u32::from(kind == WRITE_ZEROES && random.once_in(2));
                [&sector.to_le_bytes()[..], &(count as u32).to_le_bytes(), &flags.to_le_bytes()]
                    .concat()
            }
            _ => Vec::new(),
        };
        scatter(machine, &data, &bytes);
        machine.write(base, &header);
        let Some(head) = machine.add(queue, &buffers, table) else {
            machine.wipe(base, PLACE as usize);
            return None;
        };
        let what = match kind {
            IN => What::Read(
                (sector..sector + count).map(|sector| self.contents.visible(sector)).collect(),
            ),
            FLUSH => What::Flush(self.contents.before_flush()),
            GET_ID => What::Identify,
            _ => What::Write,
        };
        if let Some(value) = value {
            for sector in sector..sector + count {
                self.contents.send(sector, value);
            }
            self.tell_readers(sector, count, value);
        }
        machine.sim.note("send", [kind.into(), sector, count]);
        let header = header.to_vec();
        let request = Request { queue, head, what, sector, sectors: count, data, header };
        self.places[place] = Some(request);
        Some(())
    }

    /// Reads that are under way may see a write.
    fn tell_readers(&mut self, first: u64, count: u64, value: Value) {
        for request in self.places.iter_mut().flatten() {
            let What::Read(visible) = &mut request.what else { continue };
            for (sector, values) in (request.sector..).zip(visible) {
                if (first..first + count).contains(&sector) {
                    values.push(value);
                }
            }
        }
    }

    /// Nothing that was sent comes back.
    fn forget(&mut self, machine: &Machine) {
        for place in 0..PLACES {
            if let Some(request) = self.places[place].take()
                && matches!(request.what, What::Write)
            {
                for sector in request.sector..request.sector + request.sectors {
                    self.contents.given_up(sector);
                }
            }
            machine.wipe(Self::base(place), PLACE as usize);
        }
        machine.wipe(UNUSED, 0x1000);
    }

    /// What a request that is done has written is right, and nothing else was written.
    fn judge(&mut self, machine: &Machine, place: usize, request: &Request, used: Used) {
        let base = Self::base(place);
        let status = machine.read(base + STATUS, 1)[0];
        machine.sim.note("status", [request.sector, status.into(), used.written.into()]);
        let faulty = machine.settings.faults != executor::sim::Faults::NONE;
        assert!(status == OK || (status == IOERR && faulty), "status {status} for a good request");
        assert!(used.written >= 1, "a status was written");
        let total: u32 = match request.what {
            What::Read(_) | What::Identify => request.data.iter().map(|(_, length)| length).sum(),
            _ => 0,
        };
        assert!(used.written <= total + 1, "more is said to be written than there is room for");
        let data = gather(machine, &request.data);
        match &request.what {
            What::Read(visible) if status == OK => {
                assert_eq!(used.written, total + 1, "a whole read");
                for (index, allowed) in visible.iter().enumerate() {
                    let sector = request.sector + index as u64;
                    check(sector, &data[index * SECTOR..][..SECTOR], allowed, "was read");
                }
            }
            What::Write => {
                for sector in request.sector..request.sector + request.sectors {
                    match status {
                        OK => self.contents.done(sector, self.durable),
                        _ => self.contents.given_up(sector),
                    }
                }
            }
            What::Flush(before) if status == OK => self.contents.flushed(before),
            What::Identify if status == OK => {
                assert_eq!(&data[..ID.len()], ID.as_bytes(), "the disk's name");
            }
            What::Read(_) | What::Flush(_) | What::Identify => {}
        }
        // What belongs to the request is as it was, or its own; all else of the place is untouched.
        assert_eq!(machine.read(base, 16), request.header, "a header was written");
        let mut parts = vec![(base, 16), (base + STATUS, 1), (base + TABLE, (DATA - TABLE) as u32)];
        parts.extend(&request.data);
        for (address, length) in parts {
            machine.wipe(address, length as usize);
        }
        machine.assert_untouched(base, PLACE as usize, "the buffers of a request");
    }
}

impl Model for Blk {
    fn profile(&self) -> DeviceProfile {
        self.image().profile()
    }

    fn droppable(&self) -> u64 {
        FEATURE_FLUSH | FEATURE_CONFIG_WCE
    }

    fn begin(&mut self, machine: &mut Machine) {
        let writes_back = machine.has(FEATURE_FLUSH) || machine.has(FEATURE_CONFIG_WCE);
        self.durable = if writes_back { Durable::Later } else { Durable::AtOnce };
    }

    fn start(&mut self, region: InflightRegion, context: BackendContext) -> Running {
        let backend = BlockBackend::new(self.image())
            .with_strategy(self.strategy)
            .with_patience(self.patience)
            .with_inflight(region);
        Box::pin(backend.run(context))
    }

    fn act(&mut self, machine: &mut Machine, random: &mut Numbers) {
        let kind = match random.below(100) {
            40..=69 => IN,
            70..=84 if machine.has(FEATURE_FLUSH) => FLUSH,
            85..=92 => WRITE_ZEROES,
            93..=95 => GET_ID,
            _ => OUT,
        };
        let _ = self.send(machine, random, kind);
    }

    fn misbehave(&mut self, machine: &mut Machine, random: &mut Numbers) -> Option<Crime> {
        let queue = random.below(machine.queues() as u64) as usize;
        crimes::break_rings(machine, random, queue, UNUSED)
    }

    fn used(&mut self, machine: &mut Machine, queue: usize, used: Used) {
        let place = self.places.iter().position(|request| {
            request.as_ref().is_some_and(|known| (known.queue, known.head) == (queue, used.head))
        });
        let place = place.expect("what comes back was sent");
        let request = self.places[place].take().expect("it was just found");
        self.judge(machine, place, &request, used);
    }

    fn event(&mut self, _machine: &mut Machine, _event: &BackendEvent) {}

    fn reset(&mut self, machine: &mut Machine) {
        self.forget(machine);
    }

    fn succeeded(&mut self, _machine: &mut Machine, _how: Succession) {}

    fn settle(&mut self, machine: &Machine, region: &InflightRegion) {
        settle(region, || machine.sim.sync(self.disk));
    }

    fn power_cut(&mut self, machine: &mut Machine, random: &mut Numbers) -> bool {
        let kept = if random.once_in(3) { Kept::None } else { Kept::Any };
        machine.sim.cut_power(self.disk, kept);
        self.forget(machine);
        self.contents.power_lost(&machine.sim.disk_contents(self.disk));
        true
    }

    fn left_behind(&self) -> Option<String> {
        let request = self.places.iter().flatten().next()?;
        let kind = match request.what {
            What::Read(_) => "a read",
            What::Write => "a write",
            What::Flush(_) => "a flush",
            What::Identify => "a question for the name",
        };
        Some(format!("{kind} of sector {}, queue {}", request.sector, request.queue))
    }

    fn finish(&mut self, machine: &mut Machine) {
        self.contents.check_all(&machine.sim.disk_contents(self.disk));
        machine.assert_all_untouched();
        // What was flushed, or written through, lasts.
        machine.sim.cut_power(self.disk, Kept::None);
        self.contents.power_lost(&machine.sim.disk_contents(self.disk));
    }
}

/// So many bytes from an address on, in some pieces with gaps.
fn pieces(random: &mut Numbers, mut address: u64, mut bytes: u32, most: usize) -> Vec<(u64, u32)> {
    let mut pieces = Vec::new();
    while bytes > 0 {
        let last = pieces.len() + 1 == most || random.once_in(2);
        let length = if last { bytes } else { random.within(1..u64::from(bytes) + 1) as u32 };
        pieces.push((address, length));
        address += u64::from(length) + random.below(40);
        bytes -= length;
    }
    pieces
}

fn scatter(machine: &Machine, pieces: &[(u64, u32)], bytes: &[u8]) {
    let mut left = bytes;
    for (address, length) in pieces {
        let (piece, rest) = left.split_at((*length as usize).min(left.len()));
        machine.write(*address, piece);
        left = rest;
    }
}

fn gather(machine: &Machine, pieces: &[(u64, u32)]) -> Vec<u8> {
    let read = |(address, length): &(u64, u32)| machine.read(*address, *length as usize);
    pieces.iter().flat_map(read).collect()
}
