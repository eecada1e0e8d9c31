//! How deaths are told.

use rustix::process::Signal;
use vmm::warden::{Attempt, Cause, ProbeRequest};

use crate::Test;
use crate::world::{World, send_signal};

pub(crate) const TESTS: &[Test] = &[
    ("a_fault_leaves_a_note", a_fault_leaves_a_note),
    ("aborts_and_panics_leave_a_note", aborts_and_panics_leave_a_note),
    ("an_overflown_stack_leaves_a_note", an_overflown_stack_leaves_a_note),
    ("signals_from_outside_are_told_apart", signals_from_outside_are_told_apart),
    ("a_stop_is_a_death", a_stop_is_a_death),
    ("a_hung_actor_can_be_killed", a_hung_actor_can_be_killed),
    ("an_actor_whose_work_is_done_ends_in_order", an_actor_whose_work_is_done_ends_in_order),
    ("actors_of_one_process_end_and_die_together", actors_of_one_process_end_and_die_together),
    ("a_death_is_nobody_elses", a_death_is_nobody_elses),
];

fn a_fault_leaves_a_note() {
    for mut world in [World::new(), World::new().with_neighbours()] {
        let death = world.attempt(Attempt::Fault).expect_err("it dies");
        let note = death.note.expect("a note");
        assert_eq!((note.signal, note.address), (libc::SIGSEGV, 8), "{death}");
        assert_eq!(note.system_call, None);
    }
}

fn aborts_and_panics_leave_a_note() {
    let mut world = World::new();
    for attempt in [Attempt::Abort, Attempt::Panic] {
        let death = world.attempt(attempt.clone()).expect_err("it dies");
        let note = death.note.expect("a note");
        assert_eq!(note.signal, libc::SIGABRT, "{attempt:?}: {death}");
    }
}

fn an_overflown_stack_leaves_a_note() {
    for mut world in [World::new(), World::new().with_neighbours()] {
        let death = world.attempt(Attempt::OverflowStack).expect_err("it dies");
        let note = death.note.expect("a note");
        assert_eq!(note.signal, libc::SIGSEGV, "{death}");
    }
}

fn signals_from_outside_are_told_apart() {
    let mut world = World::new();
    let probe = world.probe();
    send_signal(probe.pid, Signal::KILL);
    let death = world.death_of(&probe);
    assert_eq!((death.cause, death.note), (Cause::Killed(libc::SIGKILL), None));
    for (signal, number) in
        [(Signal::SEGV, libc::SIGSEGV), (Signal::BUS, libc::SIGBUS), (Signal::SYS, libc::SIGSYS)]
    {
        let probe = world.probe();
        send_signal(probe.pid, signal);
        let death = world.death_of(&probe);
        let note = death.note.expect("a note");
        assert_eq!((note.signal, note.system_call, note.address), (number, None, 0));
    }
}

fn a_stop_is_a_death() {
    let mut world = World::new();
    let probe = world.probe();
    send_signal(probe.pid, Signal::STOP);
    assert_eq!(world.death_of(&probe).cause, Cause::Stopped);
}

fn a_hung_actor_can_be_killed() {
    let mut world = World::new();
    let probe = world.probe();
    let (spawner, id) = (world.warden.spawner().clone(), probe.id);
    let hung = {
        let requests = probe.requests.clone();
        async move {
            let make = |reply| ProbeRequest::Try(Attempt::Hang, reply);
            requests.call(make, crate::world::deadline()).await
        }
    };
    let kill = async move {
        spawner.kill(id).await.expect("asks");
        std::future::pending::<()>().await;
    };
    let outcome = world.executor.block_on(executor::select(hung, kill));
    assert!(matches!(outcome, executor::Either::Left(Err(_))));
    assert_eq!(world.death_of(&probe).cause, Cause::Killed(libc::SIGKILL));
}

fn an_actor_whose_work_is_done_ends_in_order() {
    let mut world = World::new();
    let mut probe = world.probe();
    // Nobody can ask it anything any more.
    probe.requests = ipc::channel(1).0;
    let death = world.death_of(&probe);
    assert!(death.is_orderly(), "{death}");
    // The machine closed the link.
    let probe = world.probe();
    probe.link.link.close();
    let death = world.death_of(&probe);
    assert!(death.is_orderly(), "{death}");
}

fn actors_of_one_process_end_and_die_together() {
    let mut world = World::new().with_neighbours();
    let (probe, other) = (world.probe(), world.probe());
    // The process goes on as long as one of them does.
    for actor in &probe.neighbours {
        actor.link.close();
    }
    assert!(world.is_alive(&probe));
    probe.link.link.close();
    let death = world.death_of(&probe);
    assert!(death.is_orderly(), "{death}");
    // What one of them must not do ends all.
    let failed = Attempt::Open("/".into());
    assert!(world.ask(&other, |reply| ProbeRequest::Try(failed, reply)).is_err());
    assert_eq!(world.death_of(&other).forbidden_call(), Some("openat"));
}

fn a_death_is_nobody_elses() {
    let mut world = World::new();
    let (first, second) = (world.probe(), world.probe());
    send_signal(first.pid, Signal::KILL);
    world.death_of(&first);
    assert!(world.is_alive(&second));
    let third = world.probe();
    assert!(world.is_alive(&third));
}
