//! A back end that dies at any point is replaced without losing or inventing a buffer.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::super::crash::fuse::Fuse;
use super::super::driver::Buffer;
use super::*;

const SIZE: u16 = 8;
const BUFFER: Buffer = Buffer::Writable { address: DATA, length: 1 };

over_both_rings!(a_process_may_die_at_any_store, a_retired_record_starts_anew);

fn serve(memory: &Rc<GuestMemory>, driver: &DriverQueue, region: &InflightRegion) -> Queue {
    // Each successor attaches as another process would.
    let file = region.file().try_clone_to_owned().unwrap();
    let attached = InflightRegion::attach(file, 2, SIZE).unwrap();
    let record = attached.record(1).unwrap();
    Queue::new(memory, &driver.layout(), ALL, record, None).unwrap()
}

#[derive(Debug, Clone, Copy)]
enum Step {
    /// Send this many chains.
    Add(usize),
    Pop(usize),
    /// Complete this many, the newest or the oldest first.
    Complete(usize, bool),
    Publish,
    Collect,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (1usize..5).prop_map(Step::Add),
        (1usize..5).prop_map(Step::Pop),
        (1usize..5, any::<bool>()).prop_map(|(n, newest)| Step::Complete(n, newest)),
        Just(Step::Publish),
        Just(Step::Collect),
    ];
    prop::collection::vec(step, 1..80)
}

/// A driver that lives on, back ends that die, and what the driver may rely on.
struct World {
    memory: Rc<GuestMemory>,
    region: InflightRegion,
    driver: DriverQueue,
    chain: Chain,
    /// Chains that were sent.
    sent: u64,
    /// Where the buffers of each chain are.
    contents: BTreeMap<u16, Vec<(*mut u8, usize)>>,
    /// Chains in the order in which the driver sent them, as far as they are not published.
    outstanding: Vec<u16>,
    taken: Vec<u16>,
    batch: Vec<u16>,
    published: BTreeSet<u16>,
}

impl World {
    fn new(memory: &Rc<GuestMemory>, format: RingLayout) -> Self {
        // A packed ring of a size that no split one has.
        let size = if format == RingLayout::Split { SIZE } else { SIZE - 1 };
        Self {
            region: InflightRegion::create(2, SIZE).unwrap(),
            driver: DriverQueue::new(memory, RINGS, size, format, ALL),
            chain: Chain::new(memory.clone(), 8),
            memory: memory.clone(),
            sent: 0,
            contents: BTreeMap::new(),
            outstanding: Vec::new(),
            taken: Vec::new(),
            batch: Vec::new(),
            published: BTreeSet::new(),
        }
    }

    /// A step; what the back end does of it is in the fuse's hands. None if it died.
    fn step(&mut self, step: Step, queue: &mut Queue, fuse: &mut Fuse) -> Option<()> {
        match step {
            Step::Add(count) => self.add(count),
            Step::Pop(count) => {
                for _ in 0..count {
                    if fuse.run(|| queue.pop(&mut self.chain).unwrap())? {
                        self.check_contents();
                        self.taken.push(self.chain.head());
                    }
                }
            }
            Step::Complete(count, newest) => {
                for _ in 0..count.min(self.taken.len()) {
                    let at = if newest { self.taken.len() - 1 } else { 0 };
                    let head = self.taken.remove(at);
                    fuse.run(|| queue.push_used(head, u32::from(head)))?;
                    self.batch.push(head);
                }
            }
            Step::Publish => {
                fuse.run(|| {
                    let _ = queue.publish();
                })?;
                self.outstanding.retain(|head| !self.batch.contains(head));
                self.published.extend(self.batch.drain(..));
            }
            Step::Collect => {
                assert_eq!(self.collect(), std::mem::take(&mut self.published));
            }
        }
        Some(())
    }

