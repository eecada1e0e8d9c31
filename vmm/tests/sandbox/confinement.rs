//! What an actor cannot do.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::time::Instant;

use vmm::warden::{Attempt, AttemptOutcome, ProbeRequest, RingOperation};

use crate::Test;
use crate::world::{PATIENCE, World};

pub(crate) const TESTS: &[Test] = &[
    ("an_actor_answers", an_actor_answers),
    ("forbidden_calls_kill_and_are_named", forbidden_calls_kill_and_are_named),
    ("each_wall_holds_without_the_filter", each_wall_holds_without_the_filter),
    ("forbidden_ring_operations_are_refused", forbidden_ring_operations_are_refused),
    ("an_actor_holds_its_link_and_nothing_else", an_actor_holds_its_link_and_nothing_else),
    ("the_kernel_says_that_privileges_are_gone", the_kernel_says_that_privileges_are_gone),
    ("neighbours_have_no_privileges_either", neighbours_have_no_privileges_either),
    ("namespaces_are_not_those_of_the_machine", namespaces_are_not_those_of_the_machine),
];

fn an_actor_answers() {
    let mut world = World::new();
    let probe = world.probe();
    assert!(world.is_alive(&probe));
}

fn forbidden_calls_kill_and_are_named() {
    for world in [World::new(), World::new().with_neighbours()] {
        forbidden_calls_kill_and_are_named_in(world);
    }
}

fn forbidden_calls_kill_and_are_named_in(mut world: World) {
    let machine = std::process::id() as i32;
    let warden = world.warden.pid();
    let table = [
        (Attempt::Open("/".into()), "openat"),
        (Attempt::Open("/proc".into()), "openat"),
        (Attempt::Open("/etc/passwd".into()), "openat"),
        (Attempt::Create("/file".into()), "openat"),
        (Attempt::Connect(1), "socket"),
        (Attempt::ConnectAbstract("name".into()), "socket"),
        (Attempt::Signal(machine), "kill"),
        (Attempt::Signal(warden), "kill"),
        (Attempt::Signal(1), "kill"),
        (Attempt::SignalAll, "kill"),
        (Attempt::Trace(warden), "ptrace"),
        (Attempt::ReadMemory(machine), "process_vm_readv"),
        (Attempt::Mount, "mount"),
        (Attempt::Unshare, "unshare"),
        (Attempt::SetUser, "setresuid"),
        (Attempt::SetCapabilities, "capset"),
        (Attempt::Execute("/proc/self/exe".into()), "execve"),
        (Attempt::Fork, "clone"),
        (Attempt::NewRing, "io_uring_setup"),
        (Attempt::MapExecutable, "mmap"),
        (Attempt::MakeExecutable, "mprotect"),
        (Attempt::SetDescriptorFlags, "fcntl"),
        (Attempt::BeDumpable, "prctl"),
    ];
    for (attempt, call) in table {
        let death = world.attempt(attempt.clone()).expect_err("it dies");
        assert_eq!(death.forbidden_call(), Some(call), "{attempt:?}: {death}");
        let signal = death.note.map(|note| note.signal);
        assert_eq!(signal, Some(libc::SIGSYS), "{attempt:?}: {death}");
        assert!(!death.is_orderly());
    }
}

/// The same where the filter only logs: nothing rests on it alone.
fn each_wall_holds_without_the_filter() {
    for world in [World::without_seccomp(), World::without_seccomp().with_neighbours()] {
        each_wall_holds_in(world);
    }
}

fn each_wall_holds_in(mut world: World) {
    let machine = std::process::id() as i32;
    let warden = world.warden.pid();
    let other = world.probe();
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = tcp.local_addr().expect("its number").port();
    let name = format!("sandbox-test-{machine}");
    let address = SocketAddr::from_abstract_name(&name).expect("a name");
    let _listener = UnixListener::bind_addr(&address).expect("a socket");
    let table: [(Attempt, &[i32]); 16] = [
        (Attempt::Open("/proc".into()), &[libc::ENOENT]),
        (Attempt::Open("/etc/passwd".into()), &[libc::ENOENT]),
        (Attempt::Open("../etc/passwd".into()), &[libc::ENOENT]),
        (Attempt::Create("/file".into()), &[libc::EROFS]),
        // Landlock, where there is one, says EACCES first.
        (Attempt::Connect(port), &[libc::ENETUNREACH, libc::EACCES]),
        (Attempt::ConnectAbstract(name), &[libc::ECONNREFUSED, libc::EPERM]),
        (Attempt::Signal(machine), &[libc::ESRCH]),
        (Attempt::Signal(warden), &[libc::ESRCH]),
        (Attempt::Signal(other.pid), &[libc::ESRCH]),
        (Attempt::SignalAll, &[libc::ESRCH]),
        (Attempt::Trace(warden), &[libc::ESRCH]),
        (Attempt::ReadMemory(machine), &[libc::ESRCH]),
        (Attempt::Mount, &[libc::EPERM]),
        // Of a process with threads the kernel says something else first.
        (Attempt::Unshare, &[libc::ENOSPC, libc::EINVAL]),
        (Attempt::SetUser, &[libc::EINVAL, libc::EPERM]),
        (Attempt::SetCapabilities, &[libc::EPERM]),
    ];
    for (attempt, expected) in table {
        match world.attempt(attempt.clone()) {
            Ok(AttemptOutcome::Refused(errno)) if expected.contains(&errno) => {}
            outcome => panic!("{attempt:?}: {outcome:?}"),
        }
    }
    let outcome = world.attempt(Attempt::Execute("/bin/sh".into()));
    assert_eq!(outcome, Ok(AttemptOutcome::Refused(libc::ENOENT)));
}

