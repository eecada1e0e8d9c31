//! Worlds without a kernel: the same seed gives the same world, and what may go wrong there is what
//! may go wrong on a host.

use std::cell::{Cell, RefCell};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use executor::sim::{DiskId, Faults, Kept, PerMille, Sim, Slice};
use executor::{Executor, Fd, RecvFlags, SendFlags, sleep, spawn, yield_now};

const BLOCK: usize = 512;

/// Runs an actor until nothing is due any more.
fn settle(sim: &Sim, executor: &mut Executor) {
    loop {
        match sim.run(executor) {
            Slice::Busy => {}
            Slice::Waiting if sim.advance() => {}
            Slice::Waiting => return,
            Slice::Crashed => panic!("nobody wanted it dead"),
        }
    }
}

/// Starts an actor in a world.
fn start<F: Future<Output = ()> + 'static>(sim: &Sim, make: impl FnOnce() -> F) -> Executor {
    let mut executor = sim.executor();
    executor.block_on(async { spawn(make()).detach() });
    executor
}

fn disk(sim: &Sim, blocks: usize) -> (OwnedFd, DiskId) {
    sim.disk(vec![0; blocks * BLOCK]).unwrap()
}

/// Some tasks that write, sleep, and write again, on a disk with faults.
fn busy_world(seed: u64) -> (u64, Vec<u8>) {
    let faults = Faults { short: PerMille(200), slow: PerMille(100), ..Faults::default() };
    let sim = Sim::new(seed, faults);
    let (descriptor, id) = disk(&sim, 32);
    let mut executor = start(&sim, || async move {
        let file = Fd::new(descriptor).unwrap();
        for task in 0..8_u8 {
            let file = file.clone();
            spawn(async move {
                for round in 0..4_u64 {
                    let offset = u64::from(task) * 4 * 512 + round;
                    let (written, _) = file.write_at(vec![task + 1; 512], offset).await;
                    assert!(written.unwrap() > 0);
                    sleep(Duration::from_micros(100)).await;
                }
                file.fdatasync().await.unwrap();
            })
            .detach();
        }
    });
    settle(&sim, &mut executor);
    (sim.hash(), sim.disk_contents(id))
}

#[test]
fn a_seed_gives_the_same_world_each_time_and_another_seed_another() {
    let worlds: Vec<_> = (0..20).map(busy_world).collect();
    for (seed, world) in worlds.iter().enumerate() {
        assert_eq!(*world, busy_world(seed as u64), "seed {seed}");
    }
    let mut hashes: Vec<u64> = worlds.iter().map(|(hash, _)| *hash).collect();
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), 20);
}

#[test]
fn time_passes_when_the_owner_of_the_world_says_so() {
    let sim = Sim::new(1, Faults::NONE);
    let woken = Rc::new(Cell::new(false));
    let tell = Rc::clone(&woken);
    let mut executor = start(&sim, || async move {
        sleep(Duration::from_hours(1)).await;
        tell.set(true);
    });
    while sim.run(&mut executor) != Slice::Waiting {}
    assert!(!woken.get());
    assert!(sim.elapsed() < Duration::from_secs(1));
    settle(&sim, &mut executor);
    assert!(woken.get());
    assert!(sim.elapsed() >= Duration::from_hours(1));
}

#[test]
fn a_flush_makes_durable_what_was_written_before_it_and_no_more() {
    let (mut kept, mut lost) = (0, 0);
    for seed in 0..50 {
        let sim = Sim::new(seed, Faults::NONE);
        let (descriptor, id) = disk(&sim, 2);
        let mut executor = start(&sim, || async move {
            let file = Fd::new(descriptor).unwrap();
            file.write_at(vec![1; BLOCK], 0).await.0.unwrap();
            file.fdatasync().await.unwrap();
            file.write_at(vec![2; BLOCK], 0).await.0.unwrap();
            file.write_at(vec![3; BLOCK], BLOCK as u64).await.0.unwrap();
        });
        settle(&sim, &mut executor);
        assert_eq!(sim.disk_contents(id)[0], 2);
        sim.cut_power(id, Kept::Any);
        let contents = sim.disk_contents(id);
        assert!(contents[0] == 1 || contents[0] == 2, "a flushed write is lost");
        if contents[BLOCK] == 3 {
            kept += 1;
        } else {
            lost += 1;
        }
        sim.cut_power(id, Kept::None);
        assert_eq!(sim.disk_contents(id), contents, "what was there then lasts");
    }
    assert!(kept > 0 && lost > 0);
}