    fn add(&mut self, count: usize) {
        for _ in 0..count {
            self.sent += 1;
            let buffer = |part| Buffer::Writable {
                address: DATA + 0x100 * (self.sent % 0x100) + part,
                length: 1 + (self.sent % 13) as u32,
            };
            let buffers: Vec<Buffer> = (0..=self.sent % 3).map(buffer).collect();
            let table = 0x8_0000 + 0x40 * (self.sent % 64);
            let head = match self.sent % 4 {
                0 => self.driver.add_indirect(table, &buffers),
                _ => self.driver.add(&buffers),
            };
            let Some(head) = head else { break };
            let place = |buffer: &Buffer| match *buffer {
                Buffer::Readable { address, length } | Buffer::Writable { address, length } => {
                    let range = self.memory.host_range(GuestAddress(address), length as usize);
                    (range.unwrap().as_ptr(), length as usize)
                }
            };
            self.contents.insert(head, buffers.iter().map(place).collect());
            self.outstanding.push(head);
        }
        let _ = self.driver.publish();
    }

    fn collect(&mut self) -> BTreeSet<u16> {
        std::iter::from_fn(|| self.driver.take_used())
            .map(|used| {
                assert_eq!(used.written, u32::from(used.head));
                used.head
            })
            .collect()
    }

    fn check_contents(&self) {
        let place = |segment: &Segment| (segment.as_ptr(), segment.len());
        let found: Vec<_> = self.chain.writable().iter().map(place).collect();
        assert_eq!(found, self.contents[&self.chain.head()]);
    }

    /// The driver looks at what the dead one left, and sends more.
    fn look_around(&mut self) {
        let mut used = self.collect();
        for head in std::mem::take(&mut self.published) {
            assert!(used.remove(&head), "{head} was published");
        }
        if !used.is_empty() {
            // All of the batch or nothing.
            assert_eq!(used, self.batch.drain(..).collect());
            self.outstanding.retain(|head| !used.contains(head));
        }
        self.batch.clear();
        self.taken.clear();
        self.add(2);
    }

    /// Everything that the driver waits for comes once more, in its order.
    fn take_again(&mut self, queue: &mut Queue, fuse: &mut Fuse) -> Option<()> {
        let mut again = Vec::new();
        while fuse.run(|| queue.pop(&mut self.chain).unwrap())? {
            self.check_contents();
            again.push(self.chain.head());
        }
        assert_eq!(again, self.outstanding);
        self.taken = again;
        Some(())
    }
}

/// Run the steps with back ends that die after so many stores each; the last one lives. Says how
/// many died.
fn live_and_die(mut world: World, steps: &[Step], lives: &[u32]) -> usize {
    let mut steps = steps.iter();
    for deaths in 0.. {
        let mut fuse = Fuse::new(lives.get(deaths).copied());
        let mut life = || {
            let mut queue = fuse.run(|| serve(&world.memory, &world.driver, &world.region))?;
            if deaths > 0 {
                world.take_again(&mut queue, &mut fuse)?;
            }
            for step in steps.by_ref() {
                world.step(*step, &mut queue, &mut fuse)?;
            }
            // And to the end.
            for step in [Step::Publish, Step::Pop(8), Step::Complete(8, true), Step::Publish] {
                world.step(step, &mut queue, &mut fuse)?;
            }
            assert!(world.outstanding.is_empty());
            world.step(Step::Collect, &mut queue, &mut fuse)
        };
        if life().is_some() {
            return deaths;
        }
        world.look_around();
    }
    unreachable!("a back end without a fuse lives")
}

/// Each store of a life, and of the life after it, is the last one once.
fn a_process_may_die_at_any_store(format: RingLayout) {
    let steps = [
        Step::Add(4),
        Step::Pop(4),
        Step::Complete(2, true),
        Step::Publish,
        Step::Collect,
        Step::Add(4),
        Step::Pop(3),
        Step::Complete(1, false),
        Step::Pop(1),
        Step::Complete(2, true),
        Step::Publish,
        Step::Add(3),
        Step::Collect,
    ];
    let memory = memory();
    let mut first = 0;
    while live_and_die(World::new(&memory, format), &steps, &[first]) == 1 {
        let mut second = 0;
        while live_and_die(World::new(&memory, format), &steps, &[first, second]) == 2 {
            second += 1;
        }
        first += 1;
    }
    assert!(first > 30, "{first} stores are too few");
}

