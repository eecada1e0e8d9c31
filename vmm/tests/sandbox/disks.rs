//! A disk that is served from a sandbox.

mod bed;

use std::os::fd::OwnedFd;

use rustix::process::Signal;
use vmm::warden::{ActorKind, Cause, Start};

use self::bed::{Bed, FLUSH, IN, SECTOR, STATUS_OK, WRITE_ZEROES};
use crate::Test;
use crate::world::{World, send_signal};

pub(crate) const TESTS: &[Test] = &[
    ("a_disk_is_served", a_disk_is_served),
    ("a_disk_is_taken_over_by_a_successor", a_disk_is_taken_over_by_a_successor),
    ("a_disk_ends_with_its_transport", a_disk_ends_with_its_transport),
    ("a_disk_that_cannot_start_ends_with_a_status", a_disk_that_cannot_start_ends_with_a_status),
];

/// Every kind of request, so that the policy is seen to allow what they take.
fn a_disk_is_served() {
    let mut world = World::new();
    for needs in Bed::needs(&world) {
        let bed = Bed::new(&mut world, needs);
        is_served(&mut world, bed);
    }
}

fn is_served(world: &mut World, mut bed: Bed) {
    for round in 0..3 {
        let data = vec![0x40 + round; SECTOR];
        assert_eq!(bed.write(world, 5, &data), STATUS_OK);
        assert_eq!(bed.read(world, 5), (STATUS_OK, data.clone()));
        assert_eq!(bed.request(world, FLUSH, 0, &[]), STATUS_OK);
        assert_eq!(bed.file_sector(5), data);
    }
    // One sector from sector 5 on, without flags; file systems may not be able to.
    let range = [&5_u64.to_le_bytes()[..], &1_u32.to_le_bytes(), &0_u32.to_le_bytes()].concat();
    let status = bed.request(world, WRITE_ZEROES, 0, &range);
    if status == STATUS_OK {
        assert_eq!(bed.read(world, 5), (STATUS_OK, vec![0; SECTOR]));
    }
}

fn a_disk_is_taken_over_by_a_successor() {
    let mut world = World::new();
    for needs in Bed::needs(&world) {
        let bed = Bed::new(&mut world, needs);
        is_taken_over_by_a_successor(&mut world, bed);
    }
}

fn is_taken_over_by_a_successor(world: &mut World, mut bed: Bed) {
    let data = vec![7; SECTOR];
    assert_eq!(bed.write(world, 1, &data), STATUS_OK);
    for (signal, number) in [(Signal::KILL, libc::SIGKILL), (Signal::SEGV, libc::SIGSEGV)] {
        send_signal(bed.pid, signal);
        let death = world.death(bed.id);
        let told = death.note.map_or(death.cause, |note| Cause::Killed(note.signal));
        assert_eq!(told, Cause::Killed(number));
        // Made available while nobody serves the queue.
        let pending = bed.make_available(IN, 1, &[0; SECTOR]);
        bed.replace(world);
        assert_eq!(bed.complete(world, pending), STATUS_OK);
        assert_eq!(bed.data(SECTOR), data);
    }
}

fn a_disk_ends_with_its_transport() {
    let mut world = World::new();
    for needs in Bed::needs(&world) {
        let bed = Bed::new(&mut world, needs);
        ends_with_its_transport(&mut world, bed);
    }
}

fn ends_with_its_transport(world: &mut World, mut bed: Bed) {
    assert_eq!(bed.write(world, 0, &[1; SECTOR]), STATUS_OK);
    let id = bed.id;
    bed.hang_up();
    let death = world.death(id);
    assert!(death.is_orderly(), "{death}");
}

fn a_disk_that_cannot_start_ends_with_a_status() {
    let mut world = World::new();
    // Of the wrong kind; with an in-flight record that is none.
    for kind in [ActorKind::Probe, ActorKind::Blk] {
        let (id, _, link) = world.spawn(kind);
        let (mut start, _ends) = Bed::start();
        if kind == ActorKind::Blk {
            start.inflight = OwnedFd::from(tempfile::tempfile().expect("a file")).into();
        }
        let start = Start::Virtio(Box::new(start));
        world.executor.block_on(link.sender.send(start)).expect("it takes its start");
        let death = world.death(id);
        assert_eq!(death.cause, Cause::Exited(1), "{death}");
    }
}
