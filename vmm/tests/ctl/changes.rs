//! Devices that are changed while they work.

use rustix::process::{Pid, Signal, kill_process};

use crate::machine::{DISK_BYTES, ENDLESS, Machine, has_kvm, until};

/// Nothing is under way after a pause, and then a rate of zero lets one request through at most.
fn assert_stands_still(machine: &Machine) {
    for command in ["pause", "resume"] {
        machine.done(&[command]);
    }
    let before = machine.requests();
    for command in ["status", "pause", "resume"] {
        machine.done(&[command]);
    }
    assert!(machine.requests() <= before + 1);
}

#[test]
fn limits_hold_are_lifted_and_survive_the_process() {
    if !has_kvm() {
        return;
    }
    for placement in [&[][..], &["--single-process"]] {
        let machine = Machine::start(ENDLESS, placement);
        let mut before = machine.requests_after(0);
        for limit in ["ops=0", "bytes=0", "bytes=0,ops=0"] {
            machine.done(&["rate-limit", "data", limit]);
            assert_stands_still(&machine);
            if placement.is_empty() {
                let pid = machine.disk_pid();
                let process = Pid::from_raw(pid).expect("a process");
                kill_process(process, Signal::KILL).expect("killed");
                until("there is a successor", || {
                    machine.status()["devices"][0]["pid"]
                        .as_i64()
                        .filter(|new| *new != i64::from(pid))
                });
                assert_stands_still(&machine);
            }
            before = machine.requests().max(before);
            machine.done(&["rate-limit", "disk0", "none"]);
            before = machine.requests_after(before + 100);
        }
    }
}

#[test]
fn a_disk_grows_with_its_file_and_does_not_cut_it() {
    if !has_kvm() {
        return;
    }
    for placement in [&[][..], &["--single-process"]] {
        let machine = Machine::start(ENDLESS, placement);
        let length = || machine.path("disk.img").metadata().expect("metadata").len();
        machine.done(&["disk-resize", "data", "32M"]);
        assert_eq!(length(), 32 << 20);
        for (size, words) in [("16M", "does not shrink"), ("0", "no size"), ("1B", "no size")] {
            let said = machine.ctl(&["disk-resize", "disk0", size]);
            assert_eq!(said.status, Some(35), "{size}");
            assert!(said.err.contains(words) && said.err.contains("hint: "), "{}", said.err);
        }
        assert_eq!(length(), 32 << 20);
        let file = std::fs::File::options().write(true).open(machine.path("disk.img"));
        file.expect("opens").set_len(DISK_BYTES).expect("cut");
        machine.done(&["disk-resize", "disk0", "16M"]);
        let before = machine.requests();
        machine.requests_after(before);
    }
}

#[test]
fn what_makes_no_sense_is_refused_with_words() {
    if !has_kvm() {
        return;
    }
    let machine = Machine::start(ENDLESS, &[]);
    let table: &[(&[&str], &str)] = &[
        (&["disk-resize", "disk1", "1G"], "no device `disk1`"),
        (&["net-link", "disk0", "up"], "a disk has no link"),
        (&["rate-limit", "disk0", "ops=1,rx"], "both directions"),
        (&["balloon", "64M"], "no balloon"),
    ];
    for (arguments, words) in table {
        let said = machine.ctl(arguments);
        assert_eq!(said.status, Some(35), "{arguments:?}");
        assert!(said.err.contains(words), "{arguments:?}: {}", said.err);
        let said = machine.ctl(&[*arguments, &["--json"]].concat());
        let json: serde_json::Value = serde_json::from_str(&said.out).expect("one JSON value");
        assert!(json["error"].as_str().expect("words").contains(words), "{json}");
    }
}