#[test]
fn what_a_failed_sync_should_have_written_is_lost_although_the_next_one_succeeds() {
    let sim = Sim::new(3, Faults { sync_error: PerMille(1000), ..Faults::NONE });
    let (descriptor, id) = disk(&sim, 1);
    let healed = sim.clone();
    let mut executor = start(&sim, || async move {
        let file = Fd::new(descriptor).unwrap();
        file.write_at(vec![1; BLOCK], 0).await.0.unwrap();
        assert!(file.fdatasync().await.is_err());
        healed.set_faults(Faults::NONE);
        file.fdatasync().await.unwrap();
    });
    settle(&sim, &mut executor);
    assert_eq!(sim.disk_contents(id)[0], 1, "the page cache has it");
    sim.cut_power(id, Kept::Any);
    assert_eq!(sim.disk_contents(id)[0], 0);
}

#[test]
fn events_wake_who_waits_for_them_and_are_seen_from_outside() {
    for seed in 0..20 {
        let sim = Sim::new(seed, Faults::NONE);
        let ((kick, kick_id), (call, call_id)) = (sim.event().unwrap(), sim.event().unwrap());
        let mut executor = start(&sim, || async move {
            let mut kicks = Fd::new(kick).unwrap().notifications();
            let call = Fd::new(call).unwrap();
            let call = if seed.is_multiple_of(2) { call } else { call.keep_flags() };
            loop {
                kicks.next().await.unwrap();
                call.signal();
            }
        });
        settle(&sim, &mut executor);
        for _ in 0..3 {
            assert!(!sim.take_signal(call_id));
            sim.signal(kick_id);
            settle(&sim, &mut executor);
            assert!(sim.take_signal(call_id));
        }
        sim.kill(executor);
        sim.signal(kick_id);
        assert!(!sim.take_signal(call_id));
    }
}

#[test]
fn an_actor_dies_at_any_point_and_its_operations_happen_or_not() {
    let (mut happened, mut not) = (0, 0);
    for point in 0..200 {
        let sim = Sim::new(point, Faults::NONE);
        let (descriptor, id) = disk(&sim, 16);
        let token = Rc::new(());
        let held = Rc::clone(&token);
        let mut executor = start(&sim, || async move {
            let file = Fd::new(descriptor).unwrap();
            for block in 0..16 {
                let (file, held) = (file.clone(), Rc::clone(&held));
                spawn(async move {
                    file.write_at(vec![1; BLOCK], block * BLOCK as u64).await.0.unwrap();
                    drop(held);
                })
                .detach();
            }
            drop(held);
        });
        sim.crash_after(Some((point % 17) as u32));
        let slice = loop {
            match sim.run(&mut executor) {
                Slice::Busy => {}
                Slice::Waiting if sim.advance() => {}
                other => break other,
            }
        };
        sim.kill(executor);
        assert_eq!(Rc::strong_count(&token), 1, "a dead actor holds nothing");
        let written =
            sim.disk_contents(id).iter().step_by(BLOCK).filter(|byte| **byte == 1).count();
        match slice {
            Slice::Crashed if written > 0 => happened += 1,
            Slice::Crashed => not += 1,
            _ => assert_eq!(written, 16),
        }
    }
    assert!(happened > 0 && not > 0);
}

#[test]
fn a_panic_of_the_actor_is_no_simulated_death() {
    let sim = Sim::new(0, Faults::NONE);
    let mut executor = start(&sim, || async {
        yield_now().await;
        panic!("a bug");
    });
    let run = std::panic::AssertUnwindSafe(|| while sim.run(&mut executor) == Slice::Busy {});
    assert!(std::panic::catch_unwind(run).is_err());
    sim.kill(executor);
}

#[test]
fn real_sockets_work_in_a_world() {
    let sim = Sim::new(5, Faults { again: PerMille(300), ..Faults::NONE });
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let received = Rc::new(RefCell::new(Vec::new()));
    let place = Rc::clone(&received);
    let mut executor = start(&sim, || async move {
        let (ours, theirs) = (Fd::new(ours).unwrap(), Fd::new(theirs).unwrap());
        spawn(async move {
            ours.send(b"words".to_vec(), SendFlags::empty()).await.0.unwrap();
        })
        .detach();
        let (count, buffer) = theirs.recv(Vec::with_capacity(16), RecvFlags::empty()).await;
        assert_eq!(count.unwrap(), 5);
        *place.borrow_mut() = buffer;
    });
    settle(&sim, &mut executor);
    assert_eq!(*received.borrow(), b"words");
}
