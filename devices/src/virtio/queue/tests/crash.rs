//! A back end that dies at any point is replaced without losing or inventing a buffer.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::super::driver::Buffer;
use super::*;

const SIZE: u16 = 8;
const BUFFER: Buffer = Buffer::Writable { address: DATA, length: 1 };

fn serve(memory: &Rc<GuestMemory>, driver: &DriverQueue, region: &InflightRegion) -> Queue {
    // Each successor attaches as another process would.
    let file = region.file().try_clone_to_owned().unwrap();
    let attached = InflightRegion::attach(file, 2, SIZE).unwrap();
    let record = attached.record(1).unwrap();
    Queue::new(memory, &driver.layout(), ALL, record, None).unwrap()
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Add(usize),
    Pop(usize),
    /// Complete this many, the newest or the oldest first.
    Complete(usize, bool),
    Publish,
    Collect,
    /// The back end dies and another one takes over.
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (1usize..5).prop_map(Step::Add),
        (1usize..5).prop_map(Step::Pop),
        (1usize..5, any::<bool>()).prop_map(|(n, newest)| Step::Complete(n, newest)),
        Just(Step::Publish),
        Just(Step::Collect),
        Just(Step::Crash),
    ];
    prop::collection::vec(step, 1..80)
}

proptest! {
    #[test]
    fn nothing_is_lost_repeated_or_reordered(steps in steps()) {
        let memory = memory();
        let region = InflightRegion::create(2, SIZE).unwrap();
        let mut driver = DriverQueue::new(&memory, RINGS, SIZE, ALL);
        let mut queue = serve(&memory, &driver, &region);
        prop_assert!(!queue.was_taken_over());
        let mut chain = Chain::new(memory.clone(), 8);
        // Heads in the order in which the driver sent them, as far as they are not published.
        let mut outstanding: Vec<u16> = Vec::new();
        let mut taken: Vec<u16> = Vec::new();
        let mut batch: Vec<u16> = Vec::new();
        let mut published = BTreeSet::new();
        for step in steps {
            match step {
                Step::Add(count) => {
                    for _ in 0..count {
                        outstanding.extend(driver.add(&[BUFFER]));
                    }
                    let _ = driver.publish();
                }
                Step::Pop(count) => {
                    for _ in 0..count {
                        if queue.pop(&mut chain).unwrap() {
                            taken.push(chain.head());
                        }
                    }
                }
                Step::Complete(count, newest) => {
                    for _ in 0..count.min(taken.len()) {
                        let at = if newest { taken.len() - 1 } else { 0 };
                        let head = taken.remove(at);
                        queue.push_used(head, 1);
                        batch.push(head);
                    }
                }
                Step::Publish => {
                    let _ = queue.publish();
                    outstanding.retain(|head| !batch.contains(head));
                    published.extend(batch.drain(..));
                }
                Step::Collect => {
                    while let Some(used) = driver.take_used() {
                        prop_assert!(published.remove(&used.head));
                    }
                    prop_assert!(published.is_empty());
                }
                Step::Crash => {
                    drop(queue);
                    queue = serve(&memory, &driver, &region);
                    prop_assert!(queue.was_taken_over());
                    taken.clear();
                    batch.clear();
                    // Everything the driver waits for comes once more, in its order.
                    let mut again = Vec::new();
                    while queue.pop(&mut chain).unwrap() {
                        again.push(chain.head());
                    }
                    prop_assert_eq!(&again, &outstanding);
                    taken = again;
                }
            }
        }
    }

    #[test]
    fn a_hostile_record_is_harmless(words in prop::collection::vec(any::<u64>(), 8), used: u16) {
        let region = InflightRegion::create(1, SIZE).unwrap();
        let mut record = region.record(0).unwrap();
        record.start(SIZE).unwrap();
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
            record.start(SIZE).unwrap();
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
            assert!(successor.is_live(SIZE));
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

#[test]
fn a_retired_record_starts_anew() {
    let memory = memory();
    let region = InflightRegion::create(2, SIZE).unwrap();
    let mut driver = DriverQueue::new(&memory, RINGS, SIZE, ALL);
    let mut queue = serve(&memory, &driver, &region);
    driver.add(&[BUFFER]).unwrap();
    let _ = driver.publish();
    let mut chain = Chain::new(memory.clone(), 8);
    assert!(queue.pop(&mut chain).unwrap());
    drop(queue.retire());
    let driver = DriverQueue::new(&memory, RINGS, SIZE, ALL);
    let queue = serve(&memory, &driver, &region);
    assert!(!queue.was_taken_over());
    assert_eq!(queue.in_flight(), 0);
    region.clear();
    assert!(!region.record(1).unwrap().is_live(SIZE));
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
    assert!(matches!(record.start(16), Err(QueueError::RecordMismatch(_))));
}