fn forbidden_ring_operations_are_refused() {
    for world in [World::new(), World::new().with_neighbours()] {
        forbidden_ring_operations_are_refused_in(world);
    }
}

fn forbidden_ring_operations_are_refused_in(mut world: World) {
    if world.executor.driver() == executor::DriverKind::Epoll {
        // There is no ring; the calls that stand in for its operations are the filter's.
        return;
    }
    for operation in [
        RingOperation::Sync,
        RingOperation::Accept,
        RingOperation::Connect,
        RingOperation::Allocate,
    ] {
        let outcome = world.attempt(Attempt::Ring(operation));
        assert_eq!(outcome, Ok(AttemptOutcome::Refused(libc::EACCES)), "{operation:?}");
    }
}

fn an_actor_holds_its_link_and_nothing_else() {
    let mut world = World::new();
    // A descriptor of the machine that must not turn up, nor anything of the other actor.
    let _file = fs::File::open("/proc/self/exe").expect("opens");
    let _other = world.probe();
    let probe = world.probe();
    let open = world.ask(&probe, ProbeRequest::Descriptors).expect("answers");
    // Standard error; the link's socket and bell, twice, and the peer's bell; the executor's
    // doorbell; its ring, twice.
    assert!(open.len() <= 9, "{open:?}");
    let sockets = world.ask(&probe, ProbeRequest::Sockets).expect("answers");
    assert!((1..=2).contains(&sockets.len()), "{sockets:?}");
    // What they are is for those to see who may.
    let mut seen = BTreeSet::new();
    for fd in open.iter().filter(|fd| **fd != 2) {
        let Ok(link) = fs::read_link(format!("/proc/{}/fd/{fd}", probe.pid)) else {
            assert!(!rustix::process::geteuid().is_root());
            return;
        };
        seen.insert(link.to_string_lossy().into_owned());
    }
    let of_kind = |kind: &str| seen.iter().filter(|link| link.starts_with(kind)).count();
    assert_eq!(of_kind("socket:"), 1, "its link's: {seen:?}");
    let known =
        ["socket:", "anon_inode:[eventfd]", "anon_inode:[io_uring]", "anon_inode:[eventpoll]"];
    let count: usize = known.iter().map(|kind| of_kind(kind)).sum();
    assert_eq!(count, seen.len(), "{seen:?}");
}

fn the_kernel_says_that_privileges_are_gone() {
    let mut world = World::new();
    let probe = world.probe();
    let status = fs::read_to_string(format!("/proc/{}/status", probe.pid)).expect("reads");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.map(str::trim).expect("the kernel tells it").to_owned()
    };
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    assert_eq!(field("NoNewPrivs:"), "1");
    assert_eq!(field("Seccomp:"), "2");
    assert_eq!(field("Threads:"), "1");
    let numbers = field("NSpid:");
    assert!(numbers.ends_with("\t1"), "process 1 of its own: {numbers}");
}

/// Each thread has what the kernel keeps for threads.
fn neighbours_have_no_privileges_either() {
    // Workers of a ring would be others, which these actors give nothing to do.
    const THREADS: usize = 3;
    let mut world = World::new().with_neighbours();
    let probe = world.probe();
    let statuses = || {
        let threads = fs::read_dir(format!("/proc/{}/task", probe.pid)).expect("reads");
        let statuses = threads.map(|thread| {
            let path = thread.expect("a thread").path().join("status");
            fs::read_to_string(path).expect("reads")
        });
        statuses.collect::<Vec<_>>()
    };
    let deadline = Instant::now() + PATIENCE;
    let statuses = loop {
        let statuses = statuses();
        // The probe answers while its neighbours may still be on their way.
        let is_filtered = |status: &String| status.contains("Seccomp:\t2");
        if statuses.len() >= THREADS && statuses.iter().all(is_filtered) {
            break statuses;
        }
        assert!(Instant::now() < deadline, "{statuses:?}");
        std::thread::yield_now();
    };
    assert_eq!(statuses.len(), THREADS);
    assert!(world.is_alive(&probe));
    for status in statuses {
        for line in ["CapEff:\t0000000000000000", "CapPrm:\t0000000000000000", "NoNewPrivs:\t1"] {
            assert!(status.contains(line), "{line}: {status}");
        }
    }
}

/// Read by those who may: the kernel shows the namespaces of an undumpable process to root only.
fn namespaces_are_not_those_of_the_machine() {
    let mut world = World::new();
    let probe = world.probe();
    for kind in ["user", "pid", "mnt", "net", "ipc", "uts"] {
        let namespace = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/{kind}"));
        let ours = namespace(std::process::id() as i32).expect("reads");
        match namespace(probe.pid) {
            Ok(theirs) => assert_ne!(theirs, ours, "{kind}"),
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
                assert!(!rustix::process::geteuid().is_root());
            }
        }
    }
    // The only mount there is.
    let Ok(mounts) = fs::read_to_string(format!("/proc/{}/mountinfo", probe.pid)) else {
        assert!(!rustix::process::geteuid().is_root());
        return;
    };
    let lines: Vec<_> = mounts.lines().collect();
    assert_eq!(lines.len(), 1, "{mounts}");
    assert!(lines[0].contains(" / / ro,nosuid,nodev,noexec"), "{mounts}");
}