proptest! {
    #[test]
    fn nothing_is_lost_repeated_or_reordered(
        steps in steps(),
        lives in prop::collection::vec(0u32..100, 0..20),
        format in prop::sample::select(&BOTH),
    ) {
        live_and_die(World::new(&memory(), format), &steps, &lives);
    }

    #[test]
    fn a_hostile_split_record_is_harmless(words in prop::collection::vec(any::<u64>(), 8), used: u16) {
        let region = InflightRegion::create(1, SIZE).unwrap();
        let mut record = region.record(0).unwrap();
        record.start(SIZE, RingLayout::Split, 0).unwrap();
        for (head, word) in words.iter().enumerate() {
            record.overwrite(head as u16, *word);
        }
        let heads = record.recover(SIZE, used);
        let distinct: BTreeSet<u16> = heads.iter().copied().collect();
        prop_assert_eq!(distinct.len(), heads.len());
        prop_assert!(heads.iter().all(|head| *head < SIZE));
    }
}

/// The publication of a batch, cut at each store.
#[test]
fn a_crash_inside_publish_commits_all_or_nothing() {
    for used_index in [0u16, 65534] {
        let new_index = used_index.wrapping_add(3);
        for (committed, released) in [(false, 0), (true, 0), (true, 1), (true, 2), (true, 3)] {
            let region = InflightRegion::create(1, SIZE).unwrap();
            let mut record = region.record(0).unwrap();
            record.start(SIZE, RingLayout::Split, 0).unwrap();
            for head in [4, 2, 7, 1] {
                record.take(head).unwrap();
            }
            for (offset, head) in [7, 4, 1].into_iter().enumerate() {
                record.done(head, used_index.wrapping_add(offset as u16));
            }
            for head in [7, 4, 1].into_iter().take(released) {
                record.release(head);
            }
            let mut successor = region.record(0).unwrap();
            assert!(successor.is_live(SIZE, RingLayout::Split));
            let ring_index = if committed { new_index } else { used_index };
            let in_flight = successor.recover(SIZE, ring_index);
            if committed {
                assert_eq!(in_flight, [2]);
            } else {
                assert_eq!(in_flight, [4, 2, 7, 1]);
            }
            // A second successor that dies before it does anything changes nothing.
            let mut second = region.record(0).unwrap();
            assert_eq!(second.recover(SIZE, ring_index), in_flight);
        }
    }
}

fn a_retired_record_starts_anew(format: RingLayout) {
    let memory = memory();
    let region = InflightRegion::create(2, SIZE).unwrap();
    let mut driver = DriverQueue::new(&memory, RINGS, SIZE, format, ALL);
    let mut queue = serve(&memory, &driver, &region);
    driver.add(&[BUFFER]).unwrap();
    let _ = driver.publish();
    let mut chain = Chain::new(memory.clone(), 8);
    assert!(queue.pop(&mut chain).unwrap());
    drop(queue.retire());
    let driver = DriverQueue::new(&memory, RINGS, SIZE, format, ALL);
    let queue = serve(&memory, &driver, &region);
    assert!(!queue.was_taken_over());
    assert_eq!(queue.in_flight(), 0);
    region.clear();
    assert!(!region.record(1).unwrap().is_live(SIZE, format));
}

#[test]
fn memory_of_another_shape_is_refused() {
    let region = InflightRegion::create(2, 8).unwrap();
    let file = || region.file().try_clone_to_owned().unwrap();
    InflightRegion::attach(file(), 2, 8).unwrap();
    for (queues, size) in [(1, 8), (3, 8), (2, 7), (2, 16)] {
        let error = InflightRegion::attach(file(), queues, size).unwrap_err();
        assert!(matches!(error, InflightError::Mismatch { .. }));
    }
    let unsealed = memfd_create("plain", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&unsealed, 4096).unwrap();
    assert!(InflightRegion::attach(unsealed, 2, 8).is_err());
    assert!(region.record(2).is_none());
    let mut record = region.record(0).unwrap();
    assert!(matches!(record.start(16, RingLayout::Split, 0), Err(QueueError::RecordMismatch(_))));
}
