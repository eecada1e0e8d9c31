//! Persistent memory: a guest that stores to a file's pages, and flushes.
//!
//! What was stored before a flush that succeeded outlives the loss of power; of what was stored later
//! each block is there, or the one before it.

use std::os::fd::OwnedFd;

use devices::memory::GuestAddress;
use devices::virtio::backend::{BackendContext, DeviceProfile};
use devices::virtio::parts::Parts;
use devices::virtio::pmem::{Access, PmemFile, PmemParts};
use devices::virtio::queue::InflightRegion;
use devices::virtio::queue::driver::{Buffer, Used};
use devices::virtio::syncs::settle;
use executor::sim::{DiskId, Faults, Kept, Numbers, Sim};

use super::crimes;
use super::places::Places;
use crate::machine::{FREE, Machine};
use crate::model::{Crime, Model, Running};

const QUEUE: usize = 0;
const BLOCK: usize = 512;
const BLOCKS: usize = 24;
/// Where the guest has it, far from its other memory.
const START: GuestAddress = GuestAddress(1 << 32);

const PLACE: u64 = 0x100;
const PLACES: usize = 40;
const ANSWER: u64 = 0x40;
const TABLE: u64 = 0x80;

/// A request: what it asks for, and what each block held then.
struct Request {
    kind: u32,
    held: Vec<u64>,
}

/// See the module.
pub(super) struct Pmem {
    parts: PmemParts,
    disk: DiskId,
    places: Places<Request>,
    /// What each block may hold after a loss of power: numbers of stores, in order.
    blocks: Vec<Vec<u64>>,
    stores: u64,
}

/// What a store writes.
fn contents(block: usize, store: u64) -> Vec<u8> {
    let word = (store * 64 + block as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    word.to_le_bytes().repeat(BLOCK / 8)
}

impl Pmem {
    pub(super) fn new(sim: &Sim) -> Self {
        let all: Vec<u8> = (0..BLOCKS).flat_map(|block| contents(block, 0)).collect();
        let length = all.len() as u64;
        let (file, disk): (OwnedFd, _) = sim.disk(all).expect("a descriptor");
        let file = PmemFile::over(file, Access::ReadWrite, length);
        Self {
            parts: PmemParts::new(&file, START, length).expect("a descriptor"),
            disk,
            places: Places::new(FREE, PLACE, PLACES),
            blocks: vec![vec![0]; BLOCKS],
            stores: 0,
        }
    }

    /// The guest stores to some blocks.
    fn store(&mut self, machine: &Machine, random: &mut Numbers) {
        for _ in 0..random.within(1..4) {
            let block = random.below(BLOCKS as u64) as usize;
            self.stores += 1;
            machine.sim.store(self.disk, block * BLOCK, &contents(block, self.stores));
            machine.sim.note("store", [block as u64, self.stores, 0]);
            self.blocks[block].push(self.stores);
        }
    }

    fn send(&mut self, machine: &mut Machine, random: &mut Numbers) -> Option<()> {
        let place = self.places.free()?;
        // Flushes, and now and then what there is not.
        let kind = if random.once_in(8) { random.within(1..9) as u32 } else { 0 };
        machine.write(place, &kind.to_le_bytes());
        let cut = random.within(1..4) as u32;
        let (rest, answer) = (4 - cut, place + ANSWER);
        let buffers = [
            Buffer::Readable { address: place, length: cut },
            Buffer::Readable { address: place + u64::from(cut), length: rest },
            Buffer::Writable { address: answer, length: cut },
            Buffer::Writable { address: answer + u64::from(cut), length: rest },
        ];
        let head = machine.add(QUEUE, &buffers, Some(place + TABLE));
        let last = |stores: &Vec<u64>| *stores.last().expect("there is always one");
        let request = Request { kind, held: self.blocks.iter().map(last).collect() };
        self.places.fill(machine, place, QUEUE, head, request)
    }

    fn forget(&mut self, machine: &Machine) {
        let end = self.places.end();
        self.places.clear(machine);
        machine.wipe(end, crimes::BYTES);
    }
}

impl Model for Pmem {
    fn profile(&self) -> DeviceProfile {
        self.parts.profile()
    }

    fn start(&mut self, region: InflightRegion, context: BackendContext) -> Running {
        let parts = self.parts.try_clone().expect("a descriptor");
        Box::pin(parts.run(Some(region), context))
    }

    fn act(&mut self, machine: &mut Machine, random: &mut Numbers) {
        if random.once_in(2) {
            self.store(machine, random);
        } else {
            let _ = self.send(machine, random);
        }
    }

    fn misbehave(&mut self, machine: &mut Machine, random: &mut Numbers) -> Option<Crime> {
        crimes::break_rings(machine, random, QUEUE, self.places.end())
    }

    fn used(&mut self, machine: &mut Machine, queue: usize, used: Used) {
        let (place, request) = self.places.take(queue, used.head);
        assert_eq!(used.written, 4, "an answer has four bytes");
        let answer = machine.read(place + ANSWER, 4);
        let answer = u32::from_le_bytes([answer[0], answer[1], answer[2], answer[3]]);
        assert!(answer <= 1, "an answer that there is not: {answer}");
        if request.kind != 0 {
            assert_eq!(answer, 1, "the request {} is none", request.kind);
        } else if answer == 0 {
            machine.sim.note("flushed", [0; 3]);
            for (stores, held) in self.blocks.iter_mut().zip(request.held) {
                stores.retain(|store| *store >= held);
            }
        } else {
            let Faults { sync_error, interrupted, .. } = machine.settings.faults;
            assert!(sync_error.0 + interrupted.0 > 0, "a flush fails for no reason");
        }
        let ranges = [(place, 4), (place + ANSWER, 4), (place + TABLE, 0x40)];
        self.places.left(machine, place, &ranges, "an answer");
    }

    fn reset(&mut self, machine: &mut Machine) {
        self.forget(machine);
    }

    fn settle(&mut self, machine: &Machine, region: &InflightRegion) {
        settle(region, || machine.sim.sync(self.disk));
    }

    fn power_cut(&mut self, machine: &mut Machine, random: &mut Numbers) -> bool {
        let kept = *random.pick(&[Kept::None, Kept::Any]);
        machine.sim.cut_power(self.disk, kept);
        let all = machine.sim.disk_contents(self.disk);
        for (block, (bytes, stores)) in all.chunks(BLOCK).zip(&mut self.blocks).enumerate() {
            let found = stores.iter().find(|store| bytes == contents(block, **store));
            let found = *found.unwrap_or_else(|| panic!("block {block} has lost what was flushed"));
            *stores = vec![found];
        }
        true
    }

    fn left_behind(&self) -> Option<String> {
        let left = self.places.of(QUEUE).count();
        (left > 0).then(|| format!("{left} flushes"))
    }

    fn finish(&mut self, machine: &mut Machine) {
        machine.assert_all_untouched();
        // Nobody but the guest has written.
        let all = machine.sim.disk_contents(self.disk);
        for (block, (bytes, stores)) in all.chunks(BLOCK).zip(&self.blocks).enumerate() {
            let last = stores.last().expect("there is always one");
            assert!(bytes == contents(block, *last), "block {block} is not what was stored");
        }
    }
}
