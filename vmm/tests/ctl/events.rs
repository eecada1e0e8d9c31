//! What those hear who listen.

use std::io::{BufRead, BufReader};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::machine::{ENDLESS, Machine, has_kvm};

#[test]
fn a_death_its_successor_a_pause_and_the_end_are_heard_in_order() {
    if !has_kvm() {
        return;
    }
    let mut machine = Machine::start(ENDLESS, &[]);
    let pid = machine.disk_pid();
    let mut listener = machine.ctl_beside(&["events", "--json"]);
    let mut lines = BufReader::new(listener.stdout.take().expect("its output")).lines();
    let mut next = move || -> Option<Value> {
        let line = lines.next()?.expect("a line");
        Some(serde_json::from_str(&line).expect("one JSON value"))
    };
    // Who has heard of a pause listens.
    machine.done(&["status"]);
    let mut first = None;
    while first.is_none() {
        machine.done(&["pause"]);
        machine.done(&["resume"]);
        first = next();
    }
    let process = Pid::from_raw(pid).expect("a process");
    kill_process(process, Signal::KILL).expect("killed");
    let mut event = first.expect("an event");
    while event["kind"] != "device-died" {
        assert!(event["kind"] == "paused" || event["kind"] == "resumed", "{event}");
        event = next().expect("an event");
    }
    assert_eq!((&event["device"], &event["pid"]), (&"disk0".into(), &pid.into()));
    assert_eq!(event["reason"], "killed by SIGKILL");
    let event = next().expect("an event");
    assert_eq!((&event["kind"], &event["restarts"]), (&"device-replaced".into(), &1.into()));
    machine.done(&["disk-resize", "disk0", "32M"]);
    assert_eq!(next().expect("an event")["kind"], "changed");
    machine.done(&["stop"]);
    let event = next().expect("an event");
    assert_eq!((&event["kind"], &event["status"]), (&"ended".into(), &36.into()));
    assert_eq!(next(), None);
    assert_eq!(listener.wait().expect("it ends").code(), Some(0));
    assert_eq!(machine.wait(), Some(36));
}

#[test]
fn a_device_that_is_given_up_is_told() {
    if !has_kvm() {
        return;
    }
    // It leaves the disk alone, and so does not mind.
    let machine = Machine::start("check=cpu hold=600", &["--restart", "never"]);
    let process = Pid::from_raw(machine.disk_pid()).expect("a process");
    kill_process(process, Signal::KILL).expect("killed");
    crate::machine::until("it is given up", || {
        (machine.status()["devices"][0]["service"] == "given-up").then_some(())
    });
    let said = machine.ctl(&["rate-limit", "disk0", "ops=1"]);
    assert!(said.err.contains("no process any more"), "{}", said.err);
    machine.done(&["pause"]);
    machine.done(&["resume"]);
}
