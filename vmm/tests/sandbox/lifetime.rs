//! Who outlives whom: nobody.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, ExitCode, Stdio};

use ipc::CallError;
use rustix::process::{Pid, Signal, WaitOptions};
use vmm::warden::ProbeRequest;

use crate::world::{World, assert_ends, pidfd, send_signal};
use crate::{ROLE, Test};

pub(crate) const TESTS: &[Test] = &[
    ("the_end_of_the_warden_leaves_nothing", the_end_of_the_warden_leaves_nothing),
    ("a_killed_warden_leaves_nothing", a_killed_warden_leaves_nothing),
    ("a_killed_machine_leaves_nothing", a_killed_machine_leaves_nothing),
];

fn mounts() -> String {
    fs::read_to_string("/proc/self/mountinfo").expect("reads")
}

fn exists(pid: i32) -> bool {
    let pid = Pid::from_raw(pid).expect("a process number");
    rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH)
}

fn the_end_of_the_warden_leaves_nothing() {
    let before = mounts();
    let mut world = World::new();
    let (first, second) = (world.probe(), world.probe());
    let pids = [world.warden.pid(), first.pid, second.pid];
    assert!(pids.iter().all(|pid| exists(*pid)));
    drop(world);
    // Not even as zombies.
    for pid in pids {
        assert!(!exists(pid), "process {pid}");
    }
    assert_eq!(mounts(), before);
}

fn a_killed_warden_leaves_nothing() {
    // So that it is this process that finds the actors' bodies, and not init.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).expect("adopts");
    let mut world = World::new();
    let probes = [world.probe(), world.probe()];
    let pidfds = probes.each_ref().map(|probe| pidfd(probe.pid));
    send_signal(world.warden.pid(), Signal::KILL);
    for (probe, pidfd) in probes.iter().zip(&pidfds) {
        assert_ends(pidfd);
        let pid = Pid::from_raw(probe.pid);
        let (_, status) = rustix::process::waitpid(pid, WaitOptions::empty())
            .expect("its parent is dead")
            .expect("it is dead");
        assert_eq!(status.terminating_signal(), Some(libc::SIGKILL));
        let answer = world.ask(probe, |reply| ProbeRequest::Echo(1, reply));
        assert!(matches!(answer, Err(CallError::PeerDied | CallError::Refused)));
    }
    assert!(world.next_event().is_err());
    rustix::process::set_child_subreaper(None).expect("adopts no more");
}

fn a_killed_machine_leaves_nothing() {
    let mut machine = Command::new("/proc/self/exe")
        .env(ROLE, "machine")
        .stdout(Stdio::piped())
        .spawn()
        .expect("this program runs again");
    let mut said = String::new();
    let stdout = machine.stdout.take().expect("a pipe");
    BufReader::new(stdout).read_line(&mut said).expect("it says who is there");
    let pids: Vec<i32> =
        said.split_whitespace().map(|number| number.parse().expect("a number")).collect();
    assert_eq!(pids.len(), 3, "{said}");
    let pidfds: Vec<_> = pids.iter().map(|pid| pidfd(*pid)).collect();
    machine.kill().expect("kills it");
    machine.wait().expect("it is dead");
    for pidfd in &pidfds {
        assert_ends(pidfd);
    }
}

/// A machine with two actors that says their numbers and then waits to be killed.
pub(crate) fn play_machine() -> ExitCode {
    let mut world = World::new();
    let (first, second) = (world.probe(), world.probe());
    println!("{} {} {}", world.warden.pid(), first.pid, second.pid);
    std::io::stdout().flush().expect("says it");
    world.executor.block_on(std::future::pending::<()>());
    ExitCode::FAILURE
}
